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


def make_task(**fields: Any) -> ReasonRFT:
    return ReasonRFT.model_validate({**TINY, **fields})


def stages_by_name(**fields: Any) -> dict[str, Stage]:
    return {stage.name: stage for stage in make_task(**fields).stages()}


def stage_uids(stage: Stage) -> set[str]:
    return {sample.uid for sample in stage.source}


def test_sft_fraction_selects_the_published_methods() -> None:
    for fraction in (0.0, 0.25, 1.0):
        # Both stages exist at any fraction, so `stages.NAME` settings are always valid.
        by_name = stages_by_name(sft_fraction=fraction)
        assert [(name, stage.fraction) for name, stage in by_name.items()] == [("sft", fraction), ("rl", 1 - fraction)]


def test_sft_uses_the_cot_samples_and_rl_the_rest() -> None:
    by_name = stages_by_name(sft_fraction=0.5)
    assert len(stage_uids(by_name["sft"])) == 6
    assert len(stage_uids(by_name["rl"])) == 9
    assert not stage_uids(by_name["sft"]) & stage_uids(by_name["rl"])
    assert len(stage_uids(stages_by_name(sft_fraction=0.5, family="structure")["rl"])) == 15, "as published, on all"
    assert len(stage_uids(stages_by_name(sft_fraction=0.5, reuse=True)["rl"])) == 15
    assert len(stage_uids(stages_by_name(sft_fraction=0)["rl"])) == 15
    assert len(stage_uids(stages_by_name(sft_fraction=1, answer_only=True)["sft"])) == 15


@pytest.mark.parametrize(
    ("family", "reward"), [(family, reward) for family, named in ACCURACY.items() for reward in named]
)
def test_a_correct_reply_earns_two_and_a_well_formed_one_earns_one(family: str, reward: str) -> None:
    for layout in (TINY["layout"], ReasonRFT.model_fields["layout"].default):
        built = make_task(sft_fraction=0, family=family, reward=reward, layout=layout)
        _, stage = built.stages()
        (score,) = (t for t in stage.transforms if isinstance(t, Score))
        (gold,) = built.gold()
        for sample in stage.source:
            assert total_reward(score, sample, str(gold.text(sample))) == gold.reward == 2
            assert total_reward(score, sample, "<think>.</think><answer></answer>") == 1
            assert total_reward(score, sample, "<think></think><answer></answer>") == 0
            assert total_reward(score, sample, "nothing") == 0


def total_reward(score: Score, sample: Sample, text: str) -> float:
    values = {name: f(sample, Reply((Part("text", text),))) for name, f in score.rewards.items()}
    return sum(score.weights.get(name, 1.0) * (value or 0.0) for name, value in values.items())


def test_released_rewards_have_the_published_values() -> None:
    truth = "change_color(1, 'red'), change_size(2, 'small')"
    near = Reply((Part("text", "<answer>change_color(1, 'red'), change_size(2, 'large')</answer>"),))
    scored = [f(Sample("s", (), truth=truth), near) for f in ACCURACY["transformation"].values()]
    assert scored == pytest.approx([0.75, 0.5, 0.375])
    near = Reply((Part("text", "<answer>104</answer>"),))
    assert [f(Sample("s", (), truth="100"), near) for f in ACCURACY["structure"].values()] == [1, 0]
    with pytest.raises(ValidationError, match="penalty goes with family=transformation"):
        make_task(family="structure", reward="penalty")


def test_the_targets_of_the_supervised_stage() -> None:
    built = make_task()
    sample = next(iter(stages_by_name(sft_fraction=1)["sft"].source))
    assert built.thoughtful(sample) == f"<think>{sample.meta['cot']}</think><answer>{sample.truth}</answer>"
    assert built.bare(sample) == f"<answer>{sample.truth}</answer>"
    published = ReasonRFT()
    assert published.bare(sample) == f"<answer>\n{sample.truth}\n</answer>"
    with pytest.raises(ValidationError, match="layout"):
        make_task(layout="{cot} {answer}")


def test_shifted_benches_are_for_the_test_split() -> None:
    assert [b.name for b in make_task().benches("test")] == ["id", "shift", "known"]
    assert [b.name for b in make_task().benches("val")] == ["id", "known"]
    assert [b.name for b in make_task(family="transformation").benches("test")] == ["id", "left", "right", "known"]
    bench_uids = {b.name: [s.uid for s in b.source] for b in make_task(family="structure").benches("test")}
    assert bench_uids["id"] != bench_uids["shift"]


def test_user_files(tmp_path: Path) -> None:
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")

    def write_rows(name: str, **fields: Any) -> str:
        rows = [{"id": f"{name}-{i}", "image": "a.png", "problem": "How many?", **fields} for i in range(8)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        return str(tmp_path / f"{name}.json")

    data = DataSettings(train=write_rows("rl", solution="3"), test=write_rows("test", solution="4"))
    by_name = stages_by_name(data=data, sft_fraction=0.5)
    assert (len(stage_uids(by_name["sft"])), len(stage_uids(by_name["rl"]))) == (6, 2)
    assert not stage_uids(by_name["sft"]) & stage_uids(by_name["rl"])
    by_name = stages_by_name(data=data, sft_fraction=0.5, cot_data=write_rows("cot", answer="2", cot="one and one"))
    assert stage_uids(by_name["sft"]) == {f"cot-{i}" for i in range(6)}
    assert len(stage_uids(by_name["rl"])) == 8
    sample = next(iter(by_name["sft"].source))
    assert make_task().thoughtful(sample) == "<think>one and one</think><answer>2</answer>"
    assert make_task().thoughtful(next(iter(by_name["rl"].source))) is None
    benches = make_task(data=data, shifted={"super": write_rows("super", solution="5")}).benches("test")
    assert [(b.name, len(b.source)) for b in benches] == [("id", 8), ("super", 8)]
