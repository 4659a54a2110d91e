"""A source with blanked media: a control that shows which answers follow from the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmpost.data.media.media import media
from mmpost.data.sources.base import Wrapped
from mmpost.types import Part, Sample


class Blanked(Wrapped):
    """The samples of `source` with every medium in the prompt replaced by an uninformative one of the same size.

    Media whose modality defines no blank stay. Uids end in "/blank", so that caches do not confuse replies to the two.
    """

    def __init__(self, source: Sequence[Sample]) -> None:
        super().__init__(source)
        name = getattr(source, "name", None)
        self.name = f"{name}, media blanked" if name else "blanked media"

    def sample(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, uid=f"{sample.uid}/blank", prompt=tuple(_blank(part) for part in sample.prompt))


def _blank(part: Part) -> Part:
    medium = None if part.modality == "text" else media(part.value, part.modality).blank()
    return part if medium is None else Part(part.modality, medium, part.role)
