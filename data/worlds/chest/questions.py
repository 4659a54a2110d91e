"""Multiple-choice questions about drawn chest films: the view, what is there, on which side, how large.

What a model that writes reports should not forget while it is trained on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mmpost.data.media.media import media
from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.chest.studies import GRADES, KEPT, SIZES, Phantoms, Study, described
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

KINDS = ("view", "presence", "side", "severity")

Asked = tuple[str, tuple[str, ...], str]
"""Question, options and the right one."""

NAMES = ("cardiomegaly", "pleural effusion", "pneumothorax", "consolidation", "nodule", "edema", "pacemaker")
"""Findings whose presence is asked for."""


class Questions(Indexed):
    """`n` questions, kinds in turn, about studies of their own; sample i depends on the arguments and i alone.

    The truth is the text of the right option; `meta` holds the options as `choices` and the `kind`, besides what
    `Phantoms` say. Raises ConfigError for a kind that is unknown.
    """

    def __init__(
        self, split: Split = "train", kinds: Sequence[str] = KINDS, n: int = 1000, seed: int = 0, size: int = 84
    ) -> None:
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ConfigError(
                f"kinds must be some of {', '.join(KINDS)}; found {', '.join(unknown) or 'none'}; name only those"
            )
        # More studies than questions: each question takes the next that it can be asked of.
        self.kinds, self.n = tuple(kinds), n
        self._made: dict[int, Sample] = {}
        self.studies = Phantoms(split, n=64 * n, seed=seed + 500_000, size=size)

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int) -> Sample:
        made = self._made.get(index) or self._sample(index)
        if len(self._made) < KEPT:
            self._made[index] = made
        return made

    def _sample(self, index: int) -> Sample:
        kind = self.kinds[index % len(self.kinds)]
        rng = random.Random(f"question {kind} {self.studies.split} {self.studies.seed} {index}")
        place = 64 * index
        while (asked := _ASK[kind](self.studies.study(place), rng)) is None:
            place += 1
        question, options, answer = asked
        study = self.studies.study(place)
        text = f"{question} Options: {', '.join(options)}."
        return Sample(
            uid=f"question-{self.studies.split}-{self.studies.seed}-{index}-{kind}",
            prompt=(Part("image", media(self.studies.film(place, study), "image")), Part("text", text)),
            truth=answer,
            meta={**described(study), "kind": kind, "question": question, "choices": list(options)},
        )


def _view(study: Study, rng: random.Random) -> Asked:
    return "Which view is this?", ("PA", "AP"), study.view


def _presence(study: Study, rng: random.Random) -> Asked:
    there = [f.name for f in study.findings if f.name in NAMES]
    wanted = there if there and rng.random() < 0.5 else [name for name in NAMES if name not in there]
    name = rng.choice(wanted)
    article = "a " if name in ("nodule", "pneumothorax", "pacemaker", "pleural effusion") else ""
    return f"Is there {article}{name}?", ("yes", "no"), "yes" if name in there else "no"


def _side(study: Study, rng: random.Random) -> Asked | None:
    sided = [f for f in study.findings if f.side and f.name not in ("pacemaker", "central line")]
    if not sided:
        return None
    finding = rng.choice(sided)
    return f"On which side is the {finding.name}?", ("right", "left", "bilateral"), finding.side


def _severity(study: Study, rng: random.Random) -> Asked | None:
    graded = [f for f in study.findings if f.severity]
    if not graded:
        return None
    finding = rng.choice(graded)
    options = GRADES if finding.severity in GRADES and finding.name in ("cardiomegaly", "edema") else SIZES
    return f"How severe is the {finding.name}?", options, finding.severity


_ASK: dict[str, Callable[[Study, random.Random], Asked | None]] = {
    "view": _view,
    "presence": _presence,
    "side": _side,
    "severity": _severity,
}
