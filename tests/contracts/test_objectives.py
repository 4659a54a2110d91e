"""What every objective owes the trainer. They are found by listing the package: a new one is tested by existing."""

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
"""Columns of flags; every other one is any number."""
FIXED = {"chosen": [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], "mismatched": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]}
"""Columns of flags that only some combinations of make sense."""

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
        # The others differ in their formulas alone.
        *({"loss_type": kind} for kind in ("dpo", "ipo", "mpo", "sft", "aot", "orpo", "kto", "apo_zero_unpaired")),
        {"loss_type": "dpo", "weighting": True, "ld_alpha": 0.5, "nll_weight": 0.2},
        {"mix": {"aot": 0.5, "sft": 0.5}, "ld_alpha": 0.3},
        {"loss_type": "ipo", "divergence": "js", "weighting": True},
    ],
}
"""Settings besides the defaults; an objective with required fields needs a line here."""

OF_SAMPLES = {"Contrastive", "Classify"}
"""Those that read embeddings and columns of samples, not replies: test_sample_objectives.py."""


def classes() -> Iterator[type[Objective]]:
    for info in pkgutil.iter_modules(mmpost.objectives.__path__, "mmpost.objectives."):
        for _, found in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if issubclass(found, Objective) and not inspect.isabstract(found) and found.__module__ == info.name:
                yield found


OBJECTIVES = [
    pytest.param(cls(**fields), id=f"{cls.__name__}-{i}")
    for cls in classes()
    if cls.__name__ not in OF_SAMPLES
    for i, fields in enumerate(SETTINGS.get(cls.__name__, [{}]))
]


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


class Recording(dict[str, Tensor]):
    """A mapping that remembers what was read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def make_batch(names: frozenset[str], seed: int = 0, mask: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    columns = Recording()
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


def leaves(objective: Objective, seed: int = 1) -> dict[str, Any]:
    """The fields of Outputs that the objective wants; `entropy_value` is the entropy without a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(centre: float) -> Tensor:
        value = centre + 0.3 * torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)
        return value.requires_grad_()

    made = {"logp": tokens(-1.0), "entropy": tokens(1.0), "entropy_value": tokens(1.0), "sum_p2": tokens(2.0)}
    return {name.removesuffix("_value"): made[name] for name in sorted(objective.required_outputs)}


def run(objective: Objective, whole: Batch, outputs: dict[str, Any], cuts: list[list[int]]) -> list[Tensor]:
    """The loss over these micro-batches, and its gradient on each output."""
    parts = []
    for replies in cuts:
        micro, index = select(whole, replies)
        parts.append((micro, Outputs(**{name: value[index] for name, value in outputs.items()})))
    value = total(objective, parts)
    return [value, *torch.autograd.grad(value, list(outputs.values()), materialize_grads=True, allow_unused=True)]


EVERYTHING = [list(range(len(LENGTHS)))]


def test_there_are_objectives():
    assert {"Likelihood", "PolicyLoss", "Preference"} <= {cls.__name__ for cls in classes()}


def test_columns_read_are_columns_declared(objective):
    whole = make_batch(objective.required_columns)
    assert isinstance(whole.columns, Recording)
    objective.counts(whole)
    objective.zero_gradient_mask(whole)
    objective(Outputs(**leaves(objective)), whole)
    assert whole.columns.read == objective.required_columns


def test_counts_have_the_names_of_the_terms_and_need_no_inputs(objective):
    whole = make_batch(objective.required_columns)
    loss = objective(Outputs(**leaves(objective)), whole)
    assert isinstance(loss, Loss)
    assert loss.terms.keys() == objective.counts(whole).keys()
    assert all(term.shape == () and term.requires_grad for term in loss.terms.values())
    assert all(isinstance(n, float) and n >= 0 for n in objective.counts(whole).values())


def test_metrics_are_sums_and_counts_without_a_graph(objective):
    metrics = objective(Outputs(**leaves(objective)), make_batch(objective.required_columns)).metrics
    for name, pair in metrics.items():
        for number in pair:
            assert torch.as_tensor(number).shape == (), name
            assert not torch.as_tensor(number).requires_grad, name


