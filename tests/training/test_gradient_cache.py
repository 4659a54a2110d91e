"""Gradient caching: a loss over the full batch does not depend on micro-batches or ranks, and counts nothing twice."""

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
def full_batch_step(tiny_folder: str) -> tuple[torch.Tensor, dict[str, float]]:
    """The reference: the step in a single micro-batch."""
    model = load(tiny_folder)
    flat, metrics, _ = step(model, Coupled())
    assert [grad for grad, _ in model.computed] == [True]  # type: ignore[attr-defined]
    assert model.module.log_scale.grad is None
    return flat, metrics


TOLERANCE = 1e-12
"""Bound of `max_difference`; rounding in float64 gives 4e-16."""


def max_difference(
    flat: torch.Tensor, metrics: dict[str, float], reference: tuple[torch.Tensor, dict[str, float]]
) -> float:
    """The largest relative difference between two steps: gradient, gradient of the model scalar, and each metric.

    The scalar is the first parameter, compared separately: a count per micro-batch could be hidden by the norm.
    """
    gradient, expected_metrics = reference
    assert min(float(gradient.norm()), abs(float(gradient[0]))) > 1e-4
    assert metrics.keys() == expected_metrics.keys()
    metric_errors = [abs(metrics[k] - v) / max(abs(v), 1e-9) for k, v in expected_metrics.items()]
    return max(relative(flat, gradient), relative(flat[:1], gradient[:1]), *metric_errors)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_give_the_step_of_the_full_batch(
    micro: int, tiny_folder: str, full_batch_step: tuple[torch.Tensor, dict[str, float]]
) -> None:
    model = load(tiny_folder, micro)
    flat, metrics, _ = step(model, Coupled())
    grads = [grad for grad, _ in model.computed]  # type: ignore[attr-defined]
    assert grads == sorted(grads)
    assert sum(grads) == len(grads) / 2 > 1
    assert next(iter(dict(model.module.named_parameters()))) == "log_scale"
    assert max_difference(flat, metrics, full_batch_step) < TOLERANCE


def test_two_ranks_give_the_step_of_one_rank(
    tiny_folder: str, tmp_path: Path, full_batch_step: tuple[torch.Tensor, dict[str, float]]
) -> None:
    two_ranks = on_two_ranks(lambda: [step(load(tiny_folder, micro), Coupled())[:2] for micro in (0, 2)], tmp_path)
    for flat, metrics in two_ranks:
        assert max_difference(flat, metrics, full_batch_step) < TOLERANCE


def test_old_log_probs_come_from_the_first_pass(tiny_folder: str) -> None:
    one, many = load(tiny_folder), load(tiny_folder, 2)
    without_logps = [
        replace(s, replies=tuple(replace(r, columns={"advantage": r.columns["advantage"]}) for r in s.replies))
        for s in ragged_groups(one)
    ]
    a, metrics, remaining_one = step(one, Coupled(old=True), without_logps, fresh=True)
    b, many_metrics, remaining_many = step(many, Coupled(old=True), without_logps, fresh=True)
    assert max_difference(b, many_metrics, (a, metrics)) < TOLERANCE
    for s, t in zip(remaining_one, remaining_many, strict=True):
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
    computed: list[Any] = model.computed  # type: ignore[attr-defined]
    num_batches = len(computed) // 2
    for (_, first), (_, second) in zip(computed[:num_batches], computed[num_batches:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    before = len(computed)
    step(model, Coupled())
    second_step = model.computed[before : before + num_batches]  # type: ignore[attr-defined]
    assert all(
        not torch.allclose(a, b, atol=1e-3) for (_, a), (_, b) in zip(computed[:num_batches], second_step, strict=True)
    )


def test_dropout_in_an_encoder_with_cached_features_is_refused(tiny_folder: str) -> None:
    model = load(tiny_folder, 2)
    Lora(LoraSettings(dropout=0.5, target_groups=("vision", "language")))(model)
    with pytest.raises(ConfigError, match=r"lora.dropout=0"):
        step(model, Coupled())
    plain = load(tiny_folder, 2, reuse="off")
    Lora(LoraSettings(dropout=0.5, target_groups=("vision", "language")))(plain)
    step(plain, Coupled())
    computed: list[Any] = plain.computed  # type: ignore[attr-defined]
    torch.testing.assert_close(computed[0][1], computed[len(computed) // 2][1], rtol=1e-4, atol=1e-4)


def test_scalars_that_differ_between_micro_batches_are_refused(tiny_folder: str) -> None:
    class Balancing(Scaled):
        def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
            outputs = super().__call__(batch, wants, train)
            assert outputs.logp is not None
            return replace(outputs, aux={"balance": outputs.logp.mean()})

    with pytest.raises(TrainError, match=r"'balance'"):
        step(load(tiny_folder, 1, model_class=Balancing), Coupled())


def test_samples_without_replies_have_columns_and_modalities() -> None:
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
    joined = concatenate([batch, other, collate([], {"label"})])
    assert joined.sample("label").tolist() == [1, 2, 2]
    assert joined.has("image").tolist() == [True, False, False]
    assert joined.sample_ids.tolist() == [*batch.sample_ids.tolist(), *other.sample_ids.tolist()]
    assert len(set(joined.sample_ids.tolist())) == 3


def test_joined_batches_equal_one_batch() -> None:
    samples = [
        Sample(
            "a", (), (Reply((), "data", (1, 2), columns={"w": (0.1, 0.2)}), Reply((), "data", (3,), columns={"w": 2.0}))
        ),
        Sample("b", (), (Reply((), "data", (4, 5, 6), columns={"w": 1.0}),)),
    ]
    single = collate(samples, {"w", "mask"})
    joined = concatenate([collate([s], {"w", "mask"}) for s in samples])
    assert joined.reply_of.tolist() == single.reply_of.tolist()
    assert joined.group_of.tolist() == single.group_of.tolist()
    assert joined.tok("w").tolist() == single.tok("w").tolist()
    assert joined.tok("mask").tolist() == single.tok("mask").tolist()
