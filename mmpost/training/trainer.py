"""The training loop. It knows samples, batches, objectives and steps only: no modality, method, task or engine."""

from __future__ import annotations

import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from mmpost.core import distributed
from mmpost.core.columns import with_token_columns
from mmpost.errors import TrainError
from mmpost.training.batches import (
    RolloutBatcher,
    active_reply_mask,
    missing_columns,
    record_policy_logprobs,
    select_replies,
    write_columns,
)
from mmpost.training.context import TrainingContext
from mmpost.training.gradient_cache import backward_with_gradient_cache, fits_one_pass, step_counts
from mmpost.types import Engine, Model, Objective, Sample, Update

Metrics = dict[str, float]
OnStep = Callable[[Metrics, Sequence[Sample]], None]
"""Called after every optimizer step with its metrics and the samples of its minibatch."""


@dataclass
class StageProgress:
    """Progress of a stage after its last finished step; with the weights and the update's state, enough to resume."""

    steps_done: int = 0
    """Optimizer steps taken in the stage."""
    rollout: int = 0
    """Number of the current rollout batch, from 1."""
    updates_done: int = 0
    """Optimizer steps taken on the current rollout batch."""
    samples: list[Sample] | None = None
    """The current rollout batch of this rank; None once all its updates are done."""
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What this rank logged while the batch was made (`TrainingContext.pending_metrics`), until a step reports it."""
    samples_drawn: int = 0
    """Samples read from the source for this and all earlier rollout batches, over all ranks."""
    zero_gradient_steps: int = 0
    """Steps in a row whose gradient norm was exactly zero."""
    rng: torch.Tensor | None = None
    """State of torch's CPU generator, which an interrupted step is rewound to."""


class LocalEngine:
    """Backward passes and optimizer steps of a module that fits on one device."""

    def __init__(self, module: torch.nn.Module, update: Update) -> None:
        self.module, self.update = module, update

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> Mapping[str, float]:
        """Sum the gradients over the ranks, then let the update step; returns its numbers for the log."""
        distributed.sum_gradients(p for p in self.module.parameters() if p.requires_grad)
        return self.update.step()


class Interrupted(Exception):
    """Raised by the second signal, only inside `StopSignal.interruptible`."""


class StopSignal:
    """Handles SIGTERM and Ctrl-C while its context is entered.

    The first signal sets `requested`, which the training loop reads after each step. The second raises `Interrupted` as
    soon as the code is somewhere that can be aborted: in a rollout or a forward pass, never while weights are updated
    or files are written. The third raises KeyboardInterrupt.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._abort_requested = False
        self._interruptible = False
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python allows handlers in the main thread only; elsewhere signals keep their default meaning.
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Surrounds work that leaves nothing half done when it is aborted."""
        # A second signal may have arrived while the weights were updated; it takes effect here.
        if self._abort_requested:
            raise Interrupted
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._abort_requested:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = True
            print(
                "\nmmpost: finishing this step, then saving; send the signal again to save without it", file=sys.stderr
            )
            return
        self._abort_requested = True
        if self._interruptible:
            raise Interrupted


@dataclass(frozen=True)
class StopCondition:
    """When a stage ends."""

    steps: int
    """Optimizer steps of the stage."""
    stop: StopSignal
    """Once it is requested, the loop ends after the current step."""
    max_zero_gradient_steps: int = 0
    """Zero-gradient steps in a row after which training fails; 0: never."""
    is_early: Callable[[], bool] = lambda: False
    """Whether the stage should end before its last step (`Update.should_stop`)."""


