"""What a task is made of: sources of samples, stages of training, evaluations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from mmpost.config.settings import DataSettings, Settings
from mmpost.core.plugins import Edit, FunctionTransform, Objective, RefillBatch, Transform, Update
from mmpost.core.samples import Origin, Sample, SampleRecord, Split

Source = Sequence[Sample]
"""Samples by index, generated or read on demand; the same index always gives the same sample."""


@dataclass(frozen=True)
class Gold:
    """What a correct reply looks like: `mmpost check` runs the rewards on it. Training does not depend on it."""

    text: Callable[[Sample], str | None]
    """The reply, in the coordinate frame of the sample; None where the sample has no usable truth."""
    reward: float | Callable[[Sample], float] | None = None
    """The reward that every such reply must get, or what it is for a sample; None: undeclared, so it must only beat
    empty and junk replies."""
    name: str = "gold"
    origin: Origin = "data"
    """The origin under which it is scored: some rewards treat an injected truth differently."""
    is_parseable: Callable[[str], bool] | None = None
    """Whether the rewards can parse a text at all; unparseable replies and gold are counted separately in the log."""


class GeneratedDataset(Protocol):
    """The output of a data-generation stage, read lazily."""

    @property
    def source(self) -> Source:
        """The stage's source, from an earlier stage's output if it read one."""
        ...

    @property
    def records(self) -> Sequence[SampleRecord]:
        """One record per sample of the stage's source, in its order, including those that were dropped."""
        ...

    def samples(self) -> Source:
        """The samples that were not dropped, with their replies, scores and columns. Raises DataError if there are
        none."""
        ...


def _generated(source: Source, dataset: GeneratedDataset) -> Source:
    return dataset.samples()


@dataclass(frozen=True)
class ReadsFrom:
    """How a stage gets its samples from an earlier data-generation stage."""

    stage: str
    """The name of the earlier stage."""
    build: Callable[[Source, GeneratedDataset], Source] = _generated
    """Makes this stage's samples from its own source and the generated dataset; by default those of the dataset."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training or, without an objective, a data-generation stage.

    A data-generation stage takes no optimizer steps: each sample of its source goes through the transforms once, and
    the result is recorded by uid in the run's folder, where later stages read it (`reads_from`).
    """

    name: str
    source: Source
    objective: Objective | None
    batch_size: int
    """Samples per rollout batch, over all ranks; in a data-generation stage, samples processed at a time."""
    transforms: tuple[Transform | RefillBatch, ...] = ()
    """Applied in order to each rollout batch; plain functions of (samples, context) are accepted, too."""
    num_iterations: int = 1
    """Passes over each rollout batch."""
    minibatches: int = 1
    """Optimizer steps per pass; minibatches are split between groups."""
    fraction: float = 1.0
    """Weight of this stage when the run's steps are divided among its stages."""
    edits: tuple[Edit, ...] = ()
    update: Update | None = None
    """None: the optimizer that `optim` names, by default AdamW."""
    optim: Mapping[str, Any] = field(default_factory=dict)
    """Changes to `optim` for this stage; the user's own settings take precedence."""
    gold: tuple[Gold, ...] = ()
    """Correct replies, the plainest first; used by checks, probes and counters only."""
    reference: str = ""
    """Weights of the reference model: empty for those at the start of the stage, the name of an earlier stage for those
    at its end, or the name or folder of a model."""
    reference_sync: tuple[int, float] | None = None
    """(n, alpha): every n steps the reference moves by the fraction alpha towards the policy (TR-DPO); None: fixed."""
    reads_from: ReadsFrom | None = None
    """Train on the output of a data-generation stage; None: on the source."""
    order: Literal["shuffled", "given"] = "shuffled"
    """Reshuffle the source for each pass over it, or keep its order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", _as_transforms(self.transforms))


@dataclass(frozen=True)
class Bench:
    """An evaluation: samples, transforms applied to them, and the metrics computed from the result."""

    name: str
    source: Source
    transforms: tuple[Transform, ...]
    summary: Callable[[Sequence[Sample]], Mapping[str, float]]
    """Metrics of a set of scored samples; called again on every bootstrap resample, so it must be cheap."""
    earlier_knowledge: str = ""
    """For a bench that measures what the model knew before this training: the metric that says how well, with a minus
    in front where lower is better. A run that lowers it says so at its end."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", _as_transforms(self.transforms))


def _as_transforms(steps: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(step if isinstance(step, Transform | RefillBatch) else FunctionTransform(step) for step in steps)


class Task(Settings):
    """What is learned, from which data. A task's fields are the `task:` section of the configuration."""

    data: DataSettings = DataSettings()
    """The run's `data:` section; where a split is empty, a task uses its built-in data."""

    best_metric: ClassVar[str] = ""
    """The metric that selects the best checkpoint: "bench/metric", or "-bench/metric" where lower is better."""

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stages, yielded lazily and as a pure function of the fields: resuming calls it again."""

    def benches(self, split: Split) -> list[Bench]:
        """Evaluations on `split` ("val" or "test")."""
        return []

    def notes(self) -> Sequence[str]:
        """What readers of a result must know of how it came about, such as a stand-in for a model; reports show it."""
        return ()
