"""What can be drawn over a medium: the places that an answer or a truth speaks of. Whoever can read them registers:

    @marks.register
    def spans(sample: Sample, reply: Reply | None) -> list[Mark]: ...

From then on the run's log holds the marks of every sample that this reader knows, and reports draw them: no page,
listener or trainer has to know what a box is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmpost.core.samples import Reply, Sample


@dataclass(frozen=True)
class Mark:
    """One place in a medium, free of any frame: 0 to 1 is the whole width, height or duration."""

    shape: str
    """"box" (x1, y1, x2, y2), "point" (x, y), "span" (start, end); reports show any other as words."""
    at: tuple[float, ...]
    medium: int = 0
    """Which of the prompt's media, counted from 0."""
    label: str = ""


Reader = Callable[[Sample, "Reply | None"], Sequence[Mark]]
"""The marks of a reply, or of the sample's truth where the reply is None; none where it does not know the sample."""

_readers: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Add a reader; the same module and name again replaces it."""
    _readers[f"{reader.__module__}.{getattr(reader, '__qualname__', repr(reader))}"] = reader
    return reader


def marks(sample: Sample, reply: Reply | None) -> list[Mark]:
    """What all readers find in `reply`, or in the truth."""
    return [mark for reader in _readers.values() for mark in reader(sample, reply)]
