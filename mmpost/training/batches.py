"""From a source to rollout batches: the order of samples, the transforms, refilling."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import torch

from mmpost.core import distributed
from mmpost.errors import ConfigError, TrainError
from mmpost.training.context import TrainingContext
from mmpost.types import RefillBatch, Sample, Source, Stage, Transform

EMPTY_ROUNDS = 20
"""Draws in a row that may leave nothing before the run stops."""


class RolloutBatcher:
    """Rollout batches of a stage; each rank gets its share of every draw."""

    def __init__(self, stage: Stage, job: TrainingContext) -> None:
        if not len(stage.source):
            raise ConfigError(f"stage {stage.name!r}: its source has no samples")
        self.stage, self.job = stage, job
        self.drawn = 0
        """Samples drawn so far, over all ranks: with the seed, all that the order needs."""
        self._orders: dict[int, list[int]] = {}
        self._ahead = PrefetchingSource(stage.source)

    def next(self) -> list[Sample]:
        """This rank's part of the next rollout batch, through all transforms; empty on some ranks at most."""
        for _ in range(EMPTY_ROUNDS):
            samples = self._round()
            if self.job.gather([float(len(samples))]) != [0.0] * distributed.world():
                return samples
        raise TrainError(
            f"stage {self.stage.name!r}: {EMPTY_ROUNDS} rollout batches in a row were empty after the transforms; "
            "look at what drops samples (groups with equal rewards?)"
        )

    def refetch(self, uids: Collection[str]) -> dict[str, Sample]:
        """Samples of the last rollout batch as they were drawn, by uid: for going on in the middle of one."""
        found: dict[str, Sample] = {}
        for number in range(self.drawn - 1, -1, -1):
            if len(found) == len(set(uids)):
                break
            # take() again leaves out what it left out before.
            found |= {s.uid: s for s in self.job.fetch(self.stage.source, [self._index(number)]) if s.uid in uids}
        return found

    def _round(self) -> list[Sample]:
        samples: list[Sample] | None = None
        pending: list[Transform] = []
        for item in (*self.stage.transforms, None):
            if isinstance(item, RefillBatch):
                samples = self._collect(item, pending)
                pending = []
            elif item is not None:
                pending.append(item)
        return self._through(self._draw() if samples is None else samples, pending)

    def _collect(self, marker: RefillBatch, transforms: Sequence[Transform]) -> list[Sample]:
        rank, world = distributed.rank(), distributed.world()
        wanted = marker.size // world + (rank < marker.size % world)
        found: list[Sample] = []
        for _ in range(marker.max_rounds):
            found += self._through(self._draw(), transforms)
            if all(self.job.gather([float(len(found) >= wanted)])):
                break
        self.job.log("collect/short", float(max(0, wanted - len(found))))
        return found[:wanted]

    def _through(self, samples: list[Sample], transforms: Sequence[Transform]) -> list[Sample]:
        for transform in transforms:
            with self.job.timer(transform.timer):
                samples = transform(samples, self.job)
        return samples

    def _draw(self) -> list[Sample]:
        samples = self.job.fetch(self._ahead, self._mine())
        self.drawn += self.stage.batch_size
        # While this batch is computed, the media of the next are read.
        self.job.model.prefetch(self._ahead.prefetch(self._mine()))
        return samples

    def _mine(self) -> list[int]:
        """Indices of this rank's share of the draw that comes next."""
        indices = [self._index(self.drawn + i) for i in range(self.stage.batch_size)]
        return indices[distributed.rank() :: distributed.world()]

    def _index(self, number: int) -> int:
        """The index of the number-th sample drawn: each pass has an order of its own, or that of the source."""
        size = len(self.stage.source)
        epoch, place = divmod(number, size)
        if self.stage.order == "given":
            return place
        if epoch not in self._orders:
            digest = hashlib.sha256(f"{self.job.seed}/{self.stage.name}/{epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            # A draw, and the one after it, may lie on both sides of an epoch's end.
            near = {e: order for e, order in self._orders.items() if abs(e - epoch) == 1}
            self._orders = near | {epoch: torch.randperm(size, generator=generator).tolist()}
        return self._orders[epoch][place]


class PrefetchingSource(Sequence[Sample]):
    """A source that can be read before its time: what a sample gave, or raised, comes out where it is asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._found: dict[int, Sample | Exception] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        found = self._found.pop(index) if index in self._found else self.source[index]
        if isinstance(found, Exception):
            raise found
        return found

    def prefetch(self, indices: Sequence[int]) -> list[Sample]:
        """Those of `indices` that can be read; they, and no others, are kept for when they are asked for."""
        self._found = {i: self._found[i] if i in self._found else self._try(i) for i in indices}
        return [s for s in self._found.values() if isinstance(s, Sample)]

    def _try(self, index: int) -> Sample | Exception:
        try:
            return self.source[index]
        except Exception as error:  # noqa: BLE001 - raised in its place, which the run may never reach
            return error