def train_stage(
    context: TrainingContext,
    batcher: RolloutBatcher,
    engine: Engine,
    progress: StageProgress,
    until: StopCondition,
    on_step: OnStep,
) -> None:
    """Train the batcher's stage from `progress`, which is updated in place after every step.

    Each rollout batch is split into `stage.minibatches`, and passed over `stage.num_iterations` times: one optimizer
    step per minibatch and pass. Raises TrainError where the loss is not finite, or after too many steps without a
    gradient; `Interrupted` where a second signal arrives during a rollout or a forward pass.
    """
    stage, stop = batcher.stage, until.stop
    objective, updates = stage.objective, stage.num_iterations * stage.minibatches
    assert objective is not None, f"stage {stage.name!r} generates data"
    batcher.drawn = progress.samples_drawn
    while progress.steps_done < until.steps and not until.is_early():
        start = time.perf_counter()
        if progress.samples is None:
            with stop.interruptible():
                samples = batcher.next()
            progress.samples, progress.samples_drawn = samples, batcher.drawn
            progress.rollout, progress.updates_done = progress.rollout + 1, 0
            progress.metrics = context.pending_metrics()
        minibatches = split_minibatches(progress.samples, stage.minibatches)
        counts = denominators(objective, context.model, minibatches)
        index, on_policy = progress.updates_done % stage.minibatches, progress.updates_done == 0
        if on_policy and updates > 1:
            # Later updates need the log-probs under the weights that sampled the batch, which are in place only now.
            # The first minibatch gets its own from the forward pass that trains on it, at no extra cost.
            with context.timer("logp"), stop.interruptible():
                minibatches = [
                    record_policy_logprobs(context, objective, m) if i or not context.reuse else m
                    for i, m in enumerate(minibatches)
                ]
        with context.timer("train"):
            update_metrics, minibatches[index] = optimizer_step(
                context, engine, objective, minibatches[index], counts[index], stop.interruptible, on_policy
            )
        # The recorded log-probs stay with the samples, and so reach the next passes and a checkpoint.
        progress.samples = [s for minibatch in minibatches for s in minibatch]
        context.step, context.version = context.step + 1, context.version + 1
        progress.steps_done, progress.updates_done = progress.steps_done + 1, progress.updates_done + 1
        if progress.updates_done == updates:
            progress.samples = None
        progress.metrics = {}
        progress.zero_gradient_steps = progress.zero_gradient_steps + 1 if update_metrics.get("grad_norm") == 0.0 else 0
        progress.rng = torch.get_rng_state()
        metrics = {**context.pop_metrics(), "rollout": progress.rollout, "time/step": time.perf_counter() - start}
        on_step(metrics, minibatches[index])
        if until.max_zero_gradient_steps and progress.zero_gradient_steps >= until.max_zero_gradient_steps:
            raise TrainError(
                f"no gradient in the last {progress.zero_gradient_steps} steps: nothing is learned from these samples. "
                "Look at samples/ and at the groups without contrast, or raise max_zero_gradient_steps"
            )
        # A signal may reach some ranks only; all of them must stop after the same step.
        if any(distributed.gather(stop.requested)):
            return


def optimizer_step(
    context: TrainingContext,
    engine: Engine,
    objective: Objective,
    samples: Sequence[Sample],
    counts: Mapping[str, float],
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    on_policy: bool = False,
) -> tuple[Mapping[str, float], list[Sample]]:
    """Accumulate the gradient of `samples` over micro-batches and ranks, then update the weights.

    `counts`: the denominator of each loss term (`denominators`). `interruptible` wraps what may be aborted; the update
    itself may not. `on_policy`: the weights are those that the rollout batch was made with. Returns the update's
    metrics, and the samples with the policy log-probs that were recorded on them. Raises TrainError, with the weights
    unchanged, where the loss or a metric of the update is not finite.
    """
    with interruptible():
        loss, samples = accumulate(context, engine, objective, samples, counts, on_policy)
    # Terms are divided by counts over all ranks, so the loss of the step is the sum over ranks, as is the gradient.
    loss = sum(distributed.gather(loss))
    update_metrics = engine.step() if math.isfinite(loss) else {}
    context.model.after_step()
    for name, value in {"loss": loss, **update_metrics}.items():
        context.log(name, value)
    if not all(math.isfinite(v) for v in (loss, *update_metrics.values())):
        culprits = [uid for uids in distributed.gather(_not_finite(context, objective, samples)) for uid in uids]
        all_uids = [uid for uids in distributed.gather([s.uid for s in samples]) for uid in uids]
        raise TrainError(
            f"step {context.step + 1}: the loss is {loss} and the update reports {dict(update_metrics)}; the weights "
            "were not moved. "
            + (f"Not finite on their own: {', '.join(culprits)}. " if culprits else "Each sample alone is finite. ")
            + "Look at them in samples/, or lower optim.lr in a new run from the last checkpoint (model=RUN). "
            f"All samples of the step: {', '.join(all_uids)}"
        )
    return update_metrics, samples


