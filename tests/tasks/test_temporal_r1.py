"""Temporal-R1: the arms, what a label earns, the built-in splits, and videos that cannot be read."""

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


def task(**fields: Any) -> TemporalR1:
    return TemporalR1.model_validate({"question_types": QUESTION_TYPES, "clips": 16, "bench_clips": 16, **fields})


def reward(made: TemporalR1) -> Score:
    (stage,) = made.stages()
    return next(t for t in stage.transforms if isinstance(t, Score))


@pytest.mark.parametrize("arm", [{}, {"semantic": False}, {"temporal": False}, {"released": True}])
def test_a_label_earns_all_in_every_arm(arm: dict[str, Any]) -> None:
    made = task(reward=arm)
    (stage,) = made.stages()
    dual, (gold,) = reward(made).rewards["dual"], made.gold()
    for sample in stage.source:
        text = gold.text(sample)
        assert text is not None
        assert gold.is_parseable is not None
        assert gold.is_parseable(text)
        # Released, an answer is what stands in the tags; only quoted capitals are taken out of JSON.
        least = 2 / 3 if arm.get("released") and sample.truth["spans"] and sample.truth["answer"] else 1.0
        assert dual(sample, Reply((Part("text", text),))) == pytest.approx(least)


def test_only_the_dual_reward_counts_and_its_terms_are_logged() -> None:
    score = reward(task())
    assert list(score.rewards) == ["dual", "format", "semantic", "temporal"]
    assert [score.weights.get(name, 1.0) for name in score.rewards] == [1.0, 0.0, 0.0, 0.0]


def test_the_published_settings_are_the_configuration() -> None:
    run, _ = run_config.load([{"task": "temporal_r1", "model": "Qwen/Qwen2.5-VL-3B-Instruct"}])
    made = make_task(run)
    assert isinstance(made, TemporalR1)
    assert (made.policy.beta, made.policy.kl_estimator, made.policy.entropy) == (1e-2, "k3", 1e-3)
    assert (made.num_generations, made.prompts_per_step, made.sampling.max_tokens, made.sampling.temperature) == (
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
    assert all(name in made.instructions["grounding"] for name in ("{question}", '"start_time": "3.0"'))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Rows with videos of which two can be read: one of them without a constant rate."""
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


def train(films: Path, tiny_folder: str, on_error: str) -> dict[str, Any]:
    return mmpost.train(
        task={"name": "temporal_r1", "prompts_per_step": 6, "num_generations": 2, "sampling": {"max_tokens": 4}},
        model=tiny_folder,
        data={"train": str(films / "rows.jsonl"), "on_error": on_error},
        eval={"before": False, "after": False},
        steps=1,
        log={"progress": False, "tensorboard": False, "probe_every": 0},
        out=str(films / "run"),
    )


def test_videos_that_cannot_be_read_stop_a_run_unless_it_skips_them(films: Path, tiny_folder: str) -> None:
    with pytest.raises(DataError, match=r"(cut|sound|empty|absent)\.mp4"):
        train(films, tiny_folder, "stop")
    shutil.rmtree(films / "run")
    summary = train(films, tiny_folder, "skip")
    assert summary["status"] == "done"
    assert summary["skipped"]["rows"] == 4
    for name in ("cut.mp4", "sound.mp4", "empty.mp4", "absent.mp4"):
        assert any(name in told for told in summary["skipped"]["named"])
