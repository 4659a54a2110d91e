"""Gradient caching for objectives of a whole optimizer step, over micro-batches and ranks.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), for any output
of the model: (1) forward all micro-batches without gradient; (2) compute the loss on all outputs together, and its
gradient at each output; (3) forward each micro-batch again, with gradient, and backpropagate the cached gradient. The
result is the exact gradient of the step, for the price of a second forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmpost.core import distributed
from mmpost.core.columns import concatenate, on_device, with_token_columns
from mmpost.training.context import TrainingContext
from mmpost.training.outputs import Key, by_micro_batch, concatenated, detached_to, named_tensors, shared_scalars
from mmpost.types import Batch, Engine, Objective, Outputs

CPU = torch.device("cpu")

RandomState = tuple[Tensor, list[Tensor]]
"""States of torch's generators: of the CPU, and of each GPU."""


@dataclass(frozen=True)
class _CachedBatch:
    """A micro-batch after the forward pass without gradient."""

    batch: Batch
    outputs: Outputs
    random_state: RandomState
    """Of the generators before the first forward pass, so that the second applies the same dropout masks."""


def fits_one_pass(plan: Sequence[Batch]) -> bool:
    """Whether a single micro-batch on a single rank is the whole step, so that no caching is needed."""
    return distributed.world() == 1 and len(plan) <= 1


def step_counts(objective: Objective, local: Batch) -> Mapping[str, float]:
    """The objective's counts of the whole step, from this rank's part of it; every rank must call it."""
    whole_step = concatenate(distributed.gather(on_device(local, CPU)))
    return objective.counts(whole_step) if whole_step.samples else {}


def backward_with_gradient_cache(
    context: TrainingContext,
    engine: Engine,
    objective: Objective,
    plan: Sequence[Batch],
    counts: Mapping[str, float],
    recorded_columns: frozenset[str],
) -> tuple[float, list[list[float]]]:
    """Add the exact gradient of the step to the parameters.

    Every rank computes the same loss of the whole step. The first rank with samples (the leader) alone reports it and
    its metrics, and alone backpropagates into scalars of the model, so that sums over ranks count them once.
    `recorded_columns` are filled in from the log-probs of the first pass. Returns the loss (0 except on the leader),
    and the log-probs of this rank's replies, [reply][tok]. Raises TrainError where scalars of the model (`Outputs.aux`)
    differ between micro-batches.
    """
    cached, logp = _first_pass(context, objective, plan, recorded_columns)
    by_rank = distributed.gather(
        [(on_device(replace(c.batch, inputs=None), CPU), detached_to(c.outputs, CPU)) for c in cached]
    )
    leader = next((rank for rank, part in enumerate(by_rank) if part), None)
    if leader is None:
        return 0.0, logp
    device = cached[0].batch.sample_ids.device if cached else CPU
    whole_step = [(on_device(b, device), detached_to(o, device)) for part in by_rank for b, o in part]
    batches, outputs = [b for b, _ in whole_step], [o for _, o in whole_step]
    leaves, aux = _leaves(outputs, batches)
    loss = objective(concatenated(leaves, aux), concatenate(batches))
    value = loss.total(counts)
    gradients, aux_gradients = _gradients(value, leaves, aux)
    first = sum(len(part) for part in by_rank[: distributed.rank()])
    local = [{key: pieces[first + i] for key, pieces in gradients.items()} for i in range(len(cached))]
    _second_pass(context, engine, objective, cached, local, aux_gradients if distributed.rank() == leader else {})
    if distributed.rank() != leader:
        return 0.0, logp
    for name, (metric_sum, metric_count) in loss.metrics.items():
        context.log(name, float(metric_sum), float(metric_count))
    return float(value.detach()), logp


def _first_pass(
    context: TrainingContext, objective: Objective, plan: Sequence[Batch], recorded_columns: frozenset[str]
) -> tuple[list[_CachedBatch], list[list[float]]]:
    """Forward without gradient, but with dropout, as the second pass has it."""
    cached, logp = [], []
    with torch.no_grad():
        for batch in plan:
            random_state = _random_state()
            outputs = context.model(batch, objective.required_outputs, train=True)
            if recorded_columns:
                assert outputs.logp is not None
                batch = with_token_columns(batch, recorded_columns, outputs.logp)
                logp += batch.by_reply(outputs.logp)
            cached.append(_CachedBatch(batch, outputs, random_state))
    return cached, logp


def _second_pass(
    context: TrainingContext,
    engine: Engine,
    objective: Objective,
    cached: Sequence[_CachedBatch],
    gradients: Sequence[Mapping[Key, Tensor]],
    aux_gradients: Mapping[str, Tensor],
) -> None:
    """Forward each micro-batch again and backpropagate the cached gradients of its outputs.

    The scalars of the model are the same in every micro-batch, so `aux_gradients` go in with the first one only.
    """
    with context.model.step([c.batch for c in cached]):
        for i, micro_batch in enumerate(cached):
            _set_random_state(micro_batch.random_state)
            tensors = dict(named_tensors(context.model(micro_batch.batch, objective.required_outputs, train=True)))
            targets = {**gradients[i], **({("aux", name): g for name, g in aux_gradients.items()} if i == 0 else {})}
            # The gradient of sum(output * g) at the output is g: a scalar whose backward injects the cached gradients.
            sums = [
                (tensors[key] * g).sum() for key, g in targets.items() if key in tensors and tensors[key].requires_grad
            ]
            if sums:
                engine.backward(torch.stack(sums).sum())


def _leaves(outputs: Sequence[Outputs], batches: Sequence[Batch]) -> tuple[dict[Key, list[Tensor]], dict[str, Tensor]]:
    """The leaves of the loss's graph, all with requires_grad.

    For each output one tensor per micro-batch, and the scalars of the model (`aux`) once. Raises TrainError where the
    scalars differ between micro-batches, such as an expert-balance loss: their gradient could not be counted once.
    """
    leaves = {
        key: [piece.requires_grad_() for piece in pieces] for key, pieces in by_micro_batch(outputs, batches).items()
    }
    return leaves, {name: tensor.clone().requires_grad_() for name, tensor in shared_scalars(outputs).items()}


def _gradients(
    value: Tensor, leaves: Mapping[Key, Sequence[Tensor]], aux: Mapping[str, Tensor]
) -> tuple[dict[Key, list[Tensor]], dict[str, Tensor]]:
    flat = [*(piece for pieces in leaves.values() for piece in pieces), *aux.values()]
    gradients = iter(torch.autograd.grad(value, flat, allow_unused=True, materialize_grads=True))
    return {key: [next(gradients) for _ in pieces] for key, pieces in leaves.items()}, {n: next(gradients) for n in aux}


def _random_state() -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
