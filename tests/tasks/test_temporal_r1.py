"""Temporal-R1: the reward arms, the reward of a label, the published settings, and unreadable videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import mmpost
from mmpost.config import run_config
from mmpost.data.media.media import media
from mmpost.data.worlds.clips import QUESTION_TYPES, Clips
from mmpost.errors import DataError
from mmpost.runs.configured_task import make_task
from mmpost.tasks.temporal_r1 import TemporalR1
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply


def make_temporal_r1(**fields: Any) -> TemporalR1:
    return TemporalR1.model_validate({"question_types": QUESTION_TYPES, "clips": 16, "bench_clips": 16, **fields})


def score_transform(built: TemporalR1) -> Score:
    (stage,) = built.stages()
    return next(t for t in stage.transforms if isinstance(t, Score))


@pytest.mark.parametrize("arm", [{}, {"semantic": False}, {"temporal": False}, {"released": True}])
def test_a_label_earns_the_full_reward_in_every_arm(arm: dict[str, Any]) -> None:
    built = make_temporal_r1(reward=arm)
    (stage,) = built.stages()
    dual, (gold,) = score_transform(built).rewards["dual"], built.gold()
    for sample in stage.source:
        text = gold.text(sample)
        assert text is not None
        assert gold.is_parseable is not None
        assert gold.is_parseable(text)
        # The released reward takes the whole content of the tags as the answer, except quoted capitals in JSON.
        expected = 2 / 3 if arm.get("released") and sample.truth["spans"] and sample.truth["answer"] else 1.0
        assert dual(sample, Reply((Part("text", text),))) == pytest.approx(expected)


def test_only_the_dual_reward_has_a_weight_and_its_terms_are_logged() -> None:
    score = score_transform(make_temporal_r1())
    assert list(score.rewards) == ["dual", "format", "semantic", "temporal"]
    assert [score.weights.get(name, 1.0) for name in score.rewards] == [1.0, 0.0, 0.0, 0.0]


def test_the_published_settings_are_the_configuration() -> None:
    run, _ = run_config.load([{"task": "temporal_r1", "model": "Qwen/Qwen2.5-VL-3B-Instruct"}])
    built = make_task(run)
    assert isinstance(built, TemporalR1)
    assert (built.policy.beta, built.policy.kl_estimator, built.policy.entropy) == (1e-2, "k3", 1e-3)
    assert (built.num_generations, built.prompts_per_step, built.sampling.max_tokens, built.sampling.temperature) == (
        8,
        16,
        2048,
        1.0,
    )
    assert (run.optim.lr, run.optim.weight_decay, run.optim.max_grad_norm, run.optim.schedule) == (
        1e-6,
        1e-2,
        1.0,
        "constant",
    )
    assert all(name in built.instructions["grounding"] for name in ("{question}", '"start_time": "3.0"'))


@pytest.fixture
def video_folder(tmp_path: Path) -> Path:
    """Rows of six videos, two of them readable; one of these has a variable frame rate."""
    good = Clips(n=1)[0].prompt[0].value.bytes()
    (tmp_path / "good.mp4").write_bytes(good)
    (tmp_path / "cut.mp4").write_bytes(good[: len(good) // 2])
    (tmp_path / "sound.mp4").write_bytes(media((np.zeros(800, np.float32), 8000), "audio").bytes())
    with av.open(str(tmp_path / "empty.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 56, 56, "yuv420p"
        container.start_encoding()
    with av.open(str(tmp_path / "uneven.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 56, 56, "yuv420p"
        for time in (0, 1, 2, 5, 6, 11):
            frame = av.VideoFrame.from_ndarray(np.full((56, 56, 3), 20 * time, np.uint8), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    names = ("good.mp4", "cut.mp4", "sound.mp4", "empty.mp4", "uneven.mkv", "absent.mp4")
    rows = [{"id": n, "video": n, "problem": "which digit?", "solution": "7", "video_length": 6} for n in names]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def train(video_folder: Path, tiny_folder: str, on_error: str) -> dict[str, Any]:
    return mmpost.train(
        task={"name": "temporal_r1", "prompts_per_step": 6, "num_generations": 2, "sampling": {"max_tokens": 4}},
        model=tiny_folder,
        data={"train": str(video_folder / "rows.jsonl"), "on_error": on_error},
        eval={"before": False, "after": False},
        steps=1,
        log={"progress": False, "tensorboard": False, "probe_every": 0},
        out=str(video_folder / "run"),
    )


def test_videos_that_cannot_be_read_stop_a_run_unless_it_skips_them(video_folder: Path, tiny_folder: str) -> None:
    with pytest.raises(DataError, match=r"(cut|sound|empty|absent)\.mp4"):
        train(video_folder, tiny_folder, "stop")
    shutil.rmtree(video_folder / "run")
    summary = train(video_folder, tiny_folder, "skip")
    assert summary["status"] == "done"
    assert summary["skipped"]["rows"] == 4
    for name in ("cut.mp4", "sound.mp4", "empty.mp4", "absent.mp4"):
        assert any(name in message for message in summary["skipped"]["named"])
