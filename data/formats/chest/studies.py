"""Chest film studies as samples: at most two films and the indication in the prompt, the report as the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mmpost.data.formats.chest.files import Filed, studies
from mmpost.data.formats.chest.sections import INDICATED, PROMPT, prompt_text
from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import media
from mmpost.data.readers.user_data import Own
from mmpost.data.sources.base import Indexed, Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample, Split

Section = Literal["findings", "impression", "both"]


class Studies(Indexed):
    """The studies of one split of an official set (report_files.py).

    Studies whose report lacks the section are left out where the list says so, and raise when they are drawn where the
    report is a file of its own. `meta` holds the indication and the views.
    """

    def __init__(
        self,
        folder: str,
        split: Split,
        section: Section = "findings",
        prompt: str = PROMPT,
        indicated: str = INDICATED,
        limits: Limits = DEFAULT,
    ) -> None:
        self.name, self.section, self.prompt, self.indicated, self.limits = folder, section, prompt, indicated, limits
        mine = [s for s in studies(folder) if s.split == split]
        self.studies = [s for s in mine if s.said is None or self._truth(s.said)]
        if not self.studies:
            raise DataError(f"{folder}: wanted studies of the split {split} with {section}, found none of {len(mine)}")

    def __len__(self) -> int:
        return len(self.studies)

    def where(self, index: int) -> str:
        """Where a study stands, as messages call it."""
        return self.studies[index].where

    def sample(self, index: int) -> Sample:
        study = self.studies[index]
        said = study.sections()
        truth = self._truth(said)
        if not truth:
            raise DataError(
                f"{study.where}: wanted a report with {self.section} at {study.report}, found the sections "
                f"{', '.join(said) or 'none'}; data.on_error=skip leaves such studies out"
            )
        return self._sample(study, truth, said.get("indication", ""))

    def _sample(self, study: Filed, truth: str, indication: str) -> Sample:
        films = [Part("image", media(path, "image", limits=self.limits)) for path in study.images]
        text = prompt_text(indication, self.prompt, self.indicated)
        meta = {"indication": indication, "views": list(study.views)}
        return Sample(study.uid, (*films, Part("text", text)), truth=truth, meta=meta)

    def _truth(self, said: Mapping[str, str]) -> str:
        names: Sequence[str] = ("findings", "impression") if self.section == "both" else (self.section,)
        return " ".join(said[name] for name in names if said.get(name))


class ReportRows(Wrapped):
    """The user's rows: films, and the report as the solution or the assistant's reply; `indication` where there is one.

    At most the first two films stay; a row's own question is asked as it stands. Raises DataError for a row without
    film or report.
    """

    def __init__(self, rows: Own, prompt: str = PROMPT, indicated: str = INDICATED) -> None:
        super().__init__(rows)
        self.prompt, self.indicated = prompt, indicated

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        said = row.truth if isinstance(row.truth, str) and row.truth.strip() else None
        report = said if said is not None else next((r.text for r in row.replies if r.text.strip()), "")
        films = [part for part in row.prompt if part.modality == "image"]
        if not films or not report.strip():
            raise DataError(
                f"{self.where(index)}: wanted an image and a report (`solution`, or an assistant's turn), found "
                f"{len(films)} images and {'a' if report.strip() else 'no'} report"
            )
        asked = [
            part for part in row.prompt if part.modality == "text" and part.role == "user" and part.value != UNASKED
        ]
        indication = str(row.meta.get("indication") or "")
        if not "".join(part.value for part in asked).strip():
            asked = [Part("text", prompt_text(indication, self.prompt, self.indicated))]
        system = [part for part in row.prompt if part.role == "system"]
        meta = {**row.meta, "indication": indication}
        return replace(row, prompt=(*system, *films[:2], *asked), replies=(), truth=report, meta=meta)


UNASKED = "{report}"
"""What rows without a question are read with (`own(..., prompt=UNASKED)`)."""
