"""What holds for every reward: a finite number or None for any reply, the same each time, nothing changed."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from copy import deepcopy

import pytest

import mmpost.rewards
from mmpost.data.digits import KINDS, Scenes, answer_text
from mmpost.types import Part, Reply, Reward, Sample

TEXTS = (
    "",
    "<answer>",
    "<answer>[]</answer>",
    "<think>.</think><answer>[{}]</answer>",
    "\x00 7",
    "<answer>[1e999]</answer>",
)


def rewards() -> dict[str, Reward]:
    """Every reward that a module of mmpost.rewards lists in `REWARDS` or `detection`."""
    found: dict[str, Reward] = {}
    for info in pkgutil.iter_modules(mmpost.rewards.__path__):
        module = importlib.import_module(f"mmpost.rewards.{info.name}")
        for table in ("REWARDS", "detection"):
            found.update({f"{info.name}.{name}": f for name, f in getattr(module, table, {}).items()})
    return found


BOX = {name: f for name, f in rewards().items() if name.startswith("box.")}


@pytest.mark.parametrize("name", sorted(BOX))
def test_any_reply_scores_the_same_finite_number_twice(name: str) -> None:
    for sample in Scenes("val", KINDS, n=24, none=0.3):
        before = deepcopy(sample.truth)
        for text in (*TEXTS, answer_text(sample.truth), answer_text(sample.truth, thought="so")):
            reply = Reply((Part("text", text),))
            value = BOX[name](sample, reply)
            assert value is None or math.isfinite(value)
            assert BOX[name](sample, reply) == value
        assert sample.truth == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_earns_all_but_the_thought(kind: str) -> None:
    for sample in Scenes("train", (kind,), n=20, none=0.3):
        sample = Sample(sample.uid, sample.prompt, truth=json.loads(json.dumps(sample.truth)))
        for thought, most in ((None, 6), ("so", 7)):
            reply = Reply((Part("text", answer_text(sample.truth, thought=thought)),))
            assert sum(f(sample, reply) or 0 for n, f in BOX.items() if n.split(".")[1] in ROLLOUT) == most


ROLLOUT = importlib.import_module("mmpost.rewards.box").REWARDS
