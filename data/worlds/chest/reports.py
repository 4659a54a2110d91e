"""Sentences about drawn chest films, worded as radiologists do, and reports made of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mmpost.data.worlds.chest.drawing import Seen

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": (
        "The heart is {severity}ly enlarged",
        "There is {severity} cardiomegaly",
        "The cardiac silhouette is {severity}ly enlarged",
    ),
    "pleural effusion": (
        "There is a {severity} {side} pleural effusion",
        "{severity} {side} pleural effusion",
        "A {severity} pleural effusion is seen on the {side}",
    ),
    "pneumothorax": (
        "There is a {severity} {side} pneumothorax",
        "{severity} {side} pneumothorax",
        "A {severity} pneumothorax is seen on the {side}",
    ),
    "consolidation": (
        "There is consolidation in the {side} {zone} lung",
        "Focal opacity in the {side} {zone} lung",
        "{side} {zone} lung airspace opacity",
    ),
    "nodule": (
        "There is a nodule in the {side} {zone} lung",
        "{side} {zone} lung nodule",
        "A nodule is seen in the {side} {zone} lung",
    ),
    "atelectasis": (
        "There is {side} basilar atelectasis",
        "Atelectasis is seen at the {side} lung base",
        "{side} basilar atelectasis",
    ),
    "edema": ("There is {severity} pulmonary edema", "{severity} pulmonary edema"),
    "fracture": ("There is a {side} rib fracture", "{side} rib fracture", "A rib fracture is seen on the {side}"),
    "pacemaker": ("There is a left chest pacemaker", "A pacemaker is in place"),
    "central line": ("A right central line is in place", "Right central venous catheter in place"),
    "endotracheal tube": ("An endotracheal tube is in place", "The endotracheal tube is in good position"),
}
"""What may be said of a finding."""

BOTH: Mapping[str, tuple[str, ...]] = {
    "pleural effusion": (
        "There are {severity} bilateral pleural effusions",
        "{severity} bilateral pleural effusions",
        "{severity} pleural effusions are seen bilaterally",
    ),
    "atelectasis": (
        "There is bibasilar atelectasis",
        "Bibasilar atelectasis",
        "Atelectasis is seen at both lung bases",
    ),
}
"""The same of both sides."""

ABSENT: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("cardiomegaly",): (
        "The heart is normal in size",
        "Heart size is within normal limits",
        "The cardiac silhouette is normal",
    ),
    ("consolidation", "nodule", "atelectasis", "edema"): ("The lungs are clear", "Lungs are clear"),
    ("consolidation",): ("There is no focal consolidation", "No focal consolidation", "No airspace opacity"),
    ("pleural effusion", "pneumothorax"): (
        "There is no pleural effusion or pneumothorax",
        "No pleural effusion or pneumothorax",
        "No pneumothorax or pleural effusion is seen",
    ),
    ("pleural effusion",): ("There is no pleural effusion", "No pleural effusion", "No pleural effusion is seen"),
    ("pneumothorax",): ("There is no pneumothorax", "No pneumothorax", "No evidence of pneumothorax"),
    ("edema",): ("There is no pulmonary edema", "No pulmonary edema"),
    ("fracture",): ("The bones are intact", "No acute bony abnormality", "No rib fracture is seen"),
}
"""What may be said where none of these is there."""

ORDER = ("endotracheal tube", "central line", "pacemaker", "cardiomegaly", "edema", "consolidation", "nodule",
         "atelectasis", "pleural effusion", "pneumothorax", "fracture")  # fmt: skip
"""What is usually spoken of first."""

CLOSING = ("No acute disease", "No acute cardiopulmonary abnormality")
"""How the report of a film without findings may end."""

THOROUGH = {"short": 0.25, "usual": 0.6, "full": 0.95}
"""How often a thing that is not there is mentioned, by the manner of the report."""


def report(findings: Sequence[Seen], rng: random.Random) -> str:
    """Every finding in a sentence, and some of what is not there, in more or less the usual order."""
    often = THOROUGH[rng.choices(tuple(THOROUGH), (0.25, 0.5, 0.25))[0]]
    seen = {finding.name for finding in findings}
    said = [(ORDER.index(f.name), sentence(f, rng)) for f in findings]
    told: set[str] = set()
    for names, ways in ABSENT.items():
        if not seen & {*names, *_also(names)} and not set(names) <= told and rng.random() < often:
            told |= set(names)
            said.append((ORDER.index(names[0]), rng.choice(ways)))
    if rng.random() < 0.3:
        said = [(place + rng.uniform(-4, 4), text) for place, text in said]
    said.sort(key=lambda pair: pair[0])
    texts = [text for _, text in said]
    if not texts or (not findings and rng.random() < 0.3):
        texts.append(rng.choice(CLOSING) if not findings else "The mediastinum is normal")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


def _also(names: tuple[str, ...]) -> tuple[str, ...]:
    """Clear lungs are lungs without fluid or air around them."""
    return ("pleural effusion", "pneumothorax") if "nodule" in names else ()


def sentence(finding: Seen, rng: random.Random) -> str:
    """One of the ways to say it, without a full stop."""
    ways = BOTH if finding.side == "bilateral" else FINDINGS
    return rng.choice(ways[finding.name]).format(
        severity=finding.severity, side=finding.side, zone={"middle": "mid"}.get(finding.zone, finding.zone)
    )
