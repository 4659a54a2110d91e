"""A few samples through every hop of a stage, to the gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmpost.checks.model import gradients
from mmpost.checks.report import Report, number
from mmpost.data.media.media import media
from mmpost.errors import TrainError
from mmpost.training.context import TrainingContext
from mmpost.training.trainer import denominators
from mmpost.types import Batch, Outputs, RefillBatch, Reply, Sample, Stage


def check_hops(
    stage: Stage, samples: Sequence[Sample], job: TrainingContext, model: Any, report: Report
) -> list[Sample]:
    """Print a line for each hop: what there is, what it added, of which shape. Returns what the last hop left."""
    report.section(f"{len(samples)} samples through stage {stage.name}")
    lines: list[tuple[str, str, str, str]] = []
    notes: list[str] = []
    try:
        return _hops(stage, samples, job, model, lines, notes)
    finally:
        report.table("hop", "holds", "what it added", "s", rows=lines, right=(3,))
        report.warn(*notes)


def _hops(
    stage: Stage,
    samples: Sequence[Sample],
    job: TrainingContext,
    model: Any,
    lines: list[tuple[str, str, str, str]],
    notes: list[str],
) -> list[Sample]:
    start = time.perf_counter()

    def line(hop: str, holds: str, added: str) -> None:
        nonlocal start
        now = time.perf_counter()
        lines.append((hop, holds, added, f"{now - start:.2f}"))
        start = now

    current = [job.with_frame(s) for s in samples]
    line("source", _count(current), _sample(current[0]))
    seen = model.preview(current[0])
    line("prompt of the first", seen.summary, shapes(seen.tensors))
    for hop in stage.transforms:
        if isinstance(hop, RefillBatch):
            continue
        before = current
        current = hop(list(current), job)
        line(type(hop).__name__, _count(current), _added(before, current))
        if before and not current:
            notes.append(f"{type(hop).__name__} left nothing of these samples; the hops after it saw those before it")
            current = before
    objective = stage.objective
    if objective is None:
        return [] if notes else current
    plan = model.plan(current, objective.required_columns, objective.unit)
    line("micro-batches", f"{len(plan)}", _batches(plan))
    counts = denominators(objective, model, [current])[0]
    total = 0.0
    for batch in plan:
        outputs = model(batch, objective.required_outputs)
        loss = objective(outputs, batch)
        value = torch.stack([term / counts[name] for name, term in loss.terms.items()]).sum()
        if batch is plan[0]:
            line("forward of the first", _size(batch), shapes(_tensors(outputs)))
        if value.requires_grad:  # nothing may be left to train
            value.backward()
        total += float(value.detach())
    line("loss", f"{total:.4g}", ", ".join(f"{k} over {number(v)}" for k, v in counts.items()))
    norms = gradients(model.module, model.parameter_groups())
    model.module.zero_grad(set_to_none=True)
    line("gradient norm", "", ", ".join(f"{part} {norm:.3g}" for part, norm in norms.items()))
    _judge(total, norms, notes)
    return current


def _judge(total: float, norms: Mapping[str, float], notes: list[str]) -> None:
    if total != total or any(n != n or n == float("inf") for n in norms.values()):
        raise TrainError(f"the loss of these samples is {total}, with the gradient norms {dict(norms)}")
    if not any(norms.values()):
        notes.append("these samples give no gradient: do all replies of each group get the same reward?")


def shapes(tensors: Mapping[str, torch.Tensor]) -> str:
    """name [shape], name [shape]."""
    return ", ".join(f"{name} [{' '.join(map(str, t.shape))}]" for name, t in tensors.items())


def _count(samples: Sequence[Sample]) -> str:
    replies = [len(s.replies) for s in samples]
    each = f"{min(replies)} to {max(replies)}" if len(set(replies)) > 1 else str(replies[0] if replies else 0)
    return f"{len(samples)} x {each} replies"


def _sample(sample: Sample) -> str:
    parts = [
        f"{len(p.value)} characters" if p.modality == "text" else _medium(p.value, p.modality) for p in sample.prompt
    ]
    frame = f"; frame {number(sample.frame.width)} x {number(sample.frame.height)}" if sample.frame else ""
    return f"{' + '.join(parts)}{frame}; truth {_short(sample.truth)}"


def _medium(value: Any, kind: str) -> str:
    """Kind and sizes of a medium."""
    medium = media(value, kind)
    return " ".join([kind, *(f"{name}={size:g}" for name, size in medium.header().items())])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _added(before: Sequence[Sample], after: Sequence[Sample]) -> str:
    """What the replies have now that they had not, or not so: lengths, scores and columns with their ranges."""
    was, now = _table(before), _table(after)
    new = [f"{name} {_range(values)}" for name, values in now.items() if was.get(name) != values]
    gone = [f"-{name}" for name in was if name not in now]
    return ", ".join([*new, *gone]) or "nothing"


def _table(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """All numbers on all replies, by name."""
    found: dict[str, list[float]] = {}
    for reply in (r for s in samples for r in s.replies):
        for name, value in _numbers(reply):
            found.setdefault(name, []).append(value)
    return found


def _numbers(reply: Reply) -> list[tuple[str, float]]:
    pairs = [("tokens", float(len(reply.token_ids)))] if reply.token_ids is not None else []
    pairs += list(reply.scores.items())
    for name, value in reply.columns.items():
        pairs += (
            [(name, float(value))] if isinstance(value, int | float) else [(f"{name} (per token)", v) for v in value]
        )
    return pairs


def _range(values: Sequence[float]) -> str:
    known = [v for v in values if v == v]
    if not known:
        return "NaN"
    low, high = number(min(known)), number(max(known))
    return low if low == high else f"{low} to {high}"


def _batches(plan: Sequence[Any]) -> str:
    return "; ".join(map(_size, plan[:4])) + (" ..." if plan[4:] else "")


def _size(batch: Batch) -> str:
    return f"{batch.replies} replies, {batch.tokens} reply tokens" if batch.replies else f"{batch.samples} samples"


def _tensors(outputs: Outputs) -> dict[str, torch.Tensor]:
    """All of them, by field, and by name where a field has several."""
    found = {}
    for name, value in vars(outputs).items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif value is not None:
            found |= {f"{name} {key}": tensor for key, tensor in value.items()}
    return found
