"""Sentences about findings, worded as radiologists do, and reports composed of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mmpost.data.worlds.chest.drawing import FindingLike

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
"""Templates by finding."""

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
"""Templates for bilateral findings."""

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
"""Sentences that rule findings out, for reports in which none of the key's findings is present."""

ORDER = ("endotracheal tube", "central line", "pacemaker", "cardiomegaly", "edema", "consolidation", "nodule",
         "atelectasis", "pleural effusion", "pneumothorax", "fracture")  # fmt: skip
"""The usual order in a report."""

CLOSING = ("No acute disease", "No acute cardiopulmonary abnormality")
"""Closing sentences of a report without findings."""

THOROUGH = {"short": 0.25, "usual": 0.6, "full": 0.95}
"""Probability that an absent finding is mentioned, by the thoroughness of the report."""


def report(findings: Sequence[FindingLike], rng: random.Random) -> str:
    """Compose a report: every finding in a sentence, some negative findings, in roughly the usual order."""
    thoroughness = THOROUGH[rng.choices(tuple(THOROUGH), (0.25, 0.5, 0.25))[0]]
    present = {finding.name for finding in findings}
    sentences = [(ORDER.index(f.name), sentence(f, rng)) for f in findings]
    negated: set[str] = set()
    for names, templates in ABSENT.items():
        if not present & {*names, *_also_excluded(names)} and not set(names) <= negated and rng.random() < thoroughness:
            negated |= set(names)
            sentences.append((ORDER.index(names[0]), rng.choice(templates)))
    if rng.random() < 0.3:
        sentences = [(order + rng.uniform(-4, 4), text) for order, text in sentences]
    sentences.sort(key=lambda pair: pair[0])
    texts = [text for _, text in sentences]
    if not texts or (not findings and rng.random() < 0.3):
        texts.append(rng.choice(CLOSING) if not findings else "The mediastinum is normal")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


def _also_excluded(names: tuple[str, ...]) -> tuple[str, ...]:
    """Findings that rule out the sentence as well: "the lungs are clear" also denies fluid or air around them."""
    return ("pleural effusion", "pneumothorax") if "nodule" in names else ()


def sentence(finding: FindingLike, rng: random.Random) -> str:
    """Describe a finding in a random wording, without a full stop."""
    templates = BOTH if finding.side == "bilateral" else FINDINGS
    return rng.choice(templates[finding.name]).format(
        severity=finding.severity, side=finding.side, zone={"middle": "mid"}.get(finding.zone, finding.zone)
    )
