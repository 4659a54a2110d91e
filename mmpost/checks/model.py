"""Checks of the model: trainable parts, gradients, memory of a step, and use of the media."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mmpost.checks.report import Report, memory, number
from mmpost.core.parameter_groups import owner
from mmpost.training.context import TrainingContext
from mmpost.training.media_probe import MediaUse, measure_media_use, with_gold
from mmpost.types import GenerativeModel, Gold, Sample, Stage, Transform


@dataclass
class SavedActivations:
    """Size of the activations that a forward pass saves for backward, and its tokens."""

    bytes: int = 0
    tokens: int = 0


@contextmanager
def saved_activations(module: torch.nn.Module) -> Iterator[SavedActivations]:
    """Counts the bytes of activations that forward passes inside the context save for backward.

    Tensors that share a storage are counted once, weights are not counted.
    """
    seen_storages = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved = SavedActivations()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in seen_storages:
            seen_storages.add(pointer)
            saved.bytes += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def gradient_norms(module: torch.nn.Module, parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """L2 norm of the gradient of each trainable part."""
    squares: dict[str, float] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            part = owner(name, parts)
            square = 0.0 if p.grad is None else float(p.grad.float().square().sum())
            squares[part] = squares.get(part, 0.0) + square
    return {part: value**0.5 for part, value in squares.items()}


def check_model(context: TrainingContext, model: Any, samples: Sequence[Sample], report: Report) -> SavedActivations:
    """Print parameters and gradient norms by part, and the prompt recipe; returns the activations of a forward pass.

    Gradients are those of the log-likelihood of `samples`, which have one gold reply each.
    """
    report.section("model")
    saved = _backward_likelihood(model, samples)
    parts = model.parameter_groups()
    norms = gradient_norms(model.module, parts)
    model.module.zero_grad(set_to_none=True)
    counts: dict[str, list[int]] = {}
    for name, p in model.module.named_parameters():
        count = counts.setdefault(owner(name, parts), [0, 0])
        count[0] += p.numel()
        count[1] += p.numel() if p.requires_grad else 0
    rows = [
        (part, number(n), number(t), "frozen" if part not in norms else f"{norms[part]:.3g}" if samples else "")
        for part, (n, t) in counts.items()
    ]
    total, trainable = (sum(c[i] for c in counts.values()) for i in (0, 1))
    rows.append(("all", number(total), number(trainable), ""))
    report.table("part", "parameters", "trainable", "gradient norm on gold replies", rows=rows, right=(1, 2, 3))
    generative = isinstance(context.model, GenerativeModel)
    if generative and not samples:
        report.warn("found no gold replies: gradients, activation memory and the use of media are not measured")
    if not trainable:
        report.error("nothing trains: every part of the model is frozen (model.freeze)")
    _check_norms(norms, samples, report)
    recipe = model.recipe
    if not generative:
        report.say(f"recipe {recipe.hash}")
        return saved
    names = model.tokenizer.convert_ids_to_tokens
    report.say(
        f"recipe {recipe.hash}: end-of-turn tokens {names(list(recipe.end))}, banned tokens "
        f"{names(list(recipe.banned))}"
    )
    return saved


def _check_norms(norms: Mapping[str, float], samples: Sequence[Sample], report: Report) -> None:
    """Report trainable parts without a gradient: those for media are idle where no sample has any."""
    idle = [part for part, norm in norms.items() if samples and norm == 0.0]
    has_media = any(p.modality != "text" for s in samples for p in s.prompt)
    if idle and not has_media and len(idle) < len(norms):
        report.warn(
            f"rows of text give no gradient to {', '.join(idle)}, which keep their memory for nothing; set "
            f"model.freeze=[{', '.join(idle)}], or correct the column of the media if the rows should have any"
        )
        return
    for part in idle:
        report.error(f"{part} is trainable, but gold replies give it no gradient")


def tokens_of_step(model: Any, stage: Stage, samples: Sequence[Sample], max_tokens: int) -> int:
    """Tokens of the largest micro-batch of a step, at most `max_tokens`; `samples`: some that went through `stage`.

    Replies that the stage samples count with their maximum length, whatever they have here.
    """
    replied = [s for s in samples if s.replies]
    if not replied:
        return max_tokens
    longest = max((t.max_reply_tokens() for t in stage.transforms if isinstance(t, Transform)), default=0)
    unused = sum(max(0, longest - len(r.token_ids or ())) for s in replied for r in s.replies if r.origin == "policy")
    step = math.ceil((model.num_tokens(replied) + unused) * stage.batch_size / len(replied) / stage.minibatches)
    return min(step, max_tokens)


def _backward_likelihood(model: Any, samples: Sequence[Sample]) -> SavedActivations:
    """Backpropagate the mean negative log-likelihood per reply token; returns the largest batch's activations."""
    total = sum(len(r.token_ids or ()) for s in samples for r in s.replies)
    largest = SavedActivations()
    with torch.enable_grad():
        for batch in model.plan(samples, frozenset(), "reply"):
            with saved_activations(model.module) as saved:
                logp = model(batch, frozenset({"logp"})).logp
            saved.tokens = model.num_tokens(batch.inputs)
            largest = max(largest, saved, key=lambda s: s.bytes)
            if logp.requires_grad:  # false if everything is frozen
                (-logp.sum() / total).backward()
    return largest


