"""The loop. It knows samples, batches, objectives and steps, and nothing else: no modality, method, task or engine."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from mmpost.core import distributed
from mmpost.errors import TrainError
from mmpost.training.active_replies import (
    active_reply_mask,
    missing_columns,
    record_policy_logprobs,
    select_replies,
    write_columns,
)
from mmpost.training.batches import RolloutBatcher
from mmpost.training.context import TrainingContext
from mmpost.training.gradient_cache import (
    backward_with_gradient_cache,
    fits_one_pass,
    step_counts,
    total_loss,
    with_columns,
)
from mmpost.training.interrupts import StopSignal
from mmpost.types import Engine, Model, Objective, Sample

Metrics = dict[str, float]
OnStep = Callable[[Metrics, Sequence[Sample]], None]
"""Called after every optimiser step with its numbers and the samples it used."""


@dataclass
class StageProgress:
    """Where a stage stands after its last whole step: with weights and update, all that resuming needs."""

    steps_done: int = 0
    """Optimiser steps of the stage."""
    rollout: int = 0
    """Number of the rollout batch."""
    updates_done: int = 0
    """Updates made on it."""
    samples: list[Sample] | None = None
    """The rollout batch, as long as updates on it are to come."""
    samples_drawn: int = 0
    """Samples that the feed has drawn for it and all before."""
    zero_gradient_steps: int = 0
    """Steps in a row whose gradient was zero."""
    rng: torch.Tensor | None = None
    """State of torch's generator on the CPU."""


@dataclass(frozen=True)
class StopCondition:
    """When a stage ends."""

    steps: int
    """Optimiser steps of the stage."""
    stop: StopSignal
    """Asked to stop, the loop ends after the step at hand."""
    max_zero_gradient_steps: int = 0
    """Steps in a row without any gradient, after which the run fails; 0: never."""


def train_stage(
    job: TrainingContext,
    feed: RolloutBatcher,
    engine: Engine,
    cursor: StageProgress,
    until: StopCondition,
    watch: OnStep,
) -> None:
    """Train the stage of `feed` from where `cursor` stands."""
    stage, stop = feed.stage, until.stop
    objective = stage.objective
    assert objective is not None, f"stage {stage.name!r} makes data"
    feed.drawn = cursor.samples_drawn
    while cursor.steps_done < until.steps:
        start = time.perf_counter()
        if cursor.samples is None:
            with stop.interruptible():
                samples = feed.next()
            cursor.samples, cursor.samples_drawn = samples, feed.drawn
            cursor.rollout, cursor.updates_done = cursor.rollout + 1, 0
        pieces = split_minibatches(cursor.samples, stage.minibatches)
        counts = denominators(objective, job.model, pieces)
        place, fresh = cursor.updates_done % stage.minibatches, cursor.updates_done == 0
        if fresh and stage.updates_per_batch > 1:
            with job.timer("logp"), stop.interruptible():
                pieces = [
                    record_policy_logprobs(job, objective, p) if i or not job.reuse else p for i, p in enumerate(pieces)
                ]
        with job.timer("train"):
            moved, pieces[place] = optimizer_step(
                job, engine, objective, pieces[place], counts[place], stop.interruptible, fresh
            )
        cursor.samples = [s for piece in pieces for s in piece]
        job.step, job.version = job.step + 1, job.version + 1
        cursor.steps_done, cursor.updates_done = cursor.steps_done + 1, cursor.updates_done + 1
        if cursor.updates_done == stage.updates_per_batch:
            cursor.samples = None
        cursor.zero_gradient_steps = cursor.zero_gradient_steps + 1 if moved.get("grad_norm") == 0.0 else 0
        cursor.rng = torch.get_rng_state()
        numbers = {**job.pop_metrics(), "rollout": cursor.rollout, "time/step": time.perf_counter() - start}
        watch(numbers, pieces[place])
        if until.max_zero_gradient_steps and cursor.zero_gradient_steps >= until.max_zero_gradient_steps:
            raise TrainError(
                f"no gradient in the last {cursor.zero_gradient_steps} steps: these samples teach nothing. "
                "Look at samples/ and the groups without contrast, or raise max_zero_gradient_steps"
            )
        if any(distributed.gather(stop.requested)):
            return


