"""The label of ViSurf: bare or with a thought, and what the format reward pays for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from mmpost.cli import main
from mmpost.data.worlds.digits.scenes import Scenes, listing_thought
from mmpost.errors import DataError
from mmpost.rewards.box import REWARDS, detection, detection_summary
from mmpost.tasks.visurf import ViSurf, summary_by_type
from mmpost.types import Part, Reply, Sample

SCENE = Scenes(n=1)[0]


def rewards(text: str) -> dict[str, float]:
    reply = Reply((Part("text", text, "assistant"),))
    return {name: float(reward(SCENE, reply) or 0) for name, reward in REWARDS.items()}


def test_the_bare_label_earns_everything_but_the_format_of_the_thought() -> None:
    label = ViSurf().truth(SCENE)
    assert label.startswith("<answer>[{")
    assert rewards(label) == {"think_format": 0, "answer_format": 2, "box_accuracy": 3, "non_repeat": 1}


def test_a_rollout_that_copies_the_label_earns_less_than_one_that_thinks() -> None:
    """With an empty thought paid, a rollout that copies the label would have the maximum without thinking."""
    label = ViSurf().truth(SCENE)
    earned = [sum(rewards(thought + label).values()) for thought in ("", "<think></think>", "<think>left</think>")]
    assert earned == [6, 6, 7]


def test_a_label_with_a_thought_has_that_of_the_row() -> None:
    task = ViSurf(label="thought", thought="look")
    assert task.truth(SCENE).startswith("<think>look</think><answer>[{")
    own = Sample("a.jsonl:3", (), truth=SCENE.truth, meta={"cot": "the left one"})
    assert task.truth(own).startswith("<think>the left one</think><answer>[{")
    assert ViSurf(label="empty").truth(SCENE).startswith("<think></think><answer>[{")
    listed = ViSurf(label="thought", listing=True, thought="look").truth(SCENE)
    assert listed.startswith(f"<think>{listing_thought(SCENE)}</think><answer>[{{")
    assert ViSurf(label="thought", listing=True).truth(own).startswith("<think>the left one</think>")
    with pytest.raises(
        DataError, match=r"^sample 'a\.jsonl:3': wanted a thought for label=thought, found none in the column"
    ):
        ViSurf(label="thought").truth(Sample("a.jsonl:3", (), truth=SCENE.truth, meta={}))


@pytest.mark.parametrize(
    ("settings", "reward"),
    [
        ({}, 6),
        ({"label": "thought", "thought": "look"}, 6),
        ({"label": "thought", "thought": "look", "think_for_truth": True}, 7),
    ],
)
def test_the_declared_reward_of_the_label(settings: dict[str, object], reward: float) -> None:
    task = ViSurf.model_validate(settings)
    gold, _ = task.gold()
    unpaid = () if task.think_for_truth else ("think_format",)
    assert callable(gold.reward)
    earned = sum(v for k, v in rewards(str(gold.text(SCENE))).items() if k not in unpaid)
    assert earned == gold.reward(SCENE) == reward


def test_a_bare_label_has_no_thought_to_reward() -> None:
    with pytest.raises(ValidationError, match="set label=thought"):
        ViSurf(think_for_truth=True)


def test_question_types_have_a_metric_each_if_there_are_several() -> None:
    source = Scenes("test", ("single", "last from the top"), n=4, none=0.0)
    texts = [ViSurf().truth(source[i]) if i % 2 == 0 else "<answer>[]</answer>" for i in range(4)]
    scored = []
    for sample, text in zip(source, texts, strict=True):
        reply = Reply((Part("text", text),))
        values = {k: v for k, f in detection.items() if (v := f(sample, reply)) is not None}
        scored.append(replace(sample, replies=(replace(reply, scores=values),)))
    found = summary_by_type(scored)
    assert (found["f1_single"], found["f1_last_from_the_top"]) == (100, 0)
    assert not [name for name in summary_by_type(scored[::2]) if name.startswith("f1_")]


def test_thinks_is_the_share_of_replies_with_a_thought() -> None:
    texts = ("<think>left</think><answer>[]</answer>", "<think> </think><answer>[]</answer>", "<answer>[]</answer>", "")
    scored = [
        Reply((Part("text", text),), scores={k: v for k, f in detection.items() if (v := f(SCENE, reply)) is not None})
        for text in texts
        for reply in [Reply((Part("text", text),))]
    ]
    summary = detection_summary([Sample("a", (), tuple(scored), SCENE.truth)])
    assert summary["thinks"] == summary["think_format"] == 25


def test_a_row_without_thought_is_named(tiny_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SCENE.prompt[0].value.open().save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "the 3", "solution": [{"bbox_2d": [1, 2, 30, 40], "point_2d": [9, 9]}]}
    rows = [{**row, "cot": "the left one"}, row]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = [f"data.train={tmp_path / 'a.jsonl'}", "task.prompt=find {question}", "task.label=thought"]
    small = ["steps=1", "task.prompts_per_step=2", "task.num_generations=2", "task.sampling.max_tokens=2"]
    quiet = [f"model={tiny_folder}", f"out={tmp_path / 'run'}", "log.tensorboard=false"]
    assert main(["train", "task=visurf", *data, *small, *quiet]) == 1
    assert "a.jsonl:2: wanted a thought for label=thought" in capsys.readouterr().err
