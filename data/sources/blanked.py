"""A source with its media taken away: what is still right was read from the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.types import Part, Sample


class Blanked(Indexed):
    """The samples of `source` with every medium in the prompt replaced by one of the same sizes that says nothing.

    Media of a kind without such a thing stay. Uids end in "/blank", so that replies to one are not taken for replies to
    the other.
    """

    def __init__(self, source: Sequence[Sample]) -> None:
        self.source = source
        name = getattr(source, "name", None)
        self.name = f"{name}, media blanked" if name else "blanked media"

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, uid=f"{sample.uid}/blank", prompt=tuple(_silent(part) for part in sample.prompt))


def _silent(part: Part) -> Part:
    blank = None if part.modality == "text" else media(part.value, part.modality).blank()
    return part if blank is None else Part(part.modality, blank, part.role)