def optimizer_step(
    job: TrainingContext,
    engine: Engine,
    objective: Objective,
    samples: Sequence[Sample],
    counts: Mapping[str, float],
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    fresh: bool = False,
) -> tuple[Mapping[str, float], list[Sample]]:
    """One optimiser step on `samples`: micro-batches forward and backward, each term over its own count, then move.

    `fresh`: the weights are those that the rollout batch was made with. Returns the numbers of the update, and the
    samples with what the objective remembers. Raises TrainError, with the weights unmoved, where one is not finite.
    """
    with interruptible():
        total, samples = accumulate(job, engine, objective, samples, counts, fresh)
    # Terms are divided by counts of all ranks, so the loss of the step is the sum over the ranks, as the gradient is.
    total = sum(distributed.gather(total))
    moved = engine.step() if math.isfinite(total) else {}
    job.model.after_step()
    for name, number in {"loss": total, **moved}.items():
        job.log(name, number)
    if not all(math.isfinite(v) for v in (total, *moved.values())):
        alone = [uid for part in distributed.gather(_not_finite(job, objective, samples)) for uid in part]
        everyone = [uid for part in distributed.gather([s.uid for s in samples]) for uid in part]
        raise TrainError(
            f"step {job.step + 1}: the loss is {total} and the step reports {dict(moved)}; the weights were not moved. "
            + (f"Not finite by themselves: {', '.join(alone)}. " if alone else "Each sample by itself is finite. ")
            + "Look at them in samples/, or lower optim.lr in a new run from the last checkpoint (model=RUN). "
            f"All samples of the step: {', '.join(everyone)}"
        )
    return moved, samples


def _not_finite(job: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> list[str]:
    """The samples whose own loss is not finite, from one more forward; none where losses are of whole batches only."""
    found = []
    with torch.no_grad():
        for sample in samples if objective.unit != "batch" else ():
            plan = job.model.plan([sample], objective.required_columns, objective.unit)
            terms = [
                t
                for batch in plan
                for t in objective(job.model(batch, objective.required_outputs), batch).terms.values()
            ]
            if not all(bool(torch.isfinite(term)) for term in terms):
                found.append(sample.uid)
    return found


def accumulate(
    job: TrainingContext,
    engine: Engine,
    objective: Objective,
    samples: Sequence[Sample],
    counts: Mapping[str, float],
    fresh: bool = False,
) -> tuple[float, list[Sample]]:
    """Forward and backward of all micro-batches; returns this rank's share of the loss, and what `optimise` does."""
    model = job.model
    busy = active_reply_mask(job, objective, samples)
    open_columns = missing_columns(objective, samples) if fresh else frozenset()
    # What must be seen as a whole may be computed in pieces: samples stay whole.
    unit = "group" if objective.unit == "batch" else objective.unit
    plan = model.plan(select_replies(samples, busy), objective.required_columns - open_columns, unit)
    if objective.unit == "batch" and not fits_one_pass(plan):
        total, rows = backward_with_gradient_cache(job, engine, objective, plan, counts, open_columns)
        return total, write_columns(samples, busy, open_columns, rows)
    total, rows = 0.0, []
    with model.step(plan):
        for batch in plan:
            outputs = model(batch, objective.required_outputs)
            if open_columns:
                assert outputs.logp is not None
                batch = with_columns(batch, open_columns, outputs.logp)
                rows += batch.by_reply(outputs.logp.detach())
            loss = objective(outputs, batch)
            value = total_loss(loss, counts)
            engine.backward(value)
            total += float(value.detach())
            for name, (number, count) in loss.metrics.items():
                job.log(name, float(number), float(count))
    return total, write_columns(samples, busy, open_columns, rows)


def denominators(objective: Objective, model: Model, pieces: Sequence[Sequence[Sample]]) -> list[Metrics]:
    """For each minibatch the count that divides each term, over all ranks, known before any forward."""
    columns = objective.required_columns - objective.policy_logprob_columns
    if objective.unit == "batch":
        counts = [dict(step_counts(objective, model.counts_batch(p, columns))) for p in pieces]
    else:
        counts = [distributed.total(objective.counts(model.counts_batch(p, columns)) if p else {}) for p in pieces]
    if objective.denominator_scope == "rollout":
        names = {name for count in counts for name in count}
        mean = {name: sum(c.get(name, 0.0) for c in counts) / len(counts) for name in names}
        counts = [mean] * len(counts)
    return [{name: max(value, 1.0) for name, value in count.items()} for count in counts]


def split_minibatches(samples: Sequence[Sample], pieces: int) -> list[list[Sample]]:
    """Consecutive minibatches of whole samples, as equal as can be; a rank may have an empty one."""
    bounds = [round(i * len(samples) / pieces) for i in range(pieces + 1)]
    return [list(samples[a:b]) for a, b in itertools.pairwise(bounds)]


def allocate_steps(steps: int, stages: Sequence[tuple[str, float]]) -> dict[str, int]:
    """Steps of each stage by its share of all shares; they add up to `steps`."""
    whole = sum(share for _, share in stages)
    edges = [
        round(steps * sum(share for _, share in stages[:i]) / whole) if whole else 0 for i in range(len(stages) + 1)
    ]
    return {name: b - a for (name, _), a, b in zip(stages, edges, edges[1:], strict=False)}
