"""Reason-RFT's stages, rewards and sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from mmpost.config.settings import DataSettings
from mmpost.tasks.reason_rft import ACCURACY, ReasonRFT
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Sample, Stage

TINY = {"layout": "<think>{cot}</think><answer>{answer}</answer>", "cot": 6, "problems": 9, "bench_problems": 4}


def task(**fields: Any) -> ReasonRFT:
    return ReasonRFT.model_validate({**TINY, **fields})


def stages(**fields: Any) -> dict[str, Stage]:
    return {stage.name: stage for stage in task(**fields).stages()}


def uids(stage: Stage) -> set[str]:
    return {sample.uid for sample in stage.source}


def test_the_share_of_supervision_makes_the_four_methods() -> None:
    for share in (0.0, 0.25, 1.0):
        # Both are there with any share, so that settings of a stage are never refused.
        both = stages(sft_fraction=share)
        assert [(name, stage.fraction) for name, stage in both.items()] == [("sft", share), ("rl", 1 - share)]


def test_thoughts_are_taught_on_few_samples_and_the_rest_is_reinforced() -> None:
    both = stages(sft_fraction=0.5)
    assert len(uids(both["sft"])) == 6
    assert len(uids(both["rl"])) == 9
    assert not uids(both["sft"]) & uids(both["rl"])
    assert len(uids(stages(sft_fraction=0.5, family="structure")["rl"])) == 15, "as published, on all"
    assert len(uids(stages(sft_fraction=0.5, reuse=True)["rl"])) == 15
    assert len(uids(stages(sft_fraction=0)["rl"])) == 15
    assert len(uids(stages(sft_fraction=1, answer_only=True)["sft"])) == 15


@pytest.mark.parametrize(
    ("family", "reward"), [(family, reward) for family, named in ACCURACY.items() for reward in named]
)
def test_a_right_reply_earns_two_and_a_wrong_one_for_its_form(family: str, reward: str) -> None:
    for layout in (TINY["layout"], ReasonRFT.model_fields["layout"].default):
        made = task(sft_fraction=0, family=family, reward=reward, layout=layout)
        _, stage = made.stages()
        (score,) = (t for t in stage.transforms if isinstance(t, Score))
        (gold,) = made.gold()
        for sample in stage.source:
            assert paid(score, sample, str(gold.text(sample))) == gold.reward == 2
            assert paid(score, sample, "<think></think><answer></answer>") == 1
            assert paid(score, sample, "nothing") == 0


def paid(score: Score, sample: Sample, text: str) -> float:
    values = {name: f(sample, Reply((Part("text", text),))) for name, f in score.rewards.items()}
    return sum(score.weights.get(name, 1.0) * (value or 0.0) for name, value in values.items())


def test_released_rewards_are_exact() -> None:
    truth = "change_color(1, 'red'), change_size(2, 'small')"
    near = Reply((Part("text", "<answer>change_color(1, 'red'), change_size(2, 'large')</answer>"),))
    scored = [f(Sample("s", (), truth=truth), near) for f in ACCURACY["transformation"].values()]
    assert scored == pytest.approx([0.75, 0.5, 0.375])
    near = Reply((Part("text", "<answer>104</answer>"),))
    assert [f(Sample("s", (), truth="100"), near) for f in ACCURACY["structure"].values()] == [1, 0]
    with pytest.raises(ValidationError, match="penalty goes with family=transformation"):
        task(family="structure", reward="penalty")


def test_what_the_supervised_stage_learns() -> None:
    made = task()
    sample = next(iter(stages(sft_fraction=1)["sft"].source))
    assert made.thoughtful(sample) == f"<think>{sample.meta['cot']}</think><answer>{sample.truth}</answer>"
    assert made.bare(sample) == f"<answer>{sample.truth}</answer>"
    published = ReasonRFT()
    assert published.bare(sample) == f"<answer>\n{sample.truth}\n</answer>"
    with pytest.raises(ValidationError, match="layout"):
        task(layout="{cot} {answer}")


def test_shifted_benches_are_for_the_test_split() -> None:
    assert [b.name for b in task().benches("test")] == ["id", "shift", "known"]
    assert [b.name for b in task().benches("val")] == ["id", "known"]
    assert [b.name for b in task(family="transformation").benches("test")] == ["id", "left", "right", "known"]
    sides = {b.name: [s.uid for s in b.source] for b in task(family="structure").benches("test")}
    assert sides["id"] != sides["shift"]


def test_own_files(tmp_path: Path) -> None:
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")

    def file(name: str, **more: Any) -> str:
        rows = [{"id": f"{name}-{i}", "image": "a.png", "problem": "How many?", **more} for i in range(8)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        return str(tmp_path / f"{name}.json")

    data = DataSettings(train=file("rl", solution="3"), test=file("test", solution="4"))
    both = stages(data=data, sft_fraction=0.5)
    assert (len(uids(both["sft"])), len(uids(both["rl"]))) == (6, 2)
    assert not uids(both["sft"]) & uids(both["rl"])
    both = stages(data=data, sft_fraction=0.5, cot_data=file("cot", answer="2", cot="one and one"))
    assert uids(both["sft"]) == {f"cot-{i}" for i in range(6)}
    assert len(uids(both["rl"])) == 8
    sample = next(iter(both["sft"].source))
    assert task().thoughtful(sample) == "<think>one and one</think><answer>2</answer>"
    assert task().thoughtful(next(iter(both["rl"].source))) is None
    benches = task(data=data, shifted={"super": file("super", solution="5")}).benches("test")
    assert [(b.name, len(b.source)) for b in benches] == [("id", 8), ("super", 8)]
