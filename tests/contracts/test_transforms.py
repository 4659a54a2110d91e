"""What every transform owes the feed. Transforms are found by listing the package: a new one is tested by existing."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import mmpost.metrics
import mmpost.selection
import mmpost.transforms
from mmpost.config.settings import Settings
from mmpost.types import Gold, Sample, Sampling
from tests.transforms.fakes import FakeContext, group

FIELDS: Mapping[str, list[dict[str, Any]]] = {
    "Crop": [{"modality": "image", "length": 4}],
    "Generate": [{"n": 2, "sampling": Sampling(max_tokens=4)}],
    "Score": [{"rewards": {"right": lambda sample, reply: float(len(reply.text))}}],
    "ReplyFromTruth": [{"text": lambda sample: str(sample.truth)}],
    "ParseRate": [{"gold": Gold(lambda sample: str(sample.truth), is_parseable=str.isdigit)}],
    "InjectTruth": [{"text": lambda sample: str(sample.truth)}],
    "OverlongPenalty": [{"max_tokens": 4, "buffer": 3}],
    "LengthReward": [{"score": "right", "after": 0}],
    "ClipReward": [{"low": 0.0, "high": 0.5}],
    "KLReward": [{"beta": 0.1}, {"beta": 0.1, "per_token": True}],
    "GroupAdvantage": [
        *({"scale": scale} for scale in ("group", "batch", "none")),
        {"components": {"right": 1.0, "form": 0.5}},
        {"gt_in_group_stats": "only_if_active"},
    ],
    "LeaveOneOut": [{}, {"normalize": True}],
    "GlobalWhiten": [{}, {"baseline": True, "variance": "sample"}, {"penalty": True, "gamma": 0.9}],
    "WritePairs": [{"chosen": lambda sample: "a", "rejected": lambda sample: sample.truth}],
    "BuildPairs": [
        {"score": "right"},
        {"score": "right", "against": "random", "control": "matched", "tolerance": 1.0},
        {"score": "right", "against": "all", "control": "divide", "margin": 0.6},
    ],
    "DropZeroVariance": [{}, {"score": "right"}, {"bounds": (0.1, 0.9)}],
    "InstanceFilter": [{"right": 0.5}, {"score": "form"}],
    "VarianceSelection": [{"right": 0.5}, {"discrete": ["form"], "continuous": ["right"]}],
}
"""Settings to test with; a transform with required fields needs a line here."""


def classes() -> Iterator[type[Any]]:
    packages = (mmpost.transforms, mmpost.metrics, mmpost.selection)
    for info in [i for p in packages for i in pkgutil.iter_modules(p.__path__, f"{p.__name__}.")]:
        for name, found in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            public = found.__module__ == info.name and not name.startswith("_")
            calls = any("__call__" in vars(c) for c in found.__mro__[:-1])
            if public and issubclass(found, Settings) and calls:
                yield found


TRANSFORMS = [
    pytest.param(cls, fields, id=f"{cls.__name__}-{i}")
    for cls in classes()
    for i, fields in enumerate(FIELDS.get(cls.__name__, [{}]))
]


def samples() -> list[Sample]:
    """Ragged, flat and unscorable groups, with and without truth, and every column that a transform may read."""
    made = []
    for uid, rewards, truth in (
        ("mixed", [0.0, 1.0, 0.3], 2.0),
        ("flat", [1.0, 1.0], None),
        ("solved", [2.0, 2.0], 2.0),
        ("unscorable", [float("nan"), 1.0], None),
        ("empty", [], None),
    ):
        n = len(rewards) + (truth is not None)
        lengths = [1 + 2 * i for i in range(n)]
        per_token = [[-1.0 - 0.1 * t for t in range(k)] for k in lengths]
        made.append(
            group(
                rewards,
                truth,
                lengths,
                uid,
                scores=[{"right": 0.5 * i, "form": 1.0} for i in range(n)],
                behaviour_logp=per_token,
                old_logp=per_token,
                ref_logp=[[x - 0.2 for x in row] for row in per_token],
                kl_penalty=[[-0.1] * k for k in lengths],
                temperature=[0.9] * n,
                truncated=[0.0] * n,
                label=[1.0 - 2.0 * (i % 2) for i in range(n)],
            )
        )
    return made


REFUSE_EMPTY = {"EncodeReplies", "EncodePairs"}
"""Transforms that raise for a sample without replies."""


def given_to(cls: type[Any]) -> list[Sample]:
    """What a transform is tested with."""
    return [sample for sample in samples() if sample.replies or cls.__name__ not in REFUSE_EMPTY]


def test_every_transform_of_the_package_is_here():
    assert {"GroupAdvantage", "InjectTruth", "DropZeroVariance", "KLReward"} <= {cls.__name__ for cls in classes()}


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_inputs_are_not_changed(cls, fields):
    given = given_to(cls)
    before = copy.deepcopy(given)
    cls(**fields)(given, FakeContext())
    assert repr(given) == repr(before)


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_uids_survive_in_order(cls, fields):
    given = [s.uid for s in given_to(cls)]
    found = [s.uid for s in cls(**fields)(given_to(cls), FakeContext())]
    assert found == [uid for uid in given if uid in found]


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_nothing_in_nothing_out(cls, fields):
    assert cls(**fields)([], FakeContext()) == []


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_columns_written_are_columns_named(cls, fields):
    """And each reply of the result has all that an objective could want of them: numbers, finite unless a reward."""
    transform, given = cls(**fields), given_to(cls)
    # Replies may be chosen from and put in another order; their texts differ within a sample.
    old = {s.uid: {r.text: r.columns for r in s.replies} for s in given}
    for sample in transform(given, FakeContext()):
        for reply in sample.replies:
            before = old[sample.uid].get(reply.text, {})
            written = {k for k, v in reply.columns.items() if repr(before.get(k)) != repr(v)}
            assert written <= set(transform.makes)
            for name in written - {"reward"}:
                value = reply.columns[name]
                row = [value] if isinstance(value, int | float) else value
                assert all(abs(x) < 1e6 for x in row), name
                assert isinstance(value, int | float) or len(row) == len(reply.token_ids or ())


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_every_rank_gathers_equally_often(cls, fields):
    """A rank without samples must still meet the others in each exchange."""

    class Counting(FakeContext):
        calls = 0

        def gather(self, values: Any) -> list[float]:
            self.calls += 1
            return super().gather(values)

    busy, empty = Counting(), Counting()
    cls(**fields)(given_to(cls), busy)
    cls(**fields)([], empty)
    assert busy.calls == empty.calls


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_it_is_frozen_and_documented(cls, fields):
    made = cls(**fields)
    assert cls.__doc__
    for name, field in cls.model_fields.items():
        assert field.description, name
        with pytest.raises(ValueError, match="frozen"):
            setattr(made, name, getattr(made, name))