def report_memory(model: Any, saved: SavedActivations, tokens: int, report: Report) -> None:
    """Estimate the memory of a step: fp32 weights, gradients and optimizer state, and the measured activations scaled
    to a micro-batch of `tokens`.
    """
    parameters = sum(p.numel() for p in model.module.parameters())
    trainable = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    activations = saved.bytes / max(1, saved.tokens) * tokens  # 0 if nothing could be measured
    sizes = [
        ("weights (fp32)", 4.0 * parameters),
        ("gradients", 4.0 * trainable),
        ("Adam moments", 8.0 * trainable),
        (f"activations of {tokens} tokens", activations),
    ]
    total = sum(size for _, size in sizes)
    rows = [*((name, memory(size)) for name, size in sizes), ("total (estimate)", memory(total))]
    report.table("memory of one step", "", rows=rows, right=(1,))
    if model.device.type == "cuda":
        available = torch.cuda.get_device_properties(model.device).total_memory
        if total > available:
            report.warn(
                f"the GPU has {memory(available)}: lower compute.max_tokens_per_microbatch, set "
                "model.gradient_checkpointing=true, or train adapters (model.lora.rank)"
            )


def check_media_use(context: TrainingContext, samples: Sequence[Sample], report: Report) -> MediaUse | None:
    """Check that the log-probs of gold replies depend on the media. None if they cannot be measured."""
    if not any(p.modality != "text" for s in samples for p in s.prompt):
        return None
    report.section("use of media")
    use = measure_media_use(samples, context)
    if use is None:
        report.say("found no sample with media and a gold reply")
        return None
    rows = [
        (
            media,
            "" if value is None else f"{value:.3g}",
            "" if value is None or not use.noise else f"{value / use.noise:,.0f}",
        )
        for media, value in (
            ("blanked", use.blank),
            ("swapped between samples", use.swap),
            ("unchanged (noise)", use.noise),
        )
    ]
    report.table("media", "mean |log-prob change|", "multiple of noise", rows=rows, right=(1, 2))
    if use.unused:
        report.error("the media have no effect: blanking them changes no log-prob of any gold reply")
    elif use.doubtful:
        report.warn("the media change log-probs by less than three times the numerical noise")
    return use


def with_gold_replies(samples: Sequence[Sample], gold: Sequence[Gold], context: TrainingContext) -> list[Sample]:
    """The samples with their coordinate frame and one gold reply each; samples without one are left out."""
    return with_gold([context.with_frame(s) for s in samples], gold, context)
