"""Samples of several types, cut into the stages of a curriculum, with earlier stages mixed into later ones."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mmpost.data.sources.base import Indexed, Wrapped
from mmpost.data.sources.mix import Mix
from mmpost.errors import DataError
from mmpost.types import Sample, Source


class Typed(Indexed):
    """A source that can tell the type of a sample, and its own word for its stage, without opening its media."""

    @abstractmethod
    def type_of(self, index: int) -> str:
        """The type of the sample at `index`."""

    def stage_of(self, index: int) -> str | int | None:
        """What the sample itself says of its stage; None where it does not."""
        return None


class Curriculum(Wrapped):
    """The samples of `source`, each with the name of its stage in `meta["stage"]`.

    `stages`: names of the stages in order, with the types of each. Where `own`, what a sample itself says of its stage
    (a name, or a number from 1) comes first. Raises DataError for a sample that belongs to no stage.
    """

    def __init__(self, source: Typed, stages: Mapping[str, Iterable[str]], own: bool = True) -> None:
        super().__init__(source)
        self.typed, self.own = source, own
        self.names = tuple(stages)
        self._stage = {_plain(kind): name for name, kinds in stages.items() for kind in kinds}

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, meta={**sample.meta, "stage": self.stage_of(index)})

    def stage_of(self, index: int) -> str:
        """The name of a sample's stage."""
        said = self.typed.stage_of(index) if self.own else None
        if said is not None:
            return self._named(said)
        kind = self.typed.type_of(index)
        if _plain(kind) not in self._stage:
            raise DataError(
                f"wanted a type of question that a stage names, found {kind!r}; the stages have "
                f"{', '.join(self._stage)}: add it to one, or leave such rows out (data.on_error=skip)"
            )
        return self._stage[_plain(kind)]

    def _named(self, said: str | int) -> str:
        by_word = {**{_plain(name): name for name in self.names}, **{str(i): n for i, n in enumerate(self.names, 1)}}
        if _plain(str(said)) not in by_word:
            raise DataError(
                f"wanted a stage among {', '.join(self.names)} (or 1 to {len(self.names)}), found {said!r}; correct it "
                "or let the type of question decide (task.row_stage=false)"
            )
        return by_word[_plain(str(said))]

    def parts(self) -> dict[str, Source]:
        """The samples of each stage. One that belongs to none, or cannot be read, raises when the first is drawn."""
        found: dict[str, array[int]] = {name: array("q") for name in self.names}
        for index in range(len(self)):
            try:
                stage = self.stage_of(index)
            except DataError:
                stage = self.names[0]
            found[stage].append(index)
        return {name: Chosen(self, indices) for name, indices in found.items()}


class Chosen(Wrapped):
    """Some samples of a source, by their indices there."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def where(self, index: int) -> str:
        return super().where(self.indices[index])

    def sample(self, index: int) -> Sample:
        return self.source[self.indices[index]]


def replayed(parts: Mapping[str, Source], name: str, share: float) -> Source:
    """The samples of stage `name`; a `share` of them are of the stages before it, each by its size.

    Without earlier stages that have samples, or with a share of 0, it is the part itself.
    """
    earlier = [part for part in list(parts.values())[: list(parts).index(name)] if len(part)]
    whole = sum(map(len, earlier))
    if not whole or not share:
        return parts[name]
    return Mix([parts[name], *earlier], [1 - share, *(share * len(part) / whole for part in earlier)])


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
