"""Studies of the chest with drawn films: findings that come together as they do in clinics, and a report of them.

What a film shows is its own secret in `meta`; models see the film, and the reason for it as the indication.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from mmpost.data.formats.chest.sections import prompt_text
from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.chest.drawing import film
from mmpost.data.worlds.chest.reports import report
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

SIDES = ("right", "left")
ZONES = ("upper", "middle", "lower")
SIZES = ("small", "moderate", "large")
GRADES = ("mild", "moderate", "severe")

KEPT = 8192
"""Samples that a source keeps once they are drawn; a film takes 6 KB."""


@dataclass(frozen=True)
class Finding:
    """Something on the film; what a kind does not have (the zone of an effusion) is empty."""

    name: str
    side: str = ""
    zone: str = ""
    severity: str = ""


class Study(NamedTuple):
    """One patient's film before it is drawn."""

    findings: tuple[Finding, ...]
    view: str
    indication: str
    report: str


class Phantoms(Indexed):
    """`n` studies; sample i depends on the arguments and i alone, drawn on demand.

    The truth is the report. `meta` holds `findings` (a list of name, side, zone, severity), `view` (PA or AP) and
    `indication`. Raises ConfigError for an unknown split.
    """

    def __init__(self, split: Split = "train", n: int = 1000, seed: int = 0, size: int = 84) -> None:
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split must be train, val or test; found {split!r}; choose one of them")
        if size < 56:
            raise ConfigError(f"a film wants at least 56 pixels a side, found {size}; raise task.size")
        self.split: Split = split
        self.n, self.seed, self.size = n, seed, size
        self._made: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.n

    def study(self, index: int) -> Study:
        """What sample `index` shows, without drawing it."""
        rng = random.Random(f"study {self.split} {self.seed} {index}")
        why, find = rng.choices(REASONS, [reason[0] for reason in REASONS])[0][1:]
        findings = tuple({f.name: f for f in find(rng)}.values())
        ill = {f.name for f in findings} & {"endotracheal tube", "central line", "edema"}
        view = "AP" if rng.random() < (0.8 if ill else 0.15) else "PA"
        indication = rng.choice(why) if rng.random() < 0.8 else ""
        return Study(findings, view, indication, report(findings, rng))

    def sample(self, index: int) -> Sample:
        made = self._made.get(index) or self._sample(index)
        if len(self._made) < KEPT:
            self._made[index] = made
        return made

    def _sample(self, index: int) -> Sample:
        study = self.study(index)
        return Sample(
            uid=f"phantom-{self.split}-{self.seed}-{index}",
            prompt=(
                Part("image", media(self.film(index, study), "image")),
                Part("text", prompt_text(study.indication)),
            ),
            truth=study.report,
            meta=described(study),
        )

    def film(self, index: int, study: Study) -> Any:
        """The picture of a study."""
        return film(study.findings, study.view, self.size, random.Random(f"film {self.split} {self.seed} {index}"))


def described(study: Study) -> dict[str, Any]:
    """The study as plain data."""
    return {
        "findings": [asdict(f) for f in study.findings],
        "view": study.view,
        "indication": study.indication,
    }


def _side(rng: random.Random) -> str:
    return rng.choice(SIDES)


def _either(rng: random.Random) -> str:
    return rng.choice((*SIDES, "bilateral"))


def _size(rng: random.Random) -> str:
    return rng.choices(SIZES, (3, 2, 1))[0]


def _normal(rng: random.Random) -> list[Finding]:
    return []


def _failure(rng: random.Random) -> list[Finding]:
    found = [Finding("cardiomegaly", severity=rng.choice(GRADES))]
    if rng.random() < 0.6:
        found.append(Finding("edema", severity=rng.choice(GRADES)))
    if rng.random() < 0.5:
        found.append(Finding("pleural effusion", _either(rng), severity=_size(rng)))
    if rng.random() < 0.3:
        found.append(Finding("pacemaker", "left"))
    return found


def _infection(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    found = [Finding("consolidation", side, rng.choice(ZONES))]
    if rng.random() < 0.3:
        found.append(Finding("pleural effusion", side, severity=_size(rng)))
    return found


def _injury(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    found = [Finding("fracture", side)] if rng.random() < 0.7 else []
    if rng.random() < 0.6:
        found.append(Finding("pneumothorax", side, severity=_size(rng)))
    return found


def _tumour(rng: random.Random) -> list[Finding]:
    side = _side(rng)
    found = [Finding("nodule", side, rng.choice(ZONES))]
    if rng.random() < 0.25:
        found.append(Finding("pleural effusion", side, severity=_size(rng)))
    return found


def _intensive(rng: random.Random) -> list[Finding]:
    found = [Finding("central line", "right")] if rng.random() < 0.7 else []
    if rng.random() < 0.6:
        found.append(Finding("endotracheal tube"))
    if rng.random() < 0.4:
        found.append(Finding("atelectasis", _either(rng)))
    if rng.random() < 0.4:
        found.append(Finding("pleural effusion", _either(rng), severity=_size(rng)))
    if rng.random() < 0.2:
        found.append(Finding("pneumothorax", "right", severity="small"))
    return found


def _operation(rng: random.Random) -> list[Finding]:
    found = [Finding("atelectasis", _either(rng))] if rng.random() < 0.6 else []
    if rng.random() < 0.3:
        found.append(Finding("cardiomegaly", severity=rng.choice(GRADES[:2])))
    return found


REASONS: Sequence[tuple[float, tuple[str, ...], Callable[[random.Random], list[Finding]]]] = (
    (0.34, ("chest pain", "cough", "preoperative", "positive TB test", "dizziness"), _normal),
    (0.16, ("shortness of breath", "heart failure", "leg swelling"), _failure),
    (0.14, ("cough", "fever", "shortness of breath"), _infection),
    (0.12, ("fall", "trauma", "chest pain"), _injury),
    (0.08, ("weight loss", "cough", "lung cancer"), _tumour),
    (0.1, ("line placement", "intubated"), _intensive),
    (0.06, ("after surgery", "fever"), _operation),
)
"""Share of the studies, why films are taken, and what is found then."""
