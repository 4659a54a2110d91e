"""Chest X-ray studies as samples: at most two images and the indication in the prompt, the report as the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mmpost.data.formats.chest.files import StudyFiles, studies
from mmpost.data.formats.chest.sections import INDICATED, PROMPT, prompt_text
from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import media
from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Indexed, Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample, Split

Section = Literal["findings", "impression", "both"]


class Studies(Indexed):
    """The studies of one split of an official collection (`files.py`).

    Studies whose report lacks the section are skipped if the table holds the reports; if reports are separate files,
    such studies raise DataError when they are read. `meta` holds the indication and the views.
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
        in_split = [s for s in studies(folder) if s.split == split]
        self.studies = [s for s in in_split if s.report_sections is None or self._truth(s.report_sections)]
        if not self.studies:
            raise DataError(
                f"{folder}: wanted studies of the split {split} with {section}, found none of {len(in_split)}"
            )

    def __len__(self) -> int:
        return len(self.studies)

    def where(self, index: int) -> str:
        """File and row of a study, for messages."""
        return self.studies[index].where

    def sample(self, index: int) -> Sample:
        study = self.studies[index]
        sections = study.sections()
        truth = self._truth(sections)
        if not truth:
            raise DataError(
                f"{study.where}: wanted a report with {self.section} at {study.report}, found the sections "
                f"{', '.join(sections) or 'none'}; data.on_error=skip leaves such studies out"
            )
        return self._sample(study, truth, sections.get("indication", ""))

    def _sample(self, study: StudyFiles, truth: str, indication: str) -> Sample:
        images = [Part("image", media(path, "image", limits=self.limits)) for path in study.images]
        text = prompt_text(indication, self.prompt, self.indicated)
        meta = {"indication": indication, "views": list(study.views)}
        return Sample(study.uid, (*images, Part("text", text)), truth=truth, meta=meta)

    def _truth(self, sections: Mapping[str, str]) -> str:
        names: Sequence[str] = ("findings", "impression") if self.section == "both" else (self.section,)
        return " ".join(sections[name] for name in names if sections.get(name))


class ReportRows(Wrapped):
    """Rows of the user: images, the report as solution or assistant reply, and optionally an `indication`.

    At most the first two images are used; a row with its own question keeps it. Reading a row without an image or
    report raises DataError.
    """

    def __init__(self, rows: UserData, prompt: str = PROMPT, indicated: str = INDICATED) -> None:
        super().__init__(rows)
        self.prompt, self.indicated = prompt, indicated

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        solution = row.truth if isinstance(row.truth, str) and row.truth.strip() else None
        report = solution if solution is not None else next((r.text for r in row.replies if r.text.strip()), "")
        images = [part for part in row.prompt if part.modality == "image"]
        if not images or not report.strip():
            raise DataError(
                f"{self.where(index)}: wanted an image and a report (`solution`, or an assistant's turn), found "
                f"{len(images)} images and {'a' if report.strip() else 'no'} report"
            )
        question = [
            part for part in row.prompt if part.modality == "text" and part.role == "user" and part.value != NO_QUESTION
        ]
        indication = str(row.meta.get("indication") or "")
        if not "".join(part.value for part in question).strip():
            question = [Part("text", prompt_text(indication, self.prompt, self.indicated))]
        system = [part for part in row.prompt if part.role == "system"]
        meta = {**row.meta, "indication": indication}
        return replace(row, prompt=(*system, *images[:2], *question), replies=(), truth=report, meta=meta)


NO_QUESTION = "{report}"
"""Prompt that marks rows without a question: `user_data(..., prompt=NO_QUESTION)`."""
