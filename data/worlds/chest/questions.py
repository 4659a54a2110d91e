"""Multiple-choice questions about synthetic chest X-rays: view, presence, side and severity of findings.

A held-out skill: they measure what a model that is trained to write reports forgets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mmpost.data.media.media import media
from mmpost.data.sources.base import GeneratedQuestions
from mmpost.data.worlds.chest.studies import GRADES, SIZES, Study, SyntheticStudies, study_metadata
from mmpost.types import Part, Sample, Split

QUESTION_TYPES = ("view", "presence", "side", "severity")

Question = tuple[str, tuple[str, ...], str]
"""Question, options and the right option."""

NAMES = ("cardiomegaly", "pleural effusion", "pneumothorax", "consolidation", "nodule", "edema", "pacemaker")
"""Findings that questions about presence ask for."""

_STUDIES_PER_QUESTION = 64
"""Each question has a block of studies and uses the first that it applies to, so that no two share a study."""
_SEED_OFFSET = 500_000
"""Separates the studies of questions from those of reports with the same seed."""


class Questions(GeneratedQuestions):
    """Synthetic questions with alternating types, each about its own study.

    The truth is the text of the right option. `meta` holds the options as `choices`, the question type as `kind`, and
    the metadata of `SyntheticStudies`. Raises ConfigError for an unknown question type.
    """

    uid_prefix = "question"
    cache_size = SyntheticStudies.cache_size

    def __init__(
        self,
        split: Split = "train",
        question_types: Sequence[str] = QUESTION_TYPES,
        n: int = 1000,
        seed: int = 0,
        size: int = 84,
    ) -> None:
        super().__init__(split, n, seed + _SEED_OFFSET, question_types, QUESTION_TYPES)
        self.studies = SyntheticStudies(split, n=_STUDIES_PER_QUESTION * n, seed=self.seed, size=size)

    def generate(self, index: int) -> Sample:
        question_type = self.question_type(index)
        rng = self.rng(index, f"question {question_type}")
        study_index = _STUDIES_PER_QUESTION * index
        while (generated := _GENERATORS[question_type](self.studies.study(study_index), rng)) is None:
            study_index += 1
        question, options, answer = generated
        study = self.studies.study(study_index)
        text = f"{question} Options: {', '.join(options)}."
        return Sample(
            uid=f"{self.uid(index)}-{question_type}",
            prompt=(Part("image", media(self.studies.render(study_index, study), "image")), Part("text", text)),
            truth=answer,
            meta={
                **study_metadata(study),
                "kind": question_type,
                "question": question,
                "choices": list(options),
            },
        )


def _view(study: Study, rng: random.Random) -> Question:
    return "Which view is this?", ("PA", "AP"), study.view


def _presence(study: Study, rng: random.Random) -> Question:
    present = [f.name for f in study.findings if f.name in NAMES]
    absent = [name for name in NAMES if name not in present]
    name = rng.choice(present if present and rng.random() < 0.5 else absent)
    article = "a " if name in ("nodule", "pneumothorax", "pacemaker", "pleural effusion") else ""
    return f"Is there {article}{name}?", ("yes", "no"), "yes" if name in present else "no"


def _side(study: Study, rng: random.Random) -> Question | None:
    lateral = [f for f in study.findings if f.side and f.name not in ("pacemaker", "central line")]
    if not lateral:
        return None
    finding = rng.choice(lateral)
    return f"On which side is the {finding.name}?", ("right", "left", "bilateral"), finding.side


def _severity(study: Study, rng: random.Random) -> Question | None:
    graded = [f for f in study.findings if f.severity]
    if not graded:
        return None
    finding = rng.choice(graded)
    options = GRADES if finding.severity in GRADES and finding.name in ("cardiomegaly", "edema") else SIZES
    return f"How severe is the {finding.name}?", options, finding.severity


_GENERATORS: dict[str, Callable[[Study, random.Random], Question | None]] = {
    "view": _view,
    "presence": _presence,
    "side": _side,
    "severity": _severity,
}
"""By question type; None where the study has no finding to ask about."""
