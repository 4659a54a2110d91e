"""Tasks and what they consist of: sources, stages, evaluations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from mmpost.config.settings import DataSettings, Settings
from mmpost.core.plugins import Edit, Objective, RefillBatch, Transform, Update
from mmpost.core.samples import Origin, Sample, SampleRecord, Split

Source = Sequence[Sample]
"""Samples by index, made or read on demand; the same index always gives the same sample."""


@dataclass(frozen=True)
class Gold:
    """What a right reply is: the task's own word for it, against which `mmpost check` tries the rewards."""

    text: Callable[[Sample], str | None]
    """The reply, in the frame of the sample; None where the sample has no usable truth."""
    reward: float | None = None
    """The reward that every such reply must get; None: not declared, so it must only beat empty and junk replies."""
    name: str = "gold"
    origin: Origin = "data"
    """As whose reply it is scored."""
    is_parseable: Callable[[str], bool] | None = None
    """Whether the rewards can read this text at all; replies and gold that they cannot read are counted apart."""


class GeneratedDataset(Protocol):
    """What a stage that makes data recorded: samples with their replies, read when they are asked for."""

    @property
    def records(self) -> Sequence[SampleRecord]:
        """One for each sample of the stage's source, in its order, also for those that were lost."""
        ...

    def samples(self) -> Source:
        """Those that came through, with their replies, scores and columns."""
        ...


@dataclass(frozen=True)
class ReadsFrom:
    """How a stage gets its samples from what an earlier one recorded."""

    stage: str
    """An earlier stage without objective."""
    build: Callable[[Source, GeneratedDataset], Source]
    """From the stage's own source and the recording: what the stage draws from."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training; without an objective, one that makes data.

    A stage that makes data takes no steps: each sample of its source goes through the transforms once, and what comes
    out is recorded by uid in the run's folder, where later stages read it (`reads`).
    """

    name: str
    source: Source
    objective: Objective | None
    batch_size: int
    """Samples of one rollout batch, over all ranks; of a stage that makes data, those that are worked on together."""
    transforms: tuple[Transform | RefillBatch, ...] = ()
    num_iterations: int = 1
    """Passes over each rollout batch."""
    minibatches: int = 1
    """Optimiser steps per pass; cut between groups."""
    fraction: float = 1.0
    """Share of the run's steps, relative to the other stages."""
    edits: tuple[Edit, ...] = ()
    update: Update | None = None
    """None: AdamW with the settings of `optim`."""
    optim: Mapping[str, Any] = field(default_factory=dict)
    """This stage's changes to `optim`; the user's own settings win."""
    gold: tuple[Gold, ...] = ()
    """Right replies, the plainest first; for checks, probes and counts alone: training does not follow from them."""
    reference: str = ""
    """Which weights reference log-probs are of: those at the start of the stage, or at the end of the earlier stage of
    this name, or those of the model with this name or folder."""
    reference_sync: tuple[int, float] | None = None
    """(steps, share): every so many steps the reference moves this share of its way to the policy; None: it stays."""
    reads_from: ReadsFrom | None = None
    """Draw from what an earlier stage recorded; None: from the source as it is."""
    order: Literal["shuffled", "given"] = "shuffled"
    """Each pass over the source in an order of its own, or always in the source's."""

    @property
    def updates_per_batch(self) -> int:
        return self.num_iterations * self.minibatches


@dataclass(frozen=True)
class Bench:
    """An evaluation: samples, what is done to them, and the numbers that come out."""

    name: str
    source: Source
    transforms: tuple[Transform, ...]
    summary: Callable[[Sequence[Sample]], Mapping[str, float]]
    """Metrics of a set of scored samples; called again on resamples for intervals, so it must be cheap."""


class Task(Settings):
    """The plug-in: what is learnt, from what. Its fields are the `task:` section of the configuration."""

    data: DataSettings = DataSettings()
    """The run's `data:` section; a task reads from it what it can train on, besides its built-in data."""

    best_metric: ClassVar[str] = ""
    """The metric that tells which checkpoint is best, as "bench/metric", or "-bench/metric" where less is better."""

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stretches of training, made lazily and from the fields alone."""

    def benches(self, split: Split) -> list[Bench]:
        """Evaluations on `split` ("val" or "test")."""
        return []
