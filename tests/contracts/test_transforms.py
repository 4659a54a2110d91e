"""The contract of transforms, for every transform in the package."""

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

SETTINGS: Mapping[str, list[dict[str, Any]]] = {
    "Crop": [{"modality": "image", "length": 4}],
    "Generate": [{"n": 2, "sampling": Sampling(max_tokens=4)}],
    "KlFromStart": [{"max_tokens": 4}],
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
    "FilterReplies": [{"legal": lambda sample, reply: len(reply.text) % 2, "refill": True}],
    "FlatSelection": [{"column": "consistency"}],
    "VarianceSelection": [{"right": 0.5}, {"discrete": ["form"], "continuous": ["right"]}],
}
"""Settings to test with; a transform with required fields needs an entry."""


def transform_classes() -> Iterator[type[Any]]:
    packages = (mmpost.transforms, mmpost.metrics, mmpost.selection)
    for info in [i for p in packages for i in pkgutil.iter_modules(p.__path__, f"{p.__name__}.")]:
        for name, member in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            is_public = member.__module__ == info.name and not name.startswith("_")
            is_callable = any("__call__" in vars(c) for c in member.__mro__[:-1])
            if is_public and issubclass(member, Settings) and is_callable:
                yield member


TRANSFORMS = [
    pytest.param(cls, fields, id=f"{cls.__name__}-{i}")
    for cls in transform_classes()
    for i, fields in enumerate(SETTINGS.get(cls.__name__, [{}]))
]


def samples() -> list[Sample]:
    """Ragged, zero-variance and unscorable groups, with and without truth, with all columns that transforms read."""
    groups = []
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
        groups.append(
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
    return groups


REFUSE_EMPTY = {"EncodeReplies", "EncodePairs"}
"""Transforms that raise for a sample without replies."""


def inputs_for(cls: type[Any]) -> list[Sample]:
    """The samples that `cls` is tested with."""
    return [sample for sample in samples() if sample.replies or cls.__name__ not in REFUSE_EMPTY]


def test_every_transform_is_covered():
    assert {"GroupAdvantage", "InjectTruth", "DropZeroVariance", "KLReward"} <= {
        cls.__name__ for cls in transform_classes()
    }


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_inputs_are_not_changed(cls, fields):
    inputs = inputs_for(cls)
    before = copy.deepcopy(inputs)
    cls(**fields)(inputs, FakeContext())
    assert repr(inputs) == repr(before)


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_uids_and_their_order_are_kept(cls, fields):
    uids = [s.uid for s in inputs_for(cls)]
    kept_uids = [s.uid for s in cls(**fields)(inputs_for(cls), FakeContext())]
    assert kept_uids == [uid for uid in uids if uid in kept_uids]


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_an_empty_batch_stays_empty(cls, fields):
    assert cls(**fields)([], FakeContext()) == []


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_columns_written_are_columns_named(cls, fields):
    """Written columns are declared in `makes`, and finite (except rewards)."""
    transform, inputs = cls(**fields), inputs_for(cls)
    # Replies may be dropped or reordered, so match them by text, which is unique within a sample.
    old_columns = {s.uid: {r.text: r.columns for r in s.replies} for s in inputs}
    for sample in transform(inputs, FakeContext()):
        for reply in sample.replies:
            before = old_columns[sample.uid].get(reply.text, {})
            written = {k for k, v in reply.columns.items() if repr(before.get(k)) != repr(v)}
            assert written <= set(transform.makes)
            for name in written - {"reward"}:
                value = reply.columns[name]
                row = [value] if isinstance(value, int | float) else value
                assert all(abs(x) < 1e6 for x in row), name
                assert isinstance(value, int | float) or len(row) == len(reply.token_ids or ())


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_every_rank_gathers_equally_often(cls, fields):
    """A rank without samples must join every collective call."""

    class Counting(FakeContext):
        calls = 0

        def gather(self, values: Any) -> list[float]:
            self.calls += 1
            return super().gather(values)

    with_samples, without_samples = Counting(), Counting()
    cls(**fields)(inputs_for(cls), with_samples)
    cls(**fields)([], without_samples)
    assert with_samples.calls == without_samples.calls


@pytest.mark.parametrize(("cls", "fields"), TRANSFORMS)
def test_it_is_frozen_and_documented(cls, fields):
    transform = cls(**fields)
    assert cls.__doc__
    for name, field in cls.model_fields.items():
        assert field.description, name
        with pytest.raises(ValueError, match="frozen"):
            setattr(transform, name, getattr(transform, name))
