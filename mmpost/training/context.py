"""The running job as transforms see it: a model, a rollout engine, numbers of the step, and random numbers."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from mmpost.core import distributed
from mmpost.errors import ConfigError, DataError
from mmpost.training.logprob_cache import LogprobCache
from mmpost.types import EmbeddingModel, GenerativeModel, Model, Origin, Reply, Rollout, Sample, Sampling, Source


class TrainingContext:
    """Implements `Context`."""

    def __init__(
        self, model: Model, rollout: Rollout, seed: int, skip_errors: bool = False, reuse: bool = True
    ) -> None:
        self.model, self.rollout, self.seed, self.skip_errors = model, rollout, seed, skip_errors
        self.reuse = reuse
        """Whether what cannot change a step is left out of its computation (`compute.reuse`)."""
        self.skipped: dict[str, None] = {}
        """What was said of each sample that was left out, the first first."""
        self.step = 0
        self.version = 0
        self.scope = ""
        self._numbers: dict[str, tuple[float, float]] = {}
        self._calls = 0
        """Rollouts of this step so far: a second one of the same samples draws other replies."""
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Weights by name, as they were when they were kept."""
        self.logprob_caches: dict[str, LogprobCache] = {}
        """By the name of kept weights: where their log-probs of the replies of the data are kept."""
        self._digests: dict[str, str] = {}

    # What transforms ask.

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling) -> list[Sample]:
        self._calls += 1
        return self.rollout.generate(samples, n, sampling, self.seed_for(f"generate {self._calls}"))

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        if of not in self.logprob_caches:
            return self._logp(samples, of)
        weights = self._digest(of)

        def compute(missing: Sequence[Sample]) -> list[list[list[float]]]:
            return self._logp(missing, of)

        return self.logprob_caches[of].get_or_compute(samples, lambda s: weights + self.model.cache_key(s), compute)

    def _logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        flat: list[list[float]] = []
        with torch.no_grad(), self._under(of):
            for batch in self.model.plan(samples, frozenset(), "reply"):
                logp = self.model(batch, frozenset({"logp"})).logp
                assert logp is not None
                flat += batch.by_reply(logp)
        rest = iter(flat)
        return [[next(rest) for _ in s.replies] for s in samples]

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for batch in self.model.plan(samples, frozenset(), "group"):
                made = {k: v.cpu() for k, v in self.model(batch, frozenset({"embeddings"})).embeddings.items()}
                there = {kind: batch.has(kind).tolist() for kind in made}
                found += [{k: v[i] for k, v in made.items() if there[k][i]} for i in range(batch.samples)]
        return found

    def class_logits(self, samples: Sequence[Sample]) -> Tensor:
        if isinstance(self.model, EmbeddingModel) and not self.model.num_classes:
            return torch.empty(len(samples), 0)
        rows = [torch.empty(0, 0)]
        with torch.no_grad():
            for batch in self.model.plan(samples, frozenset(), "group"):
                logits = self.model(batch, frozenset({"classes"})).classes
                assert logits is not None
                rows.append(logits.cpu())
        return torch.cat(rows[1:] or rows)

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        if not isinstance(self.model, GenerativeModel):
            raise ConfigError(
                f"wanted a model that writes replies, found {type(self.model).__name__}; choose a "
                "chat model, or a task without replies"
            )
        return self.model.encode_reply(text, origin)

    def rng(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed_for(name))

    def gather(self, values: Sequence[float]) -> list[float]:
        return [v for part in distributed.gather(list(values)) for v in part]

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        total, n = self._numbers.get(name, (0.0, 0.0))
        self._numbers[name] = (total + value, n + count)

    # What the trainer asks.

    def seed_for(self, name: str) -> int:
        """A seed that depends on the run's seed, the step, what the job is doing and `name`."""
        digest = hashlib.sha256(f"{self.seed}/{self.scope}/{self.step}/{name}".encode()).digest()
        return int.from_bytes(digest[:7], "big")

    def fetch(self, source: Source, indices: Sequence[int]) -> list[Sample]:
        """Samples of `source`, each with its frame. One that cannot be used raises DataError, or is left out (`skips`).

        What is left out is counted (data/skipped, a mean over ranks), told once, and kept in `skipped`.
        """
        samples, lost = [], 0
        for index in indices:
            try:
                samples.append(self._ready(source[index]))
            except DataError as e:
                self.record_skipped(source, index, e)
                lost += 1
        if self.skip_errors:
            self.log("data/skipped", float(lost))
        return samples

    def record_skipped(self, source: Source, index: int, error: DataError) -> str:
        """Keep in mind, and return, what is said of a sample that cannot be used; raises it unless the job skips."""
        told = with_location(source, index, str(error))
        if not self.skip_errors:
            raise DataError(told) from error
        if told not in self.skipped:
            print(f"skipped (data.on_error=skip): {told}", file=sys.stderr)
        self.skipped.setdefault(told)
        return told

    def _ready(self, sample: Sample) -> Sample:
        framed = self.with_frame(sample)
        if self.skip_errors:
            self.model.validate(framed)
        return framed

    def with_frame(self, sample: Sample) -> Sample:
        """`sample` with the frame in which the model writes coordinates for it."""
        frame = self.model.coordinate_frame(sample) if isinstance(self.model, GenerativeModel) else None
        return replace(sample, frame=frame)

    def pop_metrics(self) -> dict[str, float]:
        """Means of what was logged since the last call, over all ranks."""
        sums = distributed.total(
            {f"{side}{k}": v for k, pair in self._numbers.items() for side, v in zip("sn", pair, strict=True)}
        )
        self._numbers, self._calls = {}, 0
        names = [k[1:] for k in sums if k[0] == "s"]
        return {k: sums["s" + k] / sums["n" + k] for k in names if sums["n" + k]}

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Add the seconds of its body to `time/<name>` of this step (the mean over ranks)."""
        start = time.perf_counter()
        yield
        total, _ = self._numbers.get(f"time/{name}", (0.0, 0.0))
        self._numbers[f"time/{name}"] = (total + time.perf_counter() - start, 1.0)

    @contextmanager
    def isolated(self, label: str) -> Iterator[None]:
        """Work that must leave no trace in the run: its log, its place among the random numbers, torch's generators."""
        kept = (self._numbers, self._calls, self.scope)
        self._numbers, self._calls, self.scope = {}, 0, label
        devices = list(range(torch.cuda.device_count()))
        try:
            with torch.random.fork_rng(devices):
                yield
        finally:
            self._numbers, self._calls, self.scope = kept

    def snapshot_weights(self, name: str) -> None:
        """Remember what trains, as it is now, under `name` ("reference")."""
        trained = {k: p for k, p in self.model.module.named_parameters() if p.requires_grad}
        self._digests.pop(name, None)
        self.snapshots[name] = {k: p.detach().to("cpu", copy=True) for k, p in trained.items()}

    def set_snapshot(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Keep these weights, by parameter, under `name`."""
        self._digests.pop(name, None)
        self.snapshots[name] = dict(weights)

    def add_trainable(self, name: str) -> None:
        """Add to kept weights what has begun to train since: until now it has not moved.

        Raises ConfigError where what was kept has left the module.
        """
        now = dict(self.model.module.named_parameters())
        gone = sorted(set(self.snapshots[name]) - set(now))
        if gone:
            raise ConfigError(
                f"the edits of stage {self.scope!r} renamed or removed {gone[0]}, which the reference that an earlier "
                "stage left needs; refer to the start of the stage, or edit before that stage"
            )
        new = {k: p for k, p in now.items() if p.requires_grad and k not in self.snapshots[name]}
        if new:
            self.set_snapshot(
                name, {**self.snapshots[name], **{k: p.detach().to("cpu", copy=True) for k, p in new.items()}}
            )

    def _digest(self, name: str) -> str:
        """A hash of the weights that were kept under `name`."""
        if name not in self._digests:
            whole = hashlib.sha256()
            for key, tensor in sorted(self.snapshots[name].items()):
                whole.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
                whole.update(tensor.contiguous().view(torch.uint8).numpy().data)
            self._digests[name] = whole.hexdigest()
        return self._digests[name]

    @contextmanager
    def _under(self, name: str) -> Iterator[None]:
        if name == "policy":
            yield
            return
        assert name in self.snapshots, (
            f"no weights named {name!r}: a transform that asks for them says so (`reference`)"
        )
        now = self._swap(self.snapshots[name])
        try:
            yield
        finally:
            self._swap(now)

    def _swap(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        before = {}
        with torch.no_grad():
            for name, p in self.model.module.named_parameters():
                if name in weights:
                    before[name] = p.detach().clone()
                    p.copy_(weights[name])
        return before


def with_location(source: Source, index: int, text: str) -> str:
    """The message with the sample's place in front, if it does not name it."""
    where = location(source, index)
    return text if where in text else f"{where}: {text}"


def location(source: Source, index: int) -> str:
    """Where a sample stands, as its source calls it (`where`)."""
    return source.where(index) if hasattr(source, "where") else f"sample {index}"  # type: ignore[attr-defined]
