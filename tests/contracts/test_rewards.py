"""The contract of rewards: deterministic, finite or None for any reply, without side effects."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Sequence
from copy import deepcopy

import pytest

import mmpost.rewards
from mmpost.data.formats import temporal
from mmpost.data.worlds import clips
from mmpost.data.worlds.digits.scenes import QUESTION_TYPES, Scenes, answer_text
from mmpost.errors import DataError
from mmpost.types import Part, Reply, Reward, Sample

TEXTS = (
    "",
    "<answer>",
    "<answer>[]</answer>",
    "<think>.</think><answer>[{}]</answer>",
    "\x00 7",
    "<answer>[1e999]</answer>",
    "so. so. so. no",
    "First one, then two.",
    "<summary></summary><caption></caption><think></think><answer></answer>",
    "<summary></summary><caption></caption><think>.</think><answer></answer>",
)
PROMPT = (Part("text", "what is it?"),)
OTSL = "<fcel>a<lcel><nl><fcel>1<fcel>2<nl>"


def rewards() -> dict[str, Reward]:
    """Every public function in mmpost.rewards whose only required arguments are a sample and a reply."""
    functions: dict[str, Reward] = {}
    for info in pkgutil.iter_modules(mmpost.rewards.__path__):
        module = importlib.import_module(f"mmpost.rewards.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = inspect.signature(function)
            required = [p.name for p in signature.parameters.values() if p.default is p.empty]
            is_reward = required == ["sample", "reply"] and signature.return_annotation in ("float", "float | None")
            if is_reward and function.__module__ == module.__name__ and not name.startswith("_"):
                functions[f"{info.name}.{name}"] = function
    return functions


REWARDS = rewards()
BOX = importlib.import_module("mmpost.rewards.box")
SAMPLES: dict[str, Sequence[Sample]] = {
    "boxes": Scenes("val", QUESTION_TYPES, n=24, none=0.3),
    "text": [Sample("t", PROMPT, truth="A  Cat"), Sample("u", PROMPT, truth="<answer>7</answer>")],
    "number": [Sample("n", PROMPT, truth=7), Sample("f", PROMPT, truth=0.5)],
    "calls": [Sample("c", PROMPT, truth="change_size(1, 'small')")],
    "nothing": [Sample("0", PROMPT)],
    "options": [Sample("o", PROMPT, (), "B", {"options": ["a dog", "a cat"]})],
    "lettered options": [Sample("l", PROMPT, (), "(B)", {"options": ["a dog", "a cat"]})],
    "choices": [Sample("c", PROMPT, (), "B", {"choices": ["A", "B"], "answer_type": "text", "precision": None})],
    "accepted texts": [Sample("a", PROMPT, (), ["7"], {"formula": False})],
    "answers of people": [Sample("p", PROMPT, (), ["First one, then two."] * 10)],
    "answers about tables": [Sample("t", PROMPT, (), "7", {"part": "vwtq"})],
    "one box": [
        Sample("b", PROMPT, truth={"boxes": [[1, 2, 300, 400]], "points": [None], "frame": [1000, 1000]}),
    ],
    "options with letters": [
        Sample("o", PROMPT, (), "B. a cat", {"task": "multi-choice", "options": ["A. a dog", "B. a cat"]}),
    ],
    "objects": [
        Sample("o", PROMPT, (), {"include": [{"class": "7", "count": 1}], "exclude": []}, {"min_score": 0.3}),
    ],
    "yes or no": [Sample("y", PROMPT, truth="no")],
    "tables": [
        Sample("t", PROMPT, truth="<table><tr><td>a</td><td>b</td></tr></table>"),
        Sample("o", PROMPT, truth=OTSL),
        Sample("d", PROMPT, truth="<html><body><table><tr><td>a</td></tr></table></body></html>"),
    ],
    "spans": clips.Clips("val", clips.QUESTION_TYPES[::-1], n=16),
}
"""Samples by type of truth."""


def replies(sample: Sample) -> list[Reply]:
    """The label, if any, with and without a thought, and malformed answers."""
    if isinstance(sample.truth, dict) and "spans" in sample.truth:
        late = {**sample.truth, "spans": [[s + 1, e + 1] for s, e in sample.truth["spans"]]}
        labels = [temporal.answer_text(t, thought=thought) for t in (sample.truth, late) for thought in (None, "so")]
        labels += ["<think>so</think><answer>10</answer>", json.dumps(sample.truth["spans"])]
        labels += [f"{start} - {end}" for start, end in sample.truth["spans"]]
    elif isinstance(sample.truth, dict) and "include" in sample.truth:
        labels = [json.dumps({"7": [[0, 0, 9, 9, score]]}) for score in (0.2, 0.9)]
    elif isinstance(sample.truth, dict):
        labels = [answer_text(sample.truth), answer_text(sample.truth, thought="so"), *map(str, sample.truth["boxes"])]
    else:
        labels = [str(sample.truth), f"<think>so</think><answer>{sample.truth}</answer>"]
    return [Reply((Part("text", text),)) for text in (*TEXTS, *labels)]


def supported_truth_types(function: Reward) -> list[str]:
    """The types of truth that a reward supports; for all others it raises on some reply."""
    supported = []
    for truth_type, samples in SAMPLES.items():
        try:
            for reply in replies(samples[0]):
                function(samples[0], reply)
        except (DataError, TypeError, LookupError):
            continue
        supported.append(truth_type)
    return supported


def test_every_reward_listed_by_a_task_is_covered() -> None:
    listed = {f for info in pkgutil.iter_modules(mmpost.rewards.__path__) for f in listed_rewards(info.name)}
    assert listed <= set(REWARDS.values())
    assert {name.partition(".")[0] for name in REWARDS} == {
        i.name for i in pkgutil.iter_modules(mmpost.rewards.__path__) if not i.name.startswith("_")
    }


def listed_rewards(module: str) -> list[Reward]:
    reward_module = importlib.import_module(f"mmpost.rewards.{module}")
    return [f for table in ("REWARDS", "detection") for f in getattr(reward_module, table, {}).values()]


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_any_reply_scores_the_same_finite_number_twice(name: str) -> None:
    truth_types = supported_truth_types(REWARDS[name])
    values = []
    for sample in (sample for truth_type in truth_types for sample in SAMPLES[truth_type]):
        before = deepcopy(sample.truth)
        for reply in replies(sample):
            value = REWARDS[name](sample, reply)
            assert value is None or math.isfinite(value)
            assert REWARDS[name](sample, reply) == value
            values.append(value)
        assert sample.truth == before
    assert len({value for value in values if value is not None}) > 1, f"{name} scores all replies the same"


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_the_label_earns_the_full_reward_except_for_the_thought(question_type: str) -> None:
    for sample in Scenes("train", (question_type,), n=20, none=0.3):
        sample = Sample(sample.uid, sample.prompt, truth=json.loads(json.dumps(sample.truth)))
        for thought, max_score in ((None, 6), ("so", 7)):
            reply = Reply((Part("text", answer_text(sample.truth, thought=thought)),))
            assert sum(f(sample, reply) or 0 for f in BOX.REWARDS.values()) == max_score
