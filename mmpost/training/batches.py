"""Rollout batches: the order of the samples, the transforms, refilling, and which replies a step has to compute."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from mmpost.core import distributed
from mmpost.errors import ConfigError, TrainError
from mmpost.training.context import TrainingContext
from mmpost.types import Objective, RefillBatch, Reply, Sample, Source, Stage, Transform

Mask = list[list[bool]]
"""[sample][reply]"""

EMPTY_ROUNDS = 20
"""Rollout batches in a row that may be empty before the run fails."""


class RolloutBatcher:
    """Yields the rollout batches of a stage; each rank reads its own slice of every batch of indices.

    The order of samples is a pure function of (seed, stage name, epoch), so `drawn` is all the state there is.
    """

    def __init__(self, stage: Stage, context: TrainingContext) -> None:
        """Raises ConfigError for a source without samples."""
        if not len(stage.source):
            raise ConfigError(f"stage {stage.name!r}: its source has no samples")
        self.stage, self.context = stage, context
        self.drawn = 0
        """Samples read from the source so far, over all ranks and epochs."""
        self._epoch_orders: dict[int, list[int]] = {}
        self._source = PrefetchingSource(stage.source)

    def next(self) -> list[Sample]:
        """This rank's part of the next rollout batch after all transforms; it may be empty on some ranks, not on all.

        Raises TrainError where the transforms drop every sample of `EMPTY_ROUNDS` batches in a row.
        """
        for _ in range(EMPTY_ROUNDS):
            samples = self._rollout_batch()
            if self.context.gather([float(len(samples))]) != [0.0] * distributed.world():
                return samples
        raise TrainError(
            f"stage {self.stage.name!r}: {EMPTY_ROUNDS} rollout batches in a row were empty after the transforms; "
            "look at what drops samples (groups with equal rewards?)"
        )

    def refetch(self, uids: Collection[str]) -> dict[str, Sample]:
        """Samples of the last rollout batch by uid, as the source gives them, to resume in the middle of that batch."""
        samples: dict[str, Sample] = {}
        # Backwards, because the batch holds the samples read last; refilling may have read more than it holds.
        for position in range(self.drawn - 1, -1, -1):
            if len(samples) == len(set(uids)):
                break
            # fetch() skips again what it skipped the first time.
            fetched = self.context.fetch(self.stage.source, [self._source_index(position)])
            samples |= {s.uid: s for s in fetched if s.uid in uids}
        return samples

    def _rollout_batch(self) -> list[Sample]:
        samples: list[Sample] | None = None
        pending: list[Transform] = []
        for item in (*self.stage.transforms, None):
            if isinstance(item, RefillBatch):
                samples = self._refill(item, pending)
                pending = []
            elif item is not None:
                pending.append(item)
        return self._apply(pending, self._fetch_next() if samples is None else samples)

    def _refill(self, marker: RefillBatch, transforms: Sequence[Transform]) -> list[Sample]:
        """Repeat fetching and `transforms` until every rank has its part of `marker.size`, or rounds run out."""
        rank, world = distributed.rank(), distributed.world()
        target = marker.size // world + (rank < marker.size % world)
        collected: list[Sample] = []
        for _ in range(marker.max_rounds):
            collected += self._apply(transforms, self._fetch_next())
            # A rank that is full goes on until all are: transforms may communicate, so every rank must call them.
            if all(self.context.gather([float(len(collected) >= target)])):
                break
        self.context.log("resample/shortfall", float(max(0, target - len(collected))))
        return collected[:target]

    def _apply(self, transforms: Sequence[Transform], samples: list[Sample]) -> list[Sample]:
        for transform in transforms:
            with self.context.timer(transform.timer):
                samples = transform(samples, self.context)
        return samples

    def _fetch_next(self) -> list[Sample]:
        samples = self.context.fetch(self._source, self._next_indices())
        self.context.count("samples", len(samples))
        self.drawn += self.stage.batch_size
        # The media of the next batch are read while this one is computed.
        self.context.model.prefetch(self._source.prefetch(self._next_indices()))
        return samples

    def _next_indices(self) -> list[int]:
        """Source indices of this rank's slice of the next batch."""
        indices = [self._source_index(self.drawn + i) for i in range(self.stage.batch_size)]
        return indices[distributed.rank() :: distributed.world()]

    def _source_index(self, position: int) -> int:
        """The source index at a position in the stage's endless sequence of epochs."""
        size = len(self.stage.source)
        epoch, place = divmod(position, size)
        if self.stage.order == "given":
            return place
        if epoch not in self._epoch_orders:
            digest = hashlib.sha256(f"{self.context.seed}/{self.stage.name}/{epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            # A batch and the prefetched one after it may straddle the end of an epoch, so neighbors are kept.
            neighbors = {e: order for e, order in self._epoch_orders.items() if abs(e - epoch) == 1}
            self._epoch_orders = neighbors | {epoch: torch.randperm(size, generator=generator).tolist()}
        return self._epoch_orders[epoch][place]


class PrefetchingSource(Sequence[Sample]):
    """A source that can be read ahead. What reading an index gave, a sample or an error, appears when it is used."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._prefetched: dict[int, Sample | Exception] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        result = self._prefetched.pop(index) if index in self._prefetched else self.source[index]
        if isinstance(result, Exception):
            raise result
        return result

    def prefetch(self, indices: Sequence[int]) -> list[Sample]:
        """Read these indices, drop everything else that was prefetched, and return the samples that could be read."""
        self._prefetched = {i: self._prefetched[i] if i in self._prefetched else self._read(i) for i in indices}
        return [s for s in self._prefetched.values() if isinstance(s, Sample)]

    def _read(self, index: int) -> Sample | Exception:
        try:
            return self.source[index]
        except Exception as error:  # noqa: BLE001 - raised when the sample is used, which the run may never reach
            return error


def active_reply_mask(context: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> Mask:
    """Which replies of an optimizer step are computed: those that can have a gradient, and a few that cannot.

    `Objective.zero_gradient_mask` names the replies whose gradient is zero. Dropping them all could leave a parameter
    without a gradient, and an optimizer tells that from a zero gradient: it skips the parameter, instead of decaying
    its moments and its weight. For each modality that no active reply has, one idle reply (a short one) therefore
    stays, so that its encoder gets zeros. With `compute.reuse=off` and for objectives of a whole step, all are active.
    """
    if not context.reuse or objective.unit == "batch" or not any(s.replies for s in samples):
        return [[True] * len(s.replies) for s in samples]
    # The policy log-probs are not recorded yet; the mask may not depend on them.
    columns = objective.required_columns - objective.policy_logprob_columns
    idle = iter(objective.zero_gradient_mask(context.model.counts_batch(samples, columns)).tolist())
    active = [[not next(idle) for _ in s.replies] for s in samples]
    if objective.unit == "group":
        active = [[any(row)] * len(row) for row in active]
    places = [(i, j) for i, s in enumerate(samples) for j in range(len(s.replies))]
    covered = {
        modality for i, j in places if active[i][j] for modality in _modalities(samples[i], samples[i].replies[j])
    }

    def most_modalities_first(place: tuple[int, int]) -> tuple[int, int]:
        sample, reply = samples[place[0]], samples[place[0]].replies[place[1]]
        return -len(_modalities(sample, reply)), len(reply.token_ids or ())

    for i, j in sorted((p for p in places if not active[p[0]][p[1]]), key=most_modalities_first):
        modalities = _modalities(samples[i], samples[i].replies[j])
        if not modalities <= covered:
            covered |= modalities
            row = active[i]
            active[i] = [True] * len(row) if objective.unit == "group" else [*row[:j], True, *row[j + 1 :]]
    return active


def _modalities(sample: Sample, reply: Reply) -> set[str]:
    return {part.modality for part in (*sample.prompt, *reply.parts)} | {"text"}


def select_replies(samples: Sequence[Sample], mask: Mask) -> list[Sample]:
    """The samples with the replies of the mask. Samples that lose all replies are dropped; those without any stay."""
    selected = [
        replace(s, replies=tuple(r for r, active in zip(s.replies, row, strict=True) if active))
        for s, row in zip(samples, mask, strict=True)
    ]
    return [s for s, before in zip(selected, samples, strict=True) if s.replies or not before.replies]


def missing_columns(objective: Objective, samples: Sequence[Sample]) -> frozenset[str]:
    """The objective's policy log-prob columns that no transform has written on any of these samples."""
    written = {name for s in samples for owner in (s, *s.replies) for name in owner.columns}
    return objective.policy_logprob_columns - written


def record_policy_logprobs(context: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their policy log-prob columns, from a forward pass over the active replies.

    Must be called before the first update on the rollout batch, while the weights are still those that sampled it.
    """
    names = missing_columns(objective, samples)
    if not names:
        return list(samples)
    mask = active_reply_mask(context, objective, samples)
    logp = context.logp(select_replies(samples, mask), "policy")
    return write_columns(samples, mask, names, [row for sample in logp for row in sample])


def write_columns(
    samples: Sequence[Sample], mask: Mask, names: Collection[str], rows: Iterable[list[float]]
) -> list[Sample]:
    """Write log-probs into the columns `names` of the active replies.

    `rows` holds one list of per-token log-probs for each reply of the mask, in order. Idle replies get no column: an
    objective reads it only where a gradient can follow.
    """
    if not names:
        return list(samples)
    remaining = iter(rows)
    out = []
    for sample, row in zip(samples, mask, strict=True):
        replies = [
            replace(r, columns={**r.columns, **dict.fromkeys(names, next(remaining))}) if active else r
            for r, active in zip(sample.replies, row, strict=True)
        ]
        out.append(replace(sample, replies=tuple(replies)))
    return out
