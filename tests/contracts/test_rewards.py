"""What holds for every reward: a finite number or None for any reply, the same each time, nothing changed."""

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
)
ASKED = (Part("text", "what is it?"),)


def rewards() -> dict[str, Reward]:
    """Every public function of a module of mmpost.rewards that takes a sample and a reply first, and asks no more."""
    found: dict[str, Reward] = {}
    for info in pkgutil.iter_modules(mmpost.rewards.__path__):
        module = importlib.import_module(f"mmpost.rewards.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = inspect.signature(function)
            asks = [p.name for p in signature.parameters.values() if p.default is p.empty]
            scores = asks == ["sample", "reply"] and signature.return_annotation in ("float", "float | None")
            if scores and function.__module__ == module.__name__ and not name.startswith("_"):
                found[f"{info.name}.{name}"] = function
    return found


REWARDS = rewards()
BOX = importlib.import_module("mmpost.rewards.box")
SAMPLES: dict[str, Sequence[Sample]] = {
    "boxes": Scenes("val", QUESTION_TYPES, n=24, none=0.3),
    "text": [Sample("t", ASKED, truth="A  Cat"), Sample("u", ASKED, truth="<answer>7</answer>")],
    "number": [Sample("n", ASKED, truth=7), Sample("f", ASKED, truth=0.5)],
    "calls": [Sample("c", ASKED, truth="change_size(1, 'small')")],
    "nothing": [Sample("0", ASKED)],
    "spans": clips.Clips("val", clips.QUESTION_TYPES[::-1], n=16),
}
"""Samples by what their truth is."""


def replies(sample: Sample) -> list[Reply]:
    """The label where there is one, plainly and after a thought, and texts that are no answers."""
    if isinstance(sample.truth, dict) and "spans" in sample.truth:
        late = {**sample.truth, "spans": [[s + 1, e + 1] for s, e in sample.truth["spans"]]}
        labels = [temporal.answer_text(t, thought=so) for t in (sample.truth, late) for so in (None, "so")]
        labels += ["<think>so</think><answer>10</answer>"]
    elif isinstance(sample.truth, dict):
        labels = [answer_text(sample.truth), answer_text(sample.truth, thought="so")]
    else:
        labels = [str(sample.truth), f"<think>so</think><answer>{sample.truth}</answer>"]
    return [Reply((Part("text", text),)) for text in (*TEXTS, *labels)]


def kinds_scored(function: Reward) -> list[str]:
    """The kinds of truth that a reward can compare with: it refuses the others on some reply."""
    found = []
    for kind, samples in SAMPLES.items():
        try:
            for reply in replies(samples[0]):
                function(samples[0], reply)
        except (DataError, TypeError, LookupError):
            continue
        found.append(kind)
    return found


def test_the_rewards_that_tasks_list_are_all_found() -> None:
    listed = {f for info in pkgutil.iter_modules(mmpost.rewards.__path__) for f in tables(info.name)}
    assert listed <= set(REWARDS.values())
    assert {name.partition(".")[0] for name in REWARDS} == {
        i.name for i in pkgutil.iter_modules(mmpost.rewards.__path__) if not i.name.startswith("_")
    }


def tables(module: str) -> list[Reward]:
    found = importlib.import_module(f"mmpost.rewards.{module}")
    return [f for table in ("REWARDS", "detection") for f in getattr(found, table, {}).values()]


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_any_reply_scores_the_same_finite_number_twice(name: str) -> None:
    kinds = kinds_scored(REWARDS[name])
    values = []
    for sample in (sample for kind in kinds for sample in SAMPLES[kind]):
        before = deepcopy(sample.truth)
        for reply in replies(sample):
            value = REWARDS[name](sample, reply)
            assert value is None or math.isfinite(value)
            assert REWARDS[name](sample, reply) == value
            values.append(value)
        assert sample.truth == before
    assert len({value for value in values if value is not None}) > 1, f"{name} tells no reply from another"


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_the_label_earns_all_but_the_thought(kind: str) -> None:
    for sample in Scenes("train", (kind,), n=20, none=0.3):
        sample = Sample(sample.uid, sample.prompt, truth=json.loads(json.dumps(sample.truth)))
        for thought, most in ((None, 6), ("so", 7)):
            reply = Reply((Part("text", answer_text(sample.truth, thought=thought)),))
            assert sum(f(sample, reply) or 0 for f in BOX.REWARDS.values()) == most
