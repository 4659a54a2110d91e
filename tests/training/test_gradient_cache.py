"""A loss over a whole step is the same however the step is cut, and counts nothing twice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_two_ranks
from gradients import ragged_groups, relative
from whole_steps import Coupled, Scaled, load, step

from mmpost.config.settings import LoraSettings
from mmpost.core.columns import collate, concatenate
from mmpost.edits.lora import Lora
from mmpost.errors import ColumnError, ConfigError, TrainError
from mmpost.types import Batch, Outputs, Part, Reply, Sample


@pytest.fixture(scope="module")
def whole(tiny_folder: str) -> tuple[torch.Tensor, dict[str, float]]:
    """The plain way: all in one micro-batch."""
    model = load(tiny_folder)
    flat, numbers, _ = step(model, Coupled())
    assert [grad for grad, _ in model.made] == [True]  # type: ignore[attr-defined]
    assert model.module.log_scale.grad is None
    return flat, numbers


SAME = 1e-12
"""Bound of `apart`; float64 leaves 4e-16."""


def apart(flat: torch.Tensor, numbers: dict[str, float], whole: tuple[torch.Tensor, dict[str, float]]) -> float:
    """The largest relative difference of a step to another: gradient, the model's own scalar in it, and each number.

    The scalar is the first parameter of the module: were it counted once per micro-batch, the norm might hide that.
    """
    gradient, wanted = whole
    assert min(float(gradient.norm()), abs(float(gradient[0]))) > 1e-4
    assert numbers.keys() == wanted.keys()
    of_numbers = [abs(numbers[k] - v) / max(abs(v), 1e-9) for k, v in wanted.items()]
    return max(relative(flat, gradient), relative(flat[:1], gradient[:1]), *of_numbers)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_give_the_step_of_one(
    micro: int, tiny_folder: str, whole: tuple[torch.Tensor, dict[str, float]]
) -> None:
    model = load(tiny_folder, micro)
    flat, numbers, _ = step(model, Coupled())
    grads = [grad for grad, _ in model.made]  # type: ignore[attr-defined]
    assert grads == sorted(grads)
    assert sum(grads) == len(grads) / 2 > 1
    assert next(iter(dict(model.module.named_parameters()))) == "log_scale"
    assert apart(flat, numbers, whole) < SAME


def test_two_ranks_give_the_step_of_one(
    tiny_folder: str, tmp_path: Path, whole: tuple[torch.Tensor, dict[str, float]]
) -> None:
    of_two = on_two_ranks(lambda: [step(load(tiny_folder, micro), Coupled())[:2] for micro in (0, 2)], tmp_path)
    for flat, numbers in of_two:
        assert apart(flat, numbers, whole) < SAME


def test_remembered_log_probs_come_from_the_first_pass(tiny_folder: str) -> None:
    one, many = load(tiny_folder), load(tiny_folder, 2)
    bare = [
        replace(s, replies=tuple(replace(r, columns={"advantage": r.columns["advantage"]}) for r in s.replies))
        for s in ragged_groups(one)
    ]
    a, numbers, left = step(one, Coupled(old=True), bare, fresh=True)
    b, of_many, also = step(many, Coupled(old=True), bare, fresh=True)
    assert apart(b, of_many, (a, numbers)) < SAME
    for s, t in zip(left, also, strict=True):
        for r, q in zip(s.replies, t.replies, strict=True):
            assert r.columns["old_logp"] == pytest.approx(q.columns["old_logp"], rel=1e-4)
            assert len(r.columns["old_logp"]) == len(r.token_ids or ())  # type: ignore[arg-type]


def test_dropout_is_the_same_in_both_passes(tiny_folder: str) -> None:
    model = load(tiny_folder, 2)
    Lora(LoraSettings(dropout=0.5))(model)
    for name, p in model.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    step(model, Coupled())
    made: list[Any] = model.made  # type: ignore[attr-defined]
    half = len(made) // 2
    for (_, first), (_, second) in zip(made[:half], made[half:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    before = len(made)
    step(model, Coupled())
    again = model.made[before : before + half]  # type: ignore[attr-defined]
    assert all(not torch.allclose(a, b, atol=1e-3) for (_, a), (_, b) in zip(made[:half], again, strict=True))


def test_dropout_of_a_tower_whose_pictures_are_kept_is_refused(tiny_folder: str) -> None:
    model = load(tiny_folder, 2)
    Lora(LoraSettings(dropout=0.5, target_groups=("vision", "language")))(model)
    with pytest.raises(ConfigError, match=r"lora.dropout=0"):
        step(model, Coupled())
    plain = load(tiny_folder, 2, reuse="off")
    Lora(LoraSettings(dropout=0.5, target_groups=("vision", "language")))(plain)
    step(plain, Coupled())
    made: list[Any] = plain.made  # type: ignore[attr-defined]
    torch.testing.assert_close(made[0][1], made[len(made) // 2][1], rtol=1e-4, atol=1e-4)


def test_scalars_that_differ_between_micro_batches_are_refused(tiny_folder: str) -> None:
    class Balancing(Scaled):
        def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
            outputs = super().__call__(batch, wants, train)
            assert outputs.logp is not None
            return replace(outputs, aux={"balance": outputs.logp.mean()})

    with pytest.raises(TrainError, match=r"'balance'"):
        step(load(tiny_folder, 1, kind=Balancing), Coupled())


def test_samples_without_replies_have_columns_and_kinds() -> None:
    samples = [
        Sample("a", (Part("image", None), Part("text", "x")), columns={"label": 1.0}),
        Sample("b", (Part("text", "y"),), columns={"label": 2.0}),
    ]
    batch = collate(samples, {"label", "mask"})
    assert (batch.samples, batch.replies, batch.tokens) == (2, 0, 0)
    assert batch.sample("label").tolist() == [1, 2]
    assert batch.has("image").tolist() == [True, False]
    assert batch.has("sound").tolist() == [False, False]
    with pytest.raises(ColumnError, match="weight"):
        batch.sample("weight")
    with pytest.raises(ColumnError, match="'b'"):
        collate([samples[0], replace(samples[1], columns={})], {"label"})
    other = collate([replace(samples[1], uid="c")], {"label", "mask"})
    both = concatenate([batch, other, collate([], {"label"})])
    assert both.sample("label").tolist() == [1, 2, 2]
    assert both.has("image").tolist() == [True, False, False]
    assert both.sample_ids.tolist() == [*batch.sample_ids.tolist(), *other.sample_ids.tolist()]
    assert len(set(both.sample_ids.tolist())) == 3


def test_batches_are_joined_as_if_they_had_been_one() -> None:
    samples = [
        Sample(
            "a", (), (Reply((), "data", (1, 2), columns={"w": (0.1, 0.2)}), Reply((), "data", (3,), columns={"w": 2.0}))
        ),
        Sample("b", (), (Reply((), "data", (4, 5, 6), columns={"w": 1.0}),)),
    ]
    whole = collate(samples, {"w", "mask"})
    pieces = concatenate([collate([s], {"w", "mask"}) for s in samples])
    assert pieces.reply_of.tolist() == whole.reply_of.tolist()
    assert pieces.group_of.tolist() == whole.group_of.tolist()
    assert pieces.tok("w").tolist() == whole.tok("w").tolist()
    assert pieces.tok("mask").tolist() == whole.tok("mask").tolist()