def _not_finite(context: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> list[str]:
    """The uids of samples whose own loss is not finite, from one more forward pass.

    Empty for an objective of a whole step, which has no loss per sample.
    """
    uids = []
    with torch.no_grad():
        for sample in samples if objective.unit != "batch" else ():
            plan = context.model.plan([sample], objective.required_columns, objective.unit)
            terms = [
                term
                for batch in plan
                for term in objective(context.model(batch, objective.required_outputs), batch).terms.values()
            ]
            if not all(bool(torch.isfinite(term)) for term in terms):
                uids.append(sample.uid)
    return uids


def accumulate(
    context: TrainingContext,
    engine: Engine,
    objective: Objective,
    samples: Sequence[Sample],
    counts: Mapping[str, float],
    on_policy: bool = False,
) -> tuple[float, list[Sample]]:
    """Forward and backward of all micro-batches of an optimizer step.

    Returns this rank's part of the loss (the parts of all ranks add up), and the samples with the policy log-probs
    that were recorded on them; see `optimizer_step`.
    """
    model = context.model
    mask = active_reply_mask(context, objective, samples)
    # At the first update the policy log-probs are the forward pass's own, so they are filled in from it.
    recorded = missing_columns(objective, samples) if on_policy else frozenset()
    # An objective of the whole step still allows micro-batches, by gradient caching, as long as samples stay whole.
    unit = "group" if objective.unit == "batch" else objective.unit
    context.count("trained_tokens", sum(len(reply.token_ids or ()) for s in samples for reply in s.replies))
    plan = model.plan(select_replies(samples, mask), objective.required_columns - recorded, unit)
    if objective.unit == "batch" and not fits_one_pass(plan):
        total, logp = backward_with_gradient_cache(context, engine, objective, plan, counts, recorded)
        return total, write_columns(samples, mask, recorded, logp)
    total, logp = 0.0, []
    with model.step(plan):
        for batch in plan:
            outputs = model(batch, objective.required_outputs)
            if recorded:
                assert outputs.logp is not None
                batch = with_token_columns(batch, recorded, outputs.logp)
                logp += batch.by_reply(outputs.logp.detach())
            loss = objective(outputs, batch)
            value = loss.total(counts)
            engine.backward(value)
            total += float(value.detach())
            for name, (metric_sum, metric_count) in loss.metrics.items():
                context.log(name, float(metric_sum), float(metric_count))
    return total, write_columns(samples, mask, recorded, logp)


def denominators(objective: Objective, model: Model, minibatches: Sequence[Sequence[Sample]]) -> list[Metrics]:
    """For each minibatch, the number that divides each loss term, at least 1: a count over all ranks.

    Counts are known before any forward pass, so that the gradient does not depend on how a step is split into
    micro-batches or over ranks. With `denominator_scope` "rollout" every minibatch gets the mean over the minibatches:
    a token or reply then weighs the same in whichever minibatch it falls.
    """
    columns = objective.required_columns - objective.policy_logprob_columns
    if objective.unit == "batch":
        counts = [dict(step_counts(objective, model.counts_batch(m, columns))) for m in minibatches]
    else:
        # A rank with an empty minibatch adds nothing, but must take part in the sum.
        counts = [distributed.total(objective.counts(model.counts_batch(m, columns)) if m else {}) for m in minibatches]
    if objective.denominator_scope == "rollout":
        names = {name for count in counts for name in count}
        mean = {name: sum(c.get(name, 0.0) for c in counts) / len(counts) for name in names}
        counts = [mean] * len(counts)
    return [{name: max(value, 1.0) for name, value in count.items()} for count in counts]


def split_minibatches(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """`count` consecutive minibatches of whole samples, as equal as possible; some are empty for few samples."""
    bounds = [round(i * len(samples) / count) for i in range(count + 1)]
    return [list(samples[a:b]) for a, b in itertools.pairwise(bounds)]


def allocate_steps(steps: int, stages: Sequence[tuple[str, float]]) -> dict[str, int]:
    """Divide `steps` among stages, given as (name, fraction), in proportion to their fractions; the sum is exact."""
    whole = sum(fraction for _, fraction in stages)
    edges = [
        round(steps * sum(fraction for _, fraction in stages[:i]) / whole) if whole else 0
        for i in range(len(stages) + 1)
    ]
    return {name: b - a for (name, _), a, b in zip(stages, edges, edges[1:], strict=False)}