def test_nothing_to_train_is_zero_with_a_finite_gradient(objective):
    """Attached to the graph, or ranks wait for each other in the backward."""
    whole, outputs = make_batch(objective.required_columns, mask=0.0), leaves(objective)
    value, *grads = run(objective, whole, outputs, EVERYTHING)
    assert value.requires_grad
    assert value.item() == 0
    assert all((g == 0).all() for g in grads)


def test_an_empty_micro_batch_changes_nothing(objective):
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    torch.testing.assert_close(
        run(objective, whole, outputs, [*EVERYTHING, []]), run(objective, whole, outputs, EVERYTHING)
    )


@pytest.mark.parametrize(
    "cuts", [[[i] for i in range(8)], [[0, 1, 2, 3], [4, 5, 6, 7]], [[0], [1, 2, 3, 4, 5, 6], [7]]]
)
def test_micro_batches_do_not_show(objective, cuts):
    if objective.unit == "batch":
        cuts = EVERYTHING
    if objective.unit == "group":
        cuts = [[0, 1], [2, 3, 4, 5], [6, 7]]
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    torch.testing.assert_close(run(objective, whole, outputs, cuts), run(objective, whole, outputs, EVERYTHING))


def test_the_order_of_replies_does_not_show(objective):
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    order = [6, 7, 2, 3, 0, 1, 4, 5]
    torch.testing.assert_close(run(objective, whole, outputs, [order]), run(objective, whole, outputs, EVERYTHING))


def test_idle_replies_have_no_gradient(objective):
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    whole.columns["mask"][-LENGTHS[-1] :] = 0
    if "advantage" in objective.required_columns:
        whole.columns["advantage"][:3] = 0
    idle = objective.zero_gradient_mask(whole)
    assert idle[-1] or objective.unit != "reply"
    _, *grads = run(objective, whole, outputs, EVERYTHING)
    for grad in grads:
        assert (grad[idle[whole.reply_of]] == 0).all()
    assert sum(float(grad.abs().sum()) for grad in grads) > 0 or idle.all()


def test_idle_replies_may_be_left_out(objective):
    """Loss, gradients and metrics are as if they had been computed."""
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    whole.columns["mask"][-LENGTHS[-1] :] = 0
    if "advantage" in objective.required_columns:
        whole.columns["advantage"][:3] = 0
    busy = (~objective.zero_gradient_mask(whole)).nonzero().squeeze(1).tolist()
    assert len(busy) < len(LENGTHS)
    micro, index = select(whole, busy)
    some = objective(Outputs(**{name: value[index] for name, value in outputs.items()}), micro)
    every = objective(Outputs(**outputs), whole)
    torch.testing.assert_close(dict(some.terms), dict(every.terms))
    for name in every.terms:
        gradients = [
            torch.autograd.grad(
                loss.terms[name], list(outputs.values()), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            for loss in (some, every)
        ]
        torch.testing.assert_close(*gradients)
    for name, pair in every.metrics.items():
        for a, b in zip(some.metrics[name], pair, strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))


def test_what_it_remembers_is_read_by_neither_counts_nor_idle(objective):
    whole = make_batch(objective.required_columns)
    objective.counts(whole)
    objective.zero_gradient_mask(whole)
    assert isinstance(whole.columns, Recording)
    assert objective.policy_logprob_columns <= objective.required_columns
    assert not whole.columns.read & objective.policy_logprob_columns


def test_what_is_wanted_as_a_value_gets_no_gradient(objective):
    outputs = leaves(objective)
    _, *grads = run(objective, make_batch(objective.required_columns), outputs, EVERYTHING)
    for name, grad in zip(outputs, grads, strict=True):
        assert name in objective.required_outputs or (grad == 0).all()


def test_single_precision_stays_single(objective):
    whole, outputs = make_batch(objective.required_columns), leaves(objective)
    single: dict[str, Any] = {name: value.detach().float().requires_grad_() for name, value in outputs.items()}
    for term in objective(Outputs(**single), whole).terms.values():
        assert term.dtype == torch.float32
