"""Traces a few samples through every step of a stage, from the source to the gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmpost.checks.model import gradient_norms
from mmpost.checks.report import Report, number
from mmpost.core.means import values_by_name
from mmpost.data.media.media import media
from mmpost.errors import TrainError
from mmpost.training.context import TrainingContext
from mmpost.training.trainer import denominators
from mmpost.types import Batch, Outputs, RefillBatch, Reply, Sample, Stage


def trace_stage(
    stage: Stage, samples: Sequence[Sample], context: TrainingContext, model: Any, report: Report
) -> list[Sample]:
    """Print a table with a row per step: its output, its changes and its duration.

    Returns the output of the transforms; [] for a stage without an objective whose transforms drop them
    all. Raises TrainError if the loss or a gradient is not finite.
    """
    report.section(f"{len(samples)} samples through stage {stage.name}")
    rows: list[tuple[str, str, str, str]] = []
    warnings: list[str] = []
    try:
        return _trace(stage, samples, context, model, rows, warnings)
    finally:  # an error must not hide the steps before it
        report.table("step", "output", "change", "s", rows=rows, right=(3,))
        report.warn(*warnings)


def _trace(
    stage: Stage,
    samples: Sequence[Sample],
    context: TrainingContext,
    model: Any,
    rows: list[tuple[str, str, str, str]],
    warnings: list[str],
) -> list[Sample]:
    start = time.perf_counter()

    def add_row(step: str, output: str, change: str) -> None:
        nonlocal start
        now = time.perf_counter()
        rows.append((step, output, change, f"{now - start:.2f}"))
        start = now

    current = [context.with_frame(s) for s in samples]
    add_row("source", _count(current), _describe_sample(current[0]))
    preview = model.preview(current[0])
    add_row("first prompt", preview.summary, shapes(preview.tensors))
    for transform in stage.transforms:
        if isinstance(transform, RefillBatch):
            continue
        before = current
        current = transform(list(current), context)
        name = type(transform).__name__
        add_row(name, _count(current), _changes(before, current))
        if before and not current:
            warnings.append(f"{name} dropped all of these samples; the steps after it are traced with its input")
            current = before
    objective = stage.objective
    if objective is None:
        return [] if warnings else current
    plan = model.plan(current, objective.required_columns, objective.unit)
    add_row("micro-batches", f"{len(plan)}", "; ".join(map(_size, plan[:4])) + (" ..." if plan[4:] else ""))
    counts = denominators(objective, model, [current])[0]
    total = 0.0
    for batch in plan:
        outputs = model(batch, objective.required_outputs)
        loss = objective(outputs, batch)
        value = torch.stack([term / counts[name] for name, term in loss.terms.items()]).sum()
        if batch is plan[0]:
            add_row("first forward", _size(batch), shapes(_tensors(outputs)))
        if value.requires_grad:  # false if everything is frozen
            value.backward()
        total += float(value.detach())
    add_row("loss", f"{total:.4g}", ", ".join(f"{k} over {number(v)}" for k, v in counts.items()))
    norms = gradient_norms(model.module, model.parameter_groups())
    model.module.zero_grad(set_to_none=True)
    add_row("gradient norm", "", ", ".join(f"{part} {norm:.3g}" for part, norm in norms.items()))
    _check_gradient(total, norms, warnings)
    return current


def _check_gradient(loss: float, norms: Mapping[str, float], warnings: list[str]) -> None:
    if loss != loss or any(n != n or n == float("inf") for n in norms.values()):
        raise TrainError(f"wanted a finite loss and gradient, found the loss {loss} and gradient norms {dict(norms)}")
    if not any(norms.values()):
        warnings.append("these samples have no gradient; do all replies of each group have the same reward?")


def shapes(tensors: Mapping[str, torch.Tensor]) -> str:
    """Names and shapes of the tensors: "name [2 3], name [4]"."""
    return ", ".join(f"{name} [{' '.join(map(str, t.shape))}]" for name, t in tensors.items())


def _count(samples: Sequence[Sample]) -> str:
    replies = [len(s.replies) for s in samples]
    each = f"{min(replies)} to {max(replies)}" if len(set(replies)) > 1 else str(replies[0] if replies else 0)
    return f"{len(samples)} x {each} replies"


def _describe_sample(sample: Sample) -> str:
    parts = [
        f"{len(p.value)} characters" if p.modality == "text" else _describe_medium(p.value, p.modality)
        for p in sample.prompt
    ]
    frame = f"; frame {number(sample.frame.width)} x {number(sample.frame.height)}" if sample.frame else ""
    truth = repr(sample.truth)
    return f"{' + '.join(parts)}{frame}; truth {truth if len(truth) <= 60 else truth[:57] + '...'}"


def _describe_medium(value: Any, modality: str) -> str:
    return " ".join([modality, *(f"{name}={size:g}" for name, size in media(value, modality).header().items())])


def _changes(before: Sequence[Sample], after: Sequence[Sample]) -> str:
    """New or changed numbers of the replies (lengths, scores, columns) with their ranges; "-name" for removed ones."""
    old, new = (
        values_by_name(pair for sample in samples for reply in sample.replies for pair in _numbers(reply))
        for samples in (before, after)
    )
    changed = [f"{name} {_range(values)}" for name, values in new.items() if old.get(name) != values]
    removed = [f"-{name}" for name in old if name not in new]
    return ", ".join([*changed, *removed]) or "nothing"


def _numbers(reply: Reply) -> list[tuple[str, float]]:
    pairs = [("tokens", float(len(reply.token_ids)))] if reply.token_ids is not None else []
    pairs += list(reply.scores.items())
    for name, value in reply.columns.items():
        pairs += (
            [(name, float(value))] if isinstance(value, int | float) else [(f"{name} (per token)", v) for v in value]
        )
    return pairs


def _range(values: Sequence[float]) -> str:
    not_nan = [v for v in values if v == v]
    if not not_nan:
        return "NaN"
    low, high = number(min(not_nan)), number(max(not_nan))
    return low if low == high else f"{low} to {high}"


def _size(batch: Batch) -> str:
    return f"{batch.replies} replies, {batch.tokens} reply tokens" if batch.replies else f"{batch.samples} samples"


def _tensors(outputs: Outputs) -> dict[str, torch.Tensor]:
    """The outputs that are present, by field; those of a field with several tensors as "field key"."""
    tensors = {}
    for name, value in vars(outputs).items():
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif value is not None:
            tensors |= {f"{name} {key}": tensor for key, tensor in value.items()}
    return tensors
