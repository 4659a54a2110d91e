"""The contract of objectives with the trainer, for every objective in the package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import mmpost.objectives
from mmpost.types import Batch, Loss, Objective, Outputs
from tests.objectives.ragged import select, total

LENGTHS = [3, 1, 7, 2, 5, 4, 1, 6]
GROUPS = [0, 0, 1, 1, 2, 2, 3, 3]
ZERO_OR_ONE = {"truncated", "injected", "label"}
"""Columns with values 0 or 1; all others are real numbers."""
FIXED = {"chosen": [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], "mismatched": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]}
"""Columns with values 0 or 1 of which only some combinations are valid."""

SETTINGS: Mapping[str, list[dict[str, Any]]] = {
    "Likelihood": [{"reduce": "token"}, {"reduce": "reply"}],
    "PolicyLoss": [
        *({"loss_type": loss} for loss in ("grpo", "bnpo", "dapo", "gspo", "luspo", "rloo", "cispo", "sapo", "vespo")),
        {"loss_type": "dr_grpo", "max_tokens": 9},
        {"loss_type": "dapo", "old": "column", "beta": 0.1, "entropy": 0.1, "mask_truncated": True, "injected": True},
        {"loss_type": "vespo", "old": "column", "mismatch": "token", "off_policy_max": 0.1, "entropy": 0.1},
        {"old": "column", "mismatch": "geometric", "mismatch_low": 0.9, "mismatch_high": 1.1},
    ],
    "Preference": [
        # The other loss types differ in their formula only.
        *({"loss_type": kind} for kind in ("dpo", "ipo", "mpo", "sft", "aot", "orpo", "kto", "apo_zero_unpaired")),
        {"loss_type": "dpo", "weighting": True, "ld_alpha": 0.5, "nll_weight": 0.2},
        {"mix": {"aot": 0.5, "sft": 0.5}, "ld_alpha": 0.3},
        {"loss_type": "ipo", "divergence": "js", "weighting": True},
    ],
}
"""Settings to test with; an objective with required fields needs an entry."""

SAMPLE_OBJECTIVES = {"Contrastive", "Classify"}
"""Objectives on samples instead of replies: test_sample_objectives.py."""


def objective_classes() -> Iterator[type[Objective]]:
    for info in pkgutil.iter_modules(mmpost.objectives.__path__, "mmpost.objectives."):
        for _, member in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if issubclass(member, Objective) and not inspect.isabstract(member) and member.__module__ == info.name:
                yield member


OBJECTIVES = [
    pytest.param(cls(**fields), id=f"{cls.__name__}-{i}")
    for cls in objective_classes()
    if cls.__name__ not in SAMPLE_OBJECTIVES
    for i, fields in enumerate(SETTINGS.get(cls.__name__, [{}]))
]


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


class RecordingColumns(dict[str, Tensor]):
    """A mapping that records the keys that are read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def make_batch(names: frozenset[str], seed: int = 0, mask: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    columns = RecordingColumns()
    for name in sorted(names):
        size = sum(LENGTHS) if name.endswith("_logp") or name == "mask" else len(LENGTHS)
        value = torch.randn(size, generator=generator, dtype=torch.float64)
        if name in FIXED:
            value = torch.tensor(FIXED[name], dtype=torch.float64)
        elif name in ZERO_OR_ONE:
            value = (value > 0.5).to(value)
        elif name.endswith("_logp"):
            value = -1 + 0.3 * value
        elif name == "mask":
            value = mask * (value > -1).to(value)
        columns[name] = value
    return Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)),
        group_of=torch.tensor(GROUPS),
        columns=columns,
        per_token_columns=frozenset(n for n in names if n.endswith("_logp") or n == "mask"),
    )


