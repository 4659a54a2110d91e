"""Annotations that reports draw over media: the places that a reply or the ground truth refers to.

Code that can read them from a sample registers a reader:

    @marks.register
    def spans(sample: Sample, reply: Reply | None) -> list[Mark]: ...

The run's log then holds the marks of every sample that the reader understands, and reports draw them. No report page,
listener or trainer needs to know what a box is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmpost.core.samples import Reply, Sample


@dataclass(frozen=True)
class Mark:
    """A place in a medium, in relative coordinates: 0 to 1 spans the width, height or duration."""

    shape: str
    """"box" (x1, y1, x2, y2), "point" (x, y) or "span" (start, end); reports print any other shape as text."""
    at: tuple[float, ...]
    medium: int = 0
    """Index of the medium among the media of the prompt."""
    label: str = ""


Reader = Callable[[Sample, "Reply | None"], Sequence[Mark]]
"""Returns the marks of a reply, or of the sample's truth where the reply is None; none for a sample it cannot read."""

_readers: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Add a reader; one of the same module and name is replaced. Usable as a decorator."""
    _readers[f"{reader.__module__}.{getattr(reader, '__qualname__', repr(reader))}"] = reader
    return reader


def marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """The marks that all readers find in `reply`, or in the truth where it is None."""
    return [mark for reader in _readers.values() for mark in reader(sample, reply)]
