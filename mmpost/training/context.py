"""What transforms and the trainer share in a run: model, rollout engine, metrics, seeds, weight snapshots."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.core import distributed
from mmpost.core.columns import concatenate, on_device
from mmpost.errors import ConfigError, DataError
from mmpost.training.logprob_cache import LogprobCache
from mmpost.training.outputs import by_micro_batch, concatenated, detached_to, shared_scalars
from mmpost.types import (
    Batch,
    EmbeddingModel,
    GenerativeModel,
    Model,
    Objective,
    Origin,
    Outputs,
    Reply,
    Rollout,
    Sample,
    Sampling,
    Source,
)


class TrainingContext:
    """Implements `Context`, and what the trainer needs besides: seeds, sample errors, metrics, weight snapshots."""

    def __init__(
        self, model: Model, rollout: Rollout, seed: int, skip_errors: bool = False, reuse: bool = True
    ) -> None:
        """`skip_errors`: skip unusable samples instead of raising (`data.on_error=skip`)."""
        self.model, self.rollout, self.seed, self.skip_errors = model, rollout, seed, skip_errors
        self.reuse = reuse
        """Whether computation that cannot change a step is skipped (`compute.reuse`)."""
        self.skipped: dict[str, None] = {}
        """One message per skipped sample, in the order in which they were met (an ordered set)."""
        self.step = 0
        self.version = 0
        self.scope = ""
        """The stage or evaluation that is running; part of every seed, so that their random numbers are independent."""
        self._metrics: dict[str, tuple[float, float]] = {}
        """(sum, count) by name, since the last `pop_metrics`."""
        self._totals: dict[str, float] = {}
        self._rollouts = 0
        """Rollouts of this step so far; part of the seed, so that a second one samples other replies."""
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Copies of the trainable weights on the CPU, by the name of the snapshot and of the parameter."""
        self.logprob_caches: dict[str, LogprobCache] = {}
        """By the name of a snapshot: the disk cache of its log-probs."""
        self._snapshot_hashes: dict[str, str] = {}

    # The `Context` protocol.

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, of: str = "policy") -> list[Sample]:
        self._rollouts += 1
        with self._weights_swapped(of):
            generated = self.rollout.generate(samples, n, sampling, self.seed_for(f"generate {self._rollouts}"))
        replies = [reply for sample in generated for reply in sample.replies if reply.origin == "policy"]
        self.count("rollouts", len(replies))
        self.count("generated_tokens", sum(len(reply.token_ids or ()) for reply in replies))
        return generated

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        if of not in self.logprob_caches:
            return self._compute_logp(samples, of)
        weights = self._snapshot_hash(of)

        def compute(missing: Sequence[Sample]) -> list[list[list[float]]]:
            return self._compute_logp(missing, of)

        return self.logprob_caches[of].get_or_compute(samples, lambda s: weights + self.model.cache_key(s), compute)

    def _compute_logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        flat: list[list[float]] = []
        with torch.no_grad(), self._weights_swapped(of):
            for batch in self.model.plan(samples, frozenset(), "reply"):
                logp = self.model(batch, frozenset({"logp"})).logp
                assert logp is not None
                flat += batch.by_reply(logp)
        rows = iter(flat)
        return [[next(rows) for _ in s.replies] for s in samples]

    def attention(self, samples: Sequence[Sample], layers: float = 1 / 3) -> list[list[Float[Tensor, "tok media"]]]:
        return self._generative_model().attention(samples, layers)

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        rows: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for batch in self.model.plan(samples, frozenset(), "group"):
                outputs = self.model(batch, frozenset({"embeddings"}))
                embeddings = {k: v.cpu() for k, v in outputs.embeddings.items()}
                present = {modality: batch.has(modality).tolist() for modality in embeddings}
                rows += [{k: v[i] for k, v in embeddings.items() if present[k][i]} for i in range(batch.samples)]
        return rows

    def class_logits(self, samples: Sequence[Sample]) -> Float[Tensor, "sample class"]:
        if isinstance(self.model, EmbeddingModel) and not self.model.num_classes:
            return torch.empty(len(samples), 0)
        rows = [torch.empty(0, 0)]
        with torch.no_grad():
            for batch in self.model.plan(samples, frozenset(), "group"):
                logits = self.model(batch, frozenset({"classes"})).classes
                assert logits is not None
                rows.append(logits.cpu())
        return torch.cat(rows[1:] or rows)

    def loss(self, samples: Sequence[Sample], objective: Objective) -> float:
        is_whole, columns = objective.unit == "batch", objective.required_columns
        with torch.no_grad():
            plan = self.model.plan(samples, columns, "group" if is_whole else objective.unit)
            parts = [(batch, self.model(batch, objective.required_outputs)) for batch in plan]
            if is_whole:
                return _loss_of_whole_step(objective, parts)
            local = objective.counts(self.model.counts_batch(samples, columns)) if samples else {}
            counts = {name: max(count, 1.0) for name, count in distributed.total(local).items()}
            # Terms are divided by counts over all ranks, so the parts of the ranks add up.
            return sum(distributed.gather(sum(float(objective(o, batch).total(counts)) for batch, o in parts)))

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        return self._generative_model().encode_reply(text, origin)

    def _generative_model(self) -> GenerativeModel:
        if not isinstance(self.model, GenerativeModel):
            raise ConfigError(
                f"wanted a model that writes replies, found {type(self.model).__name__}; choose a "
                "chat model, or a task without replies"
            )
        return self.model

    def rng(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed_for(name))

    def gather(self, values: Sequence[float]) -> list[float]:
        return [v for part in distributed.gather(list(values)) for v in part]

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        total, n = self._metrics.get(name, (0.0, 0.0))
        self._metrics[name] = (total + value, n + count)

    # For the trainer.

    def count(self, name: str, value: float) -> None:
        """Add to this step's `count/<name>`, a sum over the step and all ranks."""
        self._totals[name] = self._totals.get(name, 0.0) + value

    def seed_for(self, name: str, step: int | None = None) -> int:
        """A 56-bit seed that depends on the run's seed, the scope (stage or evaluation), the step and `name` only.

        `step`: by default the current one.
        """
        digest = hashlib.sha256(
            f"{self.seed}/{self.scope}/{self.step if step is None else step}/{name}".encode()
        ).digest()
        return int.from_bytes(digest[:7], "big")

    def fetch(self, source: Source, indices: Sequence[int]) -> list[Sample]:
        """Read samples and set their coordinate frames. Raises DataError for an unusable one, unless `skip_errors`.

        Skipped rows are counted (data/skipped_rows, a mean over ranks), reported once on stderr, and kept in `skipped`.
        """
        samples, skipped = [], 0
        for index in indices:
            try:
                sample = self.with_frame(source[index])
                if self.skip_errors:
                    # Otherwise a bad medium would raise in the middle of a step, where it can no longer be skipped.
                    self.model.validate(sample)
                samples.append(sample)
            except DataError as e:
                self.record_skipped(source, index, e)
                skipped += 1
        if self.skip_errors:
            self.log("data/skipped_rows", float(skipped))
        return samples

    def record_skipped(self, source: Source, index: int, error: DataError) -> str:
        """Record an unusable sample and return the message for it; without `skip_errors`, raise it as a DataError."""
        message = with_location(source, index, str(error))
        if not self.skip_errors:
            raise DataError(message) from error
        if message not in self.skipped:
            print(f"skipped (data.on_error=skip): {message}", file=sys.stderr)
        self.skipped.setdefault(message)
        return message

    def with_frame(self, sample: Sample) -> Sample:
        """The sample with the coordinate frame in which this model writes boxes and points for it."""
        frame = self.model.coordinate_frame(sample) if isinstance(self.model, GenerativeModel) else None
        return replace(sample, frame=frame)

    def pending_metrics(self) -> dict[str, list[float]]:
        """What this rank has logged and counted since the last `pop_metrics`, as plain data for `restore_metrics`."""
        counted = {f"count/{name}": [value] for name, value in self._totals.items()}
        return {name: list(pair) for name, pair in self._metrics.items()} | counted

    def restore_metrics(self, pending: Mapping[str, Sequence[float]]) -> None:
        """Set what `pending_metrics` returned, before an interruption."""
        self._metrics = {name: (row[0], row[1]) for name, row in pending.items() if len(row) == 2}
        self._totals = {name.removeprefix("count/"): row[0] for name, row in pending.items() if len(row) == 1}

    def pop_metrics(self) -> dict[str, float]:
        """Means over all ranks of what was logged since the last call, and sums of what was counted; resets them.

        Every rank must call it.
        """
        # Sums ("s" + name), counts ("n" + name) and totals ("t" + name) travel together, in one call.
        sums = distributed.total(
            {f"{side}{k}": v for k, pair in self._metrics.items() for side, v in zip("sn", pair, strict=True)}
            | {f"t{k}": v for k, v in self._totals.items()}
        )
        self._metrics, self._totals, self._rollouts = {}, {}, 0
        names = [k[1:] for k in sums if k[0] == "s"]
        means = {k: sums["s" + k] / sums["n" + k] for k in names if sums["n" + k]}
        return means | {f"count/{k[1:]}": v for k, v in sums.items() if k[0] == "t"}

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Add the seconds that its body takes to this step's `time/<name>` (a mean over ranks)."""
        start = time.perf_counter()
        yield
        # Unlike `log`, the seconds of several blocks add up instead of being averaged.
        total, _ = self._metrics.get(f"time/{name}", (0.0, 0.0))
        self._metrics[f"time/{name}"] = (total + time.perf_counter() - start, 1.0)

    @contextmanager
    def isolated(self, label: str) -> Iterator[None]:
        """Run its body without a trace in the run: metrics, seeds and torch's generators are restored afterwards.

        Evaluating more or less often thus changes no number of the training.
        """
        saved = (self._metrics, self._totals, self._rollouts, self.scope)
        self._metrics, self._totals, self._rollouts, self.scope = {}, {}, 0, label
        devices = list(range(torch.cuda.device_count()))
        try:
            with torch.random.fork_rng(devices):
                yield
        finally:
            self._metrics, self._totals, self._rollouts, self.scope = saved

    def snapshot_weights(self, name: str) -> None:
        """Copy the trainable weights as they are now to the CPU, under `name` (such as "reference")."""
        trainable = {k: p for k, p in self.model.module.named_parameters() if p.requires_grad}
        self._snapshot_hashes.pop(name, None)
        self.snapshots[name] = {k: p.detach().to("cpu", copy=True) for k, p in trainable.items()}

    def set_snapshot(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Store these weights (by parameter name) under `name`."""
        self._snapshot_hashes.pop(name, None)
        self.snapshots[name] = dict(weights)

    def add_trainable(self, name: str) -> None:
        """Add parameters that have become trainable since to a snapshot: they have not moved yet, so they still count.

        Raises ConfigError where a parameter of the snapshot is no longer in the module.
        """
        parameters = dict(self.model.module.named_parameters())
        gone = sorted(set(self.snapshots[name]) - set(parameters))
        if gone:
            raise ConfigError(
                f"the edits of stage {self.scope!r} renamed or removed {gone[0]}, which the reference weights from an "
                "earlier stage contain; use the start of this stage as the reference, or edit before that stage"
            )
        new = {k: p for k, p in parameters.items() if p.requires_grad and k not in self.snapshots[name]}
        if new:
            self.set_snapshot(
                name, {**self.snapshots[name], **{k: p.detach().to("cpu", copy=True) for k, p in new.items()}}
            )

    def _snapshot_hash(self, name: str) -> str:
        if name not in self._snapshot_hashes:
            digest = hashlib.sha256()
            for key, tensor in sorted(self.snapshots[name].items()):
                digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
            self._snapshot_hashes[name] = digest.hexdigest()
        return self._snapshot_hashes[name]

    @contextmanager
    def _weights_swapped(self, name: str) -> Iterator[None]:
        """Run its body under the weights of a snapshot; "policy" means the current ones."""
        if name == "policy":
            yield
            return
        assert name in self.snapshots, (
            f"no weights named {name!r}: a transform that uses them must declare it (`requires_reference`)"
        )
        policy = self._exchange_weights(self.snapshots[name])
        try:
            yield
        finally:
            self._exchange_weights(policy)

    def _exchange_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Write `weights` into the module in place, and return the values that they replaced."""
        before = {}
        with torch.no_grad():
            for name, p in self.model.module.named_parameters():
                if name in weights:
                    before[name] = p.detach().clone()
                    p.copy_(weights[name])
        return before


def _loss_of_whole_step(objective: Objective, parts: Sequence[tuple[Batch, Outputs]]) -> float:
    """The loss of an objective with unit "batch" on the micro-batches of all ranks together; 0 without any."""
    cpu = torch.device("cpu")
    local = [(on_device(replace(batch, inputs=None), cpu), detached_to(o, cpu)) for batch, o in parts]
    gathered = [pair for rank_parts in distributed.gather(local) for pair in rank_parts]
    if not gathered:
        return 0.0
    batches, outputs = [batch for batch, _ in gathered], [o for _, o in gathered]
    whole = concatenate(batches)
    counts = {name: max(count, 1.0) for name, count in objective.counts(whole).items()}
    joined = concatenated(by_micro_batch(outputs, batches), shared_scalars(outputs))
    return float(objective(joined, whole).total(counts))


def with_location(source: Source, index: int, text: str) -> str:
    """The message, preceded by the sample's location unless it names that already."""
    where = location(source, index)
    return text if where in text else f"{where}: {text}"


def location(source: Source, index: int) -> str:
    """Where a sample comes from (file and line, say) by the source's method `where`, else its index."""
    return source.where(index) if hasattr(source, "where") else f"sample {index}"  # type: ignore[attr-defined]
