"""Curricula: samples sorted into stages by question type, with replay of earlier stages in later ones."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mmpost.data.sources.base import Indexed, Subset, Wrapped
from mmpost.data.sources.mix import Mix
from mmpost.errors import DataError
from mmpost.types import Sample, Source


class Typed(Indexed):
    """A source that knows a sample's question type, and its stage if the data give one, without opening its media."""

    @abstractmethod
    def question_type(self, index: int) -> str:
        """The question type of the sample at `index`."""

    def stage_of(self, index: int) -> str | int | None:
        """The stage that the data assign to the sample: a name, a number from 1, or None."""
        return None


class Curriculum(Wrapped):
    """The samples of `source`, each with the name of its stage in `meta["stage"]`.

    `stages` maps the name of each stage, in training order, to its question types. With `use_sample_stage`, a stage
    that the sample itself names takes precedence. Reading a sample that belongs to no stage raises DataError.
    """

    def __init__(self, source: Typed, stages: Mapping[str, Iterable[str]], use_sample_stage: bool = True) -> None:
        super().__init__(source)
        self.typed, self.use_sample_stage = source, use_sample_stage
        self.names = tuple(stages)
        self._stage = {_normalized(t): name for name, types in stages.items() for t in types}

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, meta={**sample.meta, "stage": self.stage_of(index)})

    def stage_of(self, index: int) -> str:
        """The name of a sample's stage."""
        stage = self.typed.stage_of(index) if self.use_sample_stage else None
        if stage is not None:
            return self._by_name_or_number(stage)
        question_type = self.typed.question_type(index)
        if _normalized(question_type) not in self._stage:
            raise DataError(
                f"wanted a question type that a stage names, found {question_type!r}; the stages have "
                f"{', '.join(self._stage)}: add it to one, or leave such rows out (data.on_error=skip)"
            )
        return self._stage[_normalized(question_type)]

    def _by_name_or_number(self, stage: str | int) -> str:
        known = {_normalized(name): name for name in self.names}
        known |= {str(number): name for number, name in enumerate(self.names, 1)}
        if _normalized(str(stage)) not in known:
            raise DataError(
                f"wanted a stage among {', '.join(self.names)} (or 1 to {len(self.names)}), found {stage!r}; correct "
                "it or let the question type decide (task.row_stage=false)"
            )
        return known[_normalized(str(stage))]

    def parts(self) -> dict[str, Source]:
        """The samples of each stage, by its name."""
        indices: dict[str, array[int]] = {name: array("q") for name in self.names}
        for index in range(len(self)):
            try:
                stage = self.stage_of(index)
            except DataError:
                # Kept in the first stage, so that reading it raises (or data.on_error skips and counts it).
                stage = self.names[0]
            indices[stage].append(index)
        return {name: Subset(self, places) for name, places in indices.items()}


def with_replay(parts: Mapping[str, Source], name: str, fraction: float) -> Source:
    """The samples of stage `name`, of which a `fraction` is replaced by samples of earlier stages.

    Earlier stages contribute in proportion to their sizes. Without earlier samples, or with a fraction of 0, the result
    is `parts[name]` itself.
    """
    earlier = [part for part in list(parts.values())[: list(parts).index(name)] if len(part)]
    total = sum(map(len, earlier))
    if not total or not fraction:
        return parts[name]
    return Mix([parts[name], *earlier], [1 - fraction, *(fraction * len(part) / total for part in earlier)])


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())
