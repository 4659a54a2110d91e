"""The loop. It knows samples, batches, objectives and steps, and nothing else: no modality, method, task or engine."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from mmpost import dist
from mmpost.errors import TrainError
from mmpost.feed import Feed
from mmpost.job import Job
from mmpost.types import Engine, Model, Objective, Sample, Stage

Numbers = dict[str, float]
Watch = Callable[[Numbers, Sequence[Sample]], None]
"""Called after every optimiser step with its numbers and the samples it used."""


def run(job: Job, stage: Stage, engine: Engine, steps: int, watch: Watch) -> None:
    """Train one stage for `steps` optimiser steps."""
    feed = Feed(stage, job)
    done = rollout = 0
    while done < steps:
        rollout += 1
        start = time.perf_counter()
        samples = feed.next()
        pieces = cut(samples, stage.minibatches)
        counts = denominators(stage.objective, job.model, pieces)
        for piece, count in [pair for _ in range(stage.epochs) for pair in zip(pieces, counts, strict=True)]:
            if done == steps:
                break
            with job.clock("train"):
                optimise(job, engine, stage.objective, piece, count)
            done += 1
            job.step += 1
            job.version += 1
            numbers = job.numbers()
            watch({**numbers, "rollout": rollout, "time/step": time.perf_counter() - start}, piece)
            start = time.perf_counter()


def optimise(
    job: Job, engine: Engine, objective: Objective, samples: Sequence[Sample], counts: Mapping[str, float]
) -> None:
    """One optimiser step on `samples`: micro-batches forward and backward, each term over its own count, then move."""
    model = job.model
    plan = model.plan(samples, objective.columns, objective.unit)
    total = 0.0
    with model.step(plan):
        for batch in plan:
            outputs = model(batch, objective.wants)
            loss = objective(outputs, batch)
            value = torch.stack([term / counts[name] for name, term in loss.terms.items()]).sum()
            engine.backward(value)
            total += float(value.detach())
            for name, (number, count) in loss.metrics.items():
                job.log(name, float(number), float(count))
    # Terms are divided by counts of all ranks, so the loss of the step is the sum over the ranks, as the gradient is.
    total = sum(dist.gather(total))
    moved = engine.step() if math.isfinite(total) else {}
    model.after_step()
    for name, number in {"loss": total, **moved}.items():
        job.log(name, number)
    if not all(math.isfinite(v) for v in (total, *moved.values())):
        raise TrainError(
            f"step {job.step + 1}: the loss is {total} and the step reports {dict(moved)}; the weights were not moved. "
            f"Its samples: {', '.join(s.uid for s in samples)}"
        )


def denominators(objective: Objective, model: Model, pieces: Sequence[Sequence[Sample]]) -> list[Numbers]:
    """For each minibatch the count that divides each term, over all ranks, known before any forward."""
    counts = [dist.total(objective.counts(model.counts_batch(p, objective.columns)) if p else {}) for p in pieces]
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
