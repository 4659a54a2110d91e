"""The model's parts, what will train, what that takes, and whether gradients and media arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mmpost.checks.report import Report, memory, number
from mmpost.core.parameter_groups import owner
from mmpost.training.context import TrainingContext
from mmpost.training.media_probe import MediaUse, measure_media_use, with_gold
from mmpost.types import GenerativeModel, Gold, Sample


@dataclass
class Held:
    """What one forward kept for its backward."""

    bytes: int = 0
    tokens: int = 0


@contextmanager
def held(module: torch.nn.Module) -> Iterator[Held]:
    """Counts the bytes of distinct tensors, weights left out, that forwards inside keep for their backward."""
    known = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found = Held()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            known.add(place)
            found.bytes += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def gradients(module: torch.nn.Module, parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Norm of the gradient by part, of the parts that train."""
    squares: dict[str, float] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            part = owner(name, parts)
            square = 0.0 if p.grad is None else float(p.grad.float().square().sum())
            squares[part] = squares.get(part, 0.0) + square
    return {part: value**0.5 for part, value in squares.items()}


def check_model(job: TrainingContext, model: Any, samples: Sequence[Sample], micro_tokens: int, report: Report) -> None:
    """Parts, memory and recipe; `samples` have a right reply each, whose likelihood is taken forward and backward."""
    report.section("model")
    kept = _likelihood(model, samples)
    parts = model.parameter_groups()
    norms = gradients(model.module, parts)
    model.module.zero_grad(set_to_none=True)
    counts: dict[str, list[int]] = {}
    for name, p in model.module.named_parameters():
        count = counts.setdefault(owner(name, parts), [0, 0])
        count[0] += p.numel()
        count[1] += p.numel() if p.requires_grad else 0
    rows = [
        (part, number(a), number(t), "frozen" if part not in norms else f"{norms[part]:.3g}" if samples else "")
        for part, (a, t) in counts.items()
    ]
    whole, trains = (sum(c[i] for c in counts.values()) for i in (0, 1))
    rows.append(("all", number(whole), number(trains), ""))
    report.table("part", "parameters", "train", "gradient of right replies", rows=rows, right=(1, 2, 3))
    writes = isinstance(job.model, GenerativeModel)
    if writes and not samples:
        report.warn("no right replies are known, so gradients, activations and the use of media are not measured")
    if not trains:
        report.error("nothing trains: every part of the model is frozen (model.freeze)")
    for part, norm in norms.items():
        if samples and norm == 0.0:
            report.error(f"{part} is to train, but right replies give it no gradient at all")
    _memory(model, whole, trains, kept, micro_tokens, report)
    recipe = model.recipe
    if not writes:
        report.say(f"recipe {recipe.hash}")
        return
    names = model.tokenizer.convert_ids_to_tokens
    report.say(
        f"recipe {recipe.hash}: ends of a turn {names(list(recipe.end))}, never written {names(list(recipe.banned))}"
    )


def _likelihood(model: Any, samples: Sequence[Sample]) -> Held:
    """Backward of the mean log-prob of all replies; what the first, largest batch kept."""
    total = sum(len(r.token_ids or ()) for s in samples for r in s.replies)
    first = Held()
    with torch.enable_grad():
        for batch in model.plan(samples, frozenset(), "reply"):
            with held(model.module) as found:
                logp = model(batch, frozenset({"logp"})).logp
            found.tokens = model.num_tokens(batch.inputs)
            first = max(first, found, key=lambda h: h.bytes)
            if logp.requires_grad:  # nothing may be left to train
                (-logp.sum() / total).backward()
    return first


def _memory(model: Any, whole: int, trains: int, kept: Held, micro_tokens: int, report: Report) -> None:
    """Weights and moments in fp32; activations from what one forward kept, scaled to a full micro-batch."""
    activations = kept.bytes / max(1, kept.tokens) * micro_tokens  # 0 where nothing could be measured
    sizes = [
        ("weights (fp32)", 4.0 * whole),
        ("gradients", 4.0 * trains),
        ("Adam's moments", 8.0 * trains),
        (f"activations, {micro_tokens} tokens at once", activations),
    ]
    total = sum(size for _, size in sizes)
    rows = [*((name, memory(size)) for name, size in sizes), ("about", memory(total))]
    report.table("memory of one step", "", rows=rows, right=(1,))
    if model.device.type == "cuda":
        there = torch.cuda.get_device_properties(model.device).total_memory
        if total > there:
            report.warn(
                f"the GPU has {memory(there)}: lower compute.max_tokens_per_microbatch, set "
                "model.gradient_checkpointing=true, or "
                "train adapters (model.lora.rank)"
            )


def check_media_use(job: TrainingContext, samples: Sequence[Sample], report: Report) -> MediaUse | None:
    """Do log-probs of right replies move with the media?"""
    if not any(p.modality != "text" for s in samples for p in s.prompt):
        return None
    report.section("are the media used?")
    use = measure_media_use(samples, job)
    if use is None:
        report.say("no sample has both media and a right reply")
        return None
    rows = [
        (
            what,
            "" if value is None else f"{value:.3g}",
            "" if value is None or not use.noise else f"{value / use.noise:,.0f}",
        )
        for what, value in (
            ("blanked", use.blank),
            ("swapped between samples", use.swap),
            ("as they are (noise)", use.noise),
        )
    ]
    report.table("media", "mean |change| of log-prob", "times the noise", rows=rows, right=(1, 2))
    if use.unused:
        report.error("the media change nothing: not one log-prob of a right reply moves without them")
    elif use.doubtful:
        report.warn("the media change log-probs by less than three times the noise of the arithmetic")
    return use


def right_replies(samples: Sequence[Sample], gold: Sequence[Gold], job: TrainingContext) -> list[Sample]:
    """The samples with frame and one right reply each."""
    return with_gold([job.with_frame(s) for s in samples], gold, job)
