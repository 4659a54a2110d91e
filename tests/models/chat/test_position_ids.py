"""Position ids of images and videos: published tables, functions of the installed transformers, and model.positions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError, DataError
from mmpost.models.chat.model import ChatModel
from mmpost.models.chat.position_ids import PositionRule, Resume, published_positions
from mmpost.models.chat.prompts import PositionIds
from mmpost.rollout.local import LocalRollout
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Sample, Sampling
from tests.models.families import build
from tests.models.samples import mixed_prompts, random_medium, random_video

QWEN2, QWEN25, QWEN3 = PositionRule(2, None, False), PositionRule(2, 2.0, False), PositionRule(2, None, True)


def video(t: int, h: int, w: int, seconds: float = 1.0) -> dict[str, Tensor]:
    return {"video_grid_thw": torch.tensor([[t, h, w]]), "second_per_grid_ts": torch.tensor([seconds])}


def token_types(*runs: tuple[int, int]) -> Tensor:
    """Token types of consecutive runs of (type, length)."""
    return torch.tensor([token_type for token_type, n in runs for _ in range(n)])


@pytest.mark.parametrize(
    ("seconds", "resume", "time", "after"),
    [
        (1.0, "max", [3] * 4 + [5] * 4, 6),
        (1.0, "spatial", [3] * 4 + [5] * 4, 5),
        (0.8, "spatial", [3] * 4 + [4] * 4, 5),
        (0.8, "max", [3] * 4 + [4] * 4, 5),
        (10.0, "max", [3] * 4 + [23] * 4, 24),
        (10.0, "spatial", [3] * 4 + [23] * 4, 5),
    ],
)
def test_the_published_example(seconds: float, resume: Resume, time: list[int], after: int) -> None:
    positions = published_positions(QWEN25, token_types((0, 3), (2, 8), (0, 4)), video(2, 4, 4, seconds), resume)
    assert positions[0].tolist() == [0, 1, 2, *time, *range(after, after + 4)]
    assert positions[1, 3:11].tolist() == [3, 3, 4, 4] * 2
    assert positions[2, 3:11].tolist() == [3, 4] * 4
    assert positions[:, 11:].unique(dim=0).shape[0] == 1


def test_hand_computed_positions() -> None:
    six_frames = token_types((0, 3), (2, 24), (0, 1))
    assert [int(published_positions(QWEN2, six_frames, video(6, 4, 4), r)[0, -1]) for r in ("max", "spatial")] == [9, 5]
    thirty_frames = token_types((0, 20), (2, 30 * 64), (0, 1))
    assert [
        int(published_positions(QWEN25, thirty_frames, video(30, 16, 16), r)[0, -1]) for r in ("max", "spatial")
    ] == [79, 28]
    two_frames = token_types((0, 3), (2, 4), (0, 3), (2, 4), (0, 3))
    row = published_positions(QWEN3, two_frames, video(2, 4, 4))[0].tolist()
    assert row == [0, 1, 2, 3, 3, 3, 3, 5, 6, 7, 8, 8, 8, 8, 10, 11, 12]
    image = published_positions(
        QWEN25, token_types((0, 3), (1, 6), (0, 1)), {"image_grid_thw": torch.tensor([[1, 4, 6]])}
    )
    assert image.tolist() == [[0, 1, 2, *[3] * 6, 6], [0, 1, 2, 3, 3, 3, 4, 4, 4, 6], [0, 1, 2, 3, 4, 5, 3, 4, 5, 6]]


def test_the_last_position_does_not_depend_on_the_frame_rate() -> None:
    ends = []
    for grids in (5, 10, 20, 40):
        positions = published_positions(
            QWEN25, token_types((0, 3), (2, 4 * grids), (0, 1)), video(grids, 4, 4, 20 / grids)
        )
        ends.append(int(positions[0, -1]) + 2 * 20 / grids)
    assert max(ends) - min(ends) <= 2


def test_mismatched_grids_are_refused() -> None:
    with pytest.raises(DataError, match="wanted 8 tokens for a grid of 2 x 2 x 2, found 7"):
        published_positions(QWEN25, token_types((0, 3), (2, 7)), video(2, 4, 4))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("positions")
    names = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_audio")
    for name in names:
        build(name, root / name)
    return {name: root / name for name in names}


def load(folder: Path, **settings: Any) -> ChatModel:
    return ChatModel.load(str(folder), ModelSettings(name=folder.name, device="cpu", **settings))


@pytest.mark.parametrize(("name", "resume"), [("qwen2_vl", "spatial"), ("qwen2_5_vl", "spatial"), ("qwen3_vl", "max")])
def test_the_installed_functions_follow_a_known_rule(folders: dict[str, Path], name: str, resume: Resume) -> None:
    model = load(folders[name])
    positions = model.prompt.positions
    assert positions.name == f"installed {resume}"
    assert positions.rule is not None
    for sample in (*mixed_prompts("video"), *mixed_prompts()):
        prompt = model.prompt(sample)
        seconds = [p.value.header()["duration"] for p in sample.prompt if p.modality == "video"]
        frames = [len(p.value.open().frames) for p in sample.prompt if p.modality == "video"]
        timing = {"second_per_grid_ts": torch.tensor([2 * s / n for s, n in zip(seconds, frames, strict=True)])}
        ours = published_positions(positions.rule, prompt.aligned["mm_token_type_ids"], prompt.media | timing, resume)
        assert torch.equal(prompt.positions, ours if prompt.media_inputs else ours[:, : len(prompt.ids)])


def test_positions_original_follows_the_published_rule(folders: dict[str, Path]) -> None:
    slow_video = Sample("slow", (Part("video", random_video(56, 56, 1, frames=6, fps=0.2)), Part("text", "what moves")))
    installed, original = (load(folders["qwen2_5_vl"], positions=p) for p in ("installed", "original"))
    assert original.recipe.positions == "original max"
    assert installed.recipe.hash != original.recipe.hash
    a, b = installed.prompt(slow_video), original.prompt(slow_video)
    assert a.ids.equal(b.ids)
    assert int(b.positions.max()) == b.next_position - 1
    assert int(a.positions.max()) > a.next_position
    # Under both rules, rollout and training agree.
    for model in (installed, original):
        context = TrainingContext(model, LocalRollout(model), seed=1)
        samples = context.generate([slow_video, *mixed_prompts("video")], 2, Sampling(max_tokens=6))
        logp = context.logp(samples, "policy")
        for sample, rows in zip(samples, logp, strict=True):
            for reply, row in zip(sample.replies, rows, strict=True):
                torch.testing.assert_close(
                    torch.tensor(row), torch.tensor(reply.columns["behaviour_logp"]), atol=2e-5, rtol=0
                )
    reply = installed.encode_reply("the red one", "data")
    rows = [
        TrainingContext(m, LocalRollout(m), seed=1).logp([replace(slow_video, replies=(reply,))], "policy")
        for m in (installed, original)
    ]
    assert max(abs(x - y) for x, y in zip(rows[0][0][0], rows[1][0][0], strict=True)) > 1e-4


def test_positions_original_is_refused_without_a_published_rule(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_audio"])
    assert model.recipe.positions == "plain"
    with pytest.raises(ConfigError, match=r"model\.positions=original"):
        load(folders["qwen2_audio"], positions="original")


def test_an_unknown_installed_rule_is_refused_at_the_first_video(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_5_vl"])

    def old(input_ids: Tensor, mm_token_type_ids: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(3, *input_ids.shape, dtype=torch.long), torch.zeros(1)

    old_model = SimpleNamespace(config=model.module.config, model=SimpleNamespace(get_rope_index=old))
    positions = PositionIds(old_model)
    assert positions.name == "installed unknown"
    ids = torch.zeros(1, 8, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"model\.positions=original"):
        positions(ids, {"mm_token_type_ids": torch.full((8,), 2)}, video(2, 4, 4))


def test_times_of_frames_reach_the_prompt(folders: dict[str, Path]) -> None:
    model = load(folders["qwen3_vl"])
    one = Sample("a", (Part("video", random_video(64, 64, 0, frames=4, fps=0.5)), Part("text", "when")))
    text = model.tokenizer.decode(model.prompt(one).ids)
    assert "<1.0 seconds>" in text
    assert "<5.0 seconds>" in text


def test_doubling_the_frame_rate_halves_the_time_steps(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_5_vl"])
    steps = []
    for fps in (0.25, 0.5):
        prompt = model.prompt(Sample("a", (Part("video", random_video(56, 56, 0, 6, fps)), Part("text", "when"))))
        time = prompt.positions[0][prompt.aligned["mm_token_type_ids"] == 2].unique()
        steps.append(int(time[1] - time[0]))
    assert steps[0] == 2 * steps[1]


def test_unsupported_media_are_named(folders: dict[str, Path]) -> None:
    model = load(folders["qwen2_audio"])
    with pytest.raises(DataError, match="takes text, audio, but the prompt has image"):
        model.prompt(mixed_prompts()[0])
    long = Sample("long", (random_medium("audio", 150, 1), Part("text", "what")))
    with pytest.raises(DataError, match="wanted at most 1 s of sound"):
        model.prompt(long)