def make_outputs(objective: Objective, seed: int = 1) -> dict[str, Any]:
    """The required fields of Outputs; for `entropy_value` it is the entropy without gradient."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(mean: float) -> Tensor:
        value = mean + 0.3 * torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)
        return value.requires_grad_()

    outputs = {"logp": tokens(-1.0), "entropy": tokens(1.0), "entropy_value": tokens(1.0), "sum_p2": tokens(2.0)}
    return {name.removesuffix("_value"): outputs[name] for name in sorted(objective.required_outputs)}


def run(
    objective: Objective, full_batch: Batch, outputs: dict[str, Any], micro_batch_indices: list[list[int]]
) -> list[Tensor]:
    """The loss over the micro-batches `micro_batch_indices`, and its gradient with respect to each output."""
    micro_batches = []
    for replies in micro_batch_indices:
        micro, index = select(full_batch, replies)
        micro_batches.append((micro, Outputs(**{name: value[index] for name, value in outputs.items()})))
    value = total(objective, micro_batches)
    return [value, *torch.autograd.grad(value, list(outputs.values()), materialize_grads=True, allow_unused=True)]


ONE_BATCH = [list(range(len(LENGTHS)))]


def test_there_are_objectives():
    assert {"Likelihood", "PolicyLoss", "Preference"} <= {cls.__name__ for cls in objective_classes()}


def test_columns_read_are_columns_declared(objective):
    full_batch = make_batch(objective.required_columns)
    assert isinstance(full_batch.columns, RecordingColumns)
    objective.counts(full_batch)
    objective.zero_gradient_mask(full_batch)
    objective(Outputs(**make_outputs(objective)), full_batch)
    assert full_batch.columns.read == objective.required_columns


def test_counts_have_the_names_of_the_terms_and_need_no_inputs(objective):
    full_batch = make_batch(objective.required_columns)
    loss = objective(Outputs(**make_outputs(objective)), full_batch)
    assert isinstance(loss, Loss)
    assert loss.terms.keys() == objective.counts(full_batch).keys()
    assert all(term.shape == () and term.requires_grad for term in loss.terms.values())
    assert all(isinstance(n, float) and n >= 0 for n in objective.counts(full_batch).values())


def test_metrics_are_sums_and_counts_without_a_graph(objective):
    metrics = objective(Outputs(**make_outputs(objective)), make_batch(objective.required_columns)).metrics
    for name, pair in metrics.items():
        for number in pair:
            assert torch.as_tensor(number).shape == (), name
            assert not torch.as_tensor(number).requires_grad, name


def test_an_empty_loss_is_zero_with_a_finite_gradient(objective):
    """The loss must stay attached to the graph: otherwise ranks deadlock in the backward pass."""
    full_batch, outputs = make_batch(objective.required_columns, mask=0.0), make_outputs(objective)
    value, *grads = run(objective, full_batch, outputs, ONE_BATCH)
    assert value.requires_grad
    assert value.item() == 0
    assert all((g == 0).all() for g in grads)


def test_an_empty_micro_batch_changes_nothing(objective):
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    torch.testing.assert_close(
        run(objective, full_batch, outputs, [*ONE_BATCH, []]), run(objective, full_batch, outputs, ONE_BATCH)
    )


@pytest.mark.parametrize(
    "micro_batch_indices", [[[i] for i in range(8)], [[0, 1, 2, 3], [4, 5, 6, 7]], [[0], [1, 2, 3, 4, 5, 6], [7]]]
)
def test_micro_batches_change_nothing(objective, micro_batch_indices):
    if objective.unit == "batch":
        micro_batch_indices = ONE_BATCH
    if objective.unit == "group":
        micro_batch_indices = [[0, 1], [2, 3, 4, 5], [6, 7]]
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    torch.testing.assert_close(
        run(objective, full_batch, outputs, micro_batch_indices), run(objective, full_batch, outputs, ONE_BATCH)
    )


def test_the_order_of_replies_does_not_matter(objective):
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    order = [6, 7, 2, 3, 0, 1, 4, 5]
    torch.testing.assert_close(
        run(objective, full_batch, outputs, [order]), run(objective, full_batch, outputs, ONE_BATCH)
    )


def test_zero_gradient_replies_have_no_gradient(objective):
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    full_batch.columns["mask"][-LENGTHS[-1] :] = 0
    if "advantage" in objective.required_columns:
        full_batch.columns["advantage"][:3] = 0
    zero_gradient = objective.zero_gradient_mask(full_batch)
    assert zero_gradient[-1] or objective.unit != "reply"
    _, *grads = run(objective, full_batch, outputs, ONE_BATCH)
    for grad in grads:
        assert (grad[zero_gradient[full_batch.reply_of]] == 0).all()
    assert sum(float(grad.abs().sum()) for grad in grads) > 0 or zero_gradient.all()


def test_zero_gradient_replies_can_be_left_out(objective):
    """Loss, gradients and metrics equal those with all replies."""
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    full_batch.columns["mask"][-LENGTHS[-1] :] = 0
    if "advantage" in objective.required_columns:
        full_batch.columns["advantage"][:3] = 0
    active = (~objective.zero_gradient_mask(full_batch)).nonzero().squeeze(1).tolist()
    assert len(active) < len(LENGTHS)
    micro, index = select(full_batch, active)
    of_active = objective(Outputs(**{name: value[index] for name, value in outputs.items()}), micro)
    of_all = objective(Outputs(**outputs), full_batch)
    torch.testing.assert_close(dict(of_active.terms), dict(of_all.terms))
    for name in of_all.terms:
        gradients = [
            torch.autograd.grad(
                loss.terms[name], list(outputs.values()), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            for loss in (of_active, of_all)
        ]
        torch.testing.assert_close(*gradients)
    for name, pair in of_all.metrics.items():
        for a, b in zip(of_active.metrics[name], pair, strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))


def test_policy_log_probs_are_read_by_neither_counts_nor_zero_gradient_mask(objective):
    full_batch = make_batch(objective.required_columns)
    objective.counts(full_batch)
    objective.zero_gradient_mask(full_batch)
    assert isinstance(full_batch.columns, RecordingColumns)
    assert objective.policy_logprob_columns <= objective.required_columns
    assert not full_batch.columns.read & objective.policy_logprob_columns


def test_outputs_requested_as_values_get_no_gradient(objective):
    outputs = make_outputs(objective)
    _, *grads = run(objective, make_batch(objective.required_columns), outputs, ONE_BATCH)
    for name, grad in zip(outputs, grads, strict=True):
        assert name in objective.required_outputs or (grad == 0).all()


def test_float32_inputs_stay_float32(objective):
    full_batch, outputs = make_batch(objective.required_columns), make_outputs(objective)
    single: dict[str, Any] = {name: value.detach().float().requires_grad_() for name, value in outputs.items()}
    for term in objective(Outputs(**single), full_batch).terms.values():
        assert term.dtype == torch.float32
