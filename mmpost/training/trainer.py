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
from mmpost.training.active_replies import forgotten, only, remember, working, write
from mmpost.training.batches import Feed
from mmpost.training.context import Job
from mmpost.training.gradient_cache import fits_one_pass, in_two_passes, value_of, whole_counts, with_columns
from mmpost.training.interrupts import Stop
from mmpost.types import Engine, Model, Objective, Sample

Numbers = dict[str, float]
Watch = Callable[[Numbers, Sequence[Sample]], None]
"""Called after every optimiser step with its numbers and the samples it used."""


@dataclass
class Cursor:
    """Where a stage stands after its last whole step: with weights and update, all that resuming needs."""

    done: int = 0
    """Optimiser steps of the stage."""
    rollout: int = 0
    """Number of the rollout batch."""
    place: int = 0
    """Updates made on it."""
    samples: list[Sample] | None = None
    """The rollout batch, as long as updates on it are to come."""
    drawn: int = 0
    """Samples that the feed has drawn for it and all before."""
    idle: int = 0
    """Steps in a row whose gradient was zero."""
    rng: torch.Tensor | None = None
    """State of torch's generator on the CPU."""


@dataclass(frozen=True)
class Until:
    """When a stage ends."""

    steps: int
    """Optimiser steps of the stage."""
    stop: Stop
    """Asked to stop, the loop ends after the step at hand."""
    idle: int = 0
    """Steps in a row without any gradient, after which the run fails; 0: never."""


def run(job: Job, feed: Feed, engine: Engine, cursor: Cursor, until: Until, watch: Watch) -> None:
    """Train the stage of `feed` from where `cursor` stands."""
    stage, stop = feed.stage, until.stop
    objective = stage.objective
    assert objective is not None, f"stage {stage.name!r} makes data"
    feed.drawn = cursor.drawn
    while cursor.done < until.steps:
        start = time.perf_counter()
        if cursor.samples is None:
            with stop.interruptible():
                samples = feed.next()
            cursor.samples, cursor.drawn = samples, feed.drawn
            cursor.rollout, cursor.place = cursor.rollout + 1, 0
        pieces = cut(cursor.samples, stage.minibatches)
        counts = denominators(objective, job.model, pieces)
        place, fresh = cursor.place % stage.minibatches, cursor.place == 0
        if fresh and stage.updates > 1:
            with job.clock("logp"), stop.interruptible():
                pieces = [remember(job, objective, p) if i or not job.share else p for i, p in enumerate(pieces)]
        with job.clock("train"):
            moved, pieces[place] = optimise(
                job, engine, objective, pieces[place], counts[place], stop.interruptible, fresh
            )
        cursor.samples = [s for piece in pieces for s in piece]
        job.step, job.version = job.step + 1, job.version + 1
        cursor.done, cursor.place = cursor.done + 1, cursor.place + 1
        if cursor.place == stage.updates:
            cursor.samples = None
        cursor.idle = cursor.idle + 1 if moved.get("grad_norm") == 0.0 else 0
        cursor.rng = torch.get_rng_state()
        numbers = {**job.numbers(), "rollout": cursor.rollout, "time/step": time.perf_counter() - start}
        watch(numbers, pieces[place])
        if until.idle and cursor.idle >= until.idle:
            raise TrainError(
                f"no gradient in the last {cursor.idle} steps: nothing can be learnt from these samples. Look at "
                "samples/ and at the share of groups with equal scores; `stop_if_flat` says after how many steps"
            )
        if any(distributed.gather(stop.asked)):
            return


def optimise(
    job: Job,
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


def _not_finite(job: Job, objective: Objective, samples: Sequence[Sample]) -> list[str]:
    """The samples whose own loss is not finite, from one more forward; none where losses are of whole batches only."""
    found = []
    with torch.no_grad():
        for sample in samples if objective.unit != "batch" else ():
            plan = job.model.plan([sample], objective.columns, objective.unit)
            terms = [t for batch in plan for t in objective(job.model(batch, objective.wants), batch).terms.values()]
            if not all(bool(torch.isfinite(term)) for term in terms):
                found.append(sample.uid)
    return found


def accumulate(
    job: Job,
    engine: Engine,
    objective: Objective,
    samples: Sequence[Sample],
    counts: Mapping[str, float],
    fresh: bool = False,
) -> tuple[float, list[Sample]]:
    """Forward and backward of all micro-batches; returns this rank's share of the loss, and what `optimise` does."""
    model = job.model
    busy = working(job, objective, samples)
    open_columns = forgotten(objective, samples) if fresh else frozenset()
    # What must be seen as a whole may be computed in pieces: samples stay whole.
    unit = "group" if objective.unit == "batch" else objective.unit
    plan = model.plan(only(samples, busy), objective.columns - open_columns, unit)
    if objective.unit == "batch" and not fits_one_pass(plan):
        total, rows = in_two_passes(job, engine, objective, plan, counts, open_columns)
        return total, write(samples, busy, open_columns, rows)
    total, rows = 0.0, []
    with model.step(plan):
        for batch in plan:
            outputs = model(batch, objective.wants)
            if open_columns:
                assert outputs.logp is not None
                batch = with_columns(batch, open_columns, outputs.logp)
                rows += batch.by_reply(outputs.logp.detach())
            loss = objective(outputs, batch)
            value = value_of(loss, counts)
            engine.backward(value)
            total += float(value.detach())
            for name, (number, count) in loss.metrics.items():
                job.log(name, float(number), float(count))
    return total, write(samples, busy, open_columns, rows)


def denominators(objective: Objective, model: Model, pieces: Sequence[Sequence[Sample]]) -> list[Numbers]:
    """For each minibatch the count that divides each term, over all ranks, known before any forward."""
    columns = objective.columns - objective.remembers
    if objective.unit == "batch":
        counts = [dict(whole_counts(objective, model.counts_batch(p, columns))) for p in pieces]
    else:
        counts = [distributed.total(objective.counts(model.counts_batch(p, columns)) if p else {}) for p in pieces]
    if objective.span == "rollout":
        names = {name for count in counts for name in count}
        mean = {name: sum(c.get(name, 0.0) for c in counts) / len(counts) for name in names}
        counts = [mean] * len(counts)
    return [{name: max(value, 1.0) for name, value in count.items()} for count in counts]


def cut(samples: Sequence[Sample], pieces: int) -> list[list[Sample]]:
    """Consecutive minibatches of whole samples, as equal as can be; a rank may have an empty one."""
    bounds = [round(i * len(samples) / pieces) for i in range(pieces + 1)]
    return [list(samples[a:b]) for a, b in itertools.pairwise(bounds)]


def share_out(steps: int, stages: Sequence[tuple[str, float]]) -> dict[str, int]:
    """Steps of each stage by its share of all shares; they add up to `steps`."""
    whole = sum(share for _, share in stages)
    edges = [
        round(steps * sum(share for _, share in stages[:i]) / whole) if whole else 0 for i in range(len(stages) + 1)
    ]
    return {name: b - a for (name, _), a, b in zip(stages, edges, edges[1:], strict=False)}
