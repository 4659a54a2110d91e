"""What sources of samples share: an index may be negative or a slice, and one that is too large says so."""

from __future__ import annotations

import operator
from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any, overload

from mmpost.types import Sample, Source


class Indexed(Sequence[Sample]):
    """A source that makes each sample when it is asked for; a subclass says `__len__` and `sample`."""

    name: str | None = None
    """What messages call the source."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample at `index`, which is at least 0 and less than the length."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.sample(i) for i in range(*index.indices(len(self)))]
        at = operator.index(index)
        at = at + len(self) if at < 0 else at
        if not 0 <= at < len(self):
            raise IndexError(f"sample {index} of {len(self)}" + (f" in {self.name}" if self.name else ""))
        return self.sample(at)


class Wrapped(Indexed):
    """The samples of another source, index by index; a subclass changes them in `sample`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def where(self, index: int) -> str:
        """The sample's place as the source calls it."""
        where = getattr(self.source, "where", None)
        return where(index) if where else f"sample {index}"


class Subset(Indexed):
    """Some samples of a source, by their indices there."""

    def __init__(self, source: Sequence[Sample], indices: Sequence[int]) -> None:
        self.source, self.indices = source, array("q", indices)
        self.name = f"a part of {getattr(source, 'name', None) or type(source).__name__}"

    def where(self, index: int) -> str:
        """Where a sample stands, as the messages of its source call it."""
        where = getattr(self.source, "where", None)
        return where(self.indices[index]) if where else f"sample {self.indices[index]}"

    def __len__(self) -> int:
        return len(self.indices)

    def medium(self, index: int, value: Any, kind: str) -> Any:
        """A medium that a row names in a column of its own, as the source finds it."""
        return self.source.medium(self.indices[index], value, kind)  # type: ignore[attr-defined]

    def sample(self, index: int) -> Sample:
        return self.source[self.indices[index]]
