"""Synthetic chest X-ray studies: findings that co-occur as in clinical practice, an image, and a report.

The prompt holds the X-ray and the indication (reason for the examination); the true findings are in `meta`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from PIL import Image

from mmpost.data.formats.chest.sections import prompt_text
from mmpost.data.media.media import media
from mmpost.data.sources.base import Generated
from mmpost.data.worlds.chest.drawing import render_xray
from mmpost.data.worlds.chest.reports import report
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

SIDES = ("right", "left")
ZONES = ("upper", "middle", "lower")
SIZES = ("small", "moderate", "large")
GRADES = ("mild", "moderate", "severe")


@dataclass(frozen=True)
class Finding:
    """One finding; attributes that do not apply to it (the zone of an effusion) are empty."""

    name: str
    side: str = ""
    zone: str = ""
    severity: str = ""


class Study(NamedTuple):
    """One study before its X-ray is rendered."""

    findings: tuple[Finding, ...]
    view: str
    indication: str
    report: str


class SyntheticStudies(Generated):
    """`n` synthetic studies.

    The truth is the report. `meta` holds `findings` (a list of name, side, zone, severity), `view` (PA or AP) and
    `indication`. Raises ConfigError for an unknown split, and for images too small to show the findings.
    """

    uid_prefix = "phantom"
    cache_size = 8192  # an X-ray takes 6 KB

    def __init__(self, split: Split = "train", n: int = 1000, seed: int = 0, size: int = 84) -> None:
        """`size` is the side of the square X-ray in pixels."""
        super().__init__(split, n, seed)
        if size < 56:
            raise ConfigError(f"an X-ray needs at least 56 pixels a side, found {size}; raise task.size")
        self.size = size

    def study(self, index: int) -> Study:
        """The findings and the report of sample `index`, without rendering the X-ray."""
        rng = self.rng(index, "study")
        indications, sample_findings = rng.choices(SCENARIOS, [scenario[0] for scenario in SCENARIOS])[0][1:]
        findings = tuple({f.name: f for f in sample_findings(rng)}.values())
        bedridden = {f.name for f in findings} & {"endotracheal tube", "central line", "edema"}
        # Patients who cannot stand are imaged in bed, from front to back (AP).
        view = "AP" if rng.random() < (0.8 if bedridden else 0.15) else "PA"
        indication = rng.choice(indications) if rng.random() < 0.8 else ""
        return Study(findings, view, indication, report(findings, rng))

    def generate(self, index: int) -> Sample:
        study = self.study(index)
        return Sample(
            uid=self.uid(index),
            prompt=(
                Part("image", media(self.render(index, study), "image")),
                Part("text", prompt_text(study.indication)),
            ),
            truth=study.report,
            meta=study_metadata(study),
        )

    def render(self, index: int, study: Study) -> Image.Image:
        """The X-ray of `study`, with the pose and exposure of sample `index`."""
        return render_xray(study.findings, study.view, self.size, self.rng(index, "film"))


def study_metadata(study: Study) -> dict[str, Any]:
    """The study as plain data, for `Sample.meta`."""
    return {
        "findings": [asdict(f) for f in study.findings],
        "view": study.view,
        "indication": study.indication,
    }


def _side(rng: random.Random) -> str:
    return rng.choice(SIDES)


def _any_side(rng: random.Random) -> str:
    return rng.choice((*SIDES, "bilateral"))


def _size(rng: random.Random) -> str:
    return rng.choices(SIZES, (3, 2, 1))[0]


def _normal(rng: random.Random) -> list[Finding]:
    return []


def _heart_failure(rng: random.Random) -> list[Finding]:
    findings = [Finding("cardiomegaly", severity=rng.choice(GRADES))]
    if rng.random() < 0.6:
        findings.append(Finding("edema", severity=rng.choice(GRADES)))
    if rng.random() < 0.5:
        findings.append(Finding("pleural effusion", _any_side(rng), severity=_size(rng)))
    if rng.random() < 0.3:
        findings.append(Finding("pacemaker", "left"))
    return findings


def _infection(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    findings = [Finding("consolidation", side, rng.choice(ZONES))]
    if rng.random() < 0.3:
        findings.append(Finding("pleural effusion", side, severity=_size(rng)))
    return findings


def _injury(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    findings = [Finding("fracture", side)] if rng.random() < 0.7 else []
    if rng.random() < 0.6:
        findings.append(Finding("pneumothorax", side, severity=_size(rng)))
    return findings


def _tumor(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    findings = [Finding("nodule", side, rng.choice(ZONES))]
    if rng.random() < 0.25:
        findings.append(Finding("pleural effusion", side, severity=_size(rng)))
    return findings


def _intensive_care(rng: random.Random) -> list[Finding]:
    findings = [Finding("central line", "right")] if rng.random() < 0.7 else []
    if rng.random() < 0.6:
        findings.append(Finding("endotracheal tube"))
    if rng.random() < 0.4:
        findings.append(Finding("atelectasis", _any_side(rng)))
    if rng.random() < 0.4:
        findings.append(Finding("pleural effusion", _any_side(rng), severity=_size(rng)))
    if rng.random() < 0.2:
        findings.append(Finding("pneumothorax", "right", severity="small"))
    return findings


def _postoperative(rng: random.Random) -> list[Finding]:
    findings = [Finding("atelectasis", _any_side(rng))] if rng.random() < 0.6 else []
    if rng.random() < 0.3:
        findings.append(Finding("cardiomegaly", severity=rng.choice(GRADES[:2])))
    return findings


SCENARIOS: Sequence[tuple[float, tuple[str, ...], Callable[[random.Random], list[Finding]]]] = (
    (0.34, ("chest pain", "cough", "preoperative", "positive TB test", "dizziness"), _normal),
    (0.16, ("shortness of breath", "heart failure", "leg swelling"), _heart_failure),
    (0.14, ("cough", "fever", "shortness of breath"), _infection),
    (0.12, ("fall", "trauma", "chest pain"), _injury),
    (0.08, ("weight loss", "cough", "lung cancer"), _tumor),
    (0.1, ("line placement", "intubated"), _intensive_care),
    (0.06, ("after surgery", "fever"), _postoperative),
)
"""Clinical scenarios: fraction of all studies, possible indications, and a sampler of the findings."""
