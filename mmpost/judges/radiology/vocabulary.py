"""The phrases that reports use, read from a YAML file (`chest.yaml` documents the format)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

CHEXBERT_CLASSES = (
    *(
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
    ),
    *("Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding"),
)
"""The fourteen classes, in CheXbert's order."""
COMPETITION_CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five classes that CheXpert competitions score."""
ANY_FINDING = "anything"
"""The pseudo-finding that phrases such as "acute abnormality" name."""
STATES = ("abnormal", "doubtful", "normal")
"""How a report may describe anatomy."""

_WORD = re.compile(r"\d+\.\d+|[a-z0-9]+|[,:()]")


def tokenize(text: str) -> list[str]:
    """Lowercase words in the singular, numbers, commas, colons and parentheses."""
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes")) else word[:-1]


@dataclass(frozen=True)
class Sense:
    """One meaning of a phrase."""

    role: str
    """A finding's "names" or "anatomy", one of STATES, "sides", "zones", "levels", or the name of a cue."""
    target: str = ""
    """The finding, side, zone or level; empty for cues."""


@dataclass(frozen=True)
class Vocabulary:
    """The phrases and their senses."""

    phrases: Mapping[str, Sequence[tuple[tuple[str, ...], tuple[Sense, ...]]]]
    """Tokenized phrases with their senses by first token, the longest phrase first."""
    findings: tuple[str, ...]
    """Names of all findings, in the order of the file."""
    sided: frozenset[str]
    """Findings that have a side and a zone."""
    graded: frozenset[str]
    """Findings that have a severity."""

    def longest_match(self, tokens: Sequence[str], i: int) -> tuple[int, tuple[Sense, ...]]:
        """Length in tokens and senses of the longest phrase that begins at token `i`; (0, ()) if there is none."""
        for phrase, senses in self.phrases.get(tokens[i], ()):
            if tuple(tokens[i : i + len(phrase)]) == phrase:
                return len(phrase), senses
        return 0, ()


@functools.lru_cache(maxsize=1)
def chest_vocabulary() -> Vocabulary:
    """The vocabulary of chest X-ray reports."""
    return build_vocabulary(
        yaml.safe_load(resources.files("mmpost.judges.radiology").joinpath("chest.yaml").read_text())
    )


def build_vocabulary(data: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary in the parsed contents of a file."""
    senses: dict[tuple[str, ...], dict[Sense, None]] = {}
    for phrase, sense in _senses(data):
        senses.setdefault(tuple(tokenize(phrase)), {})[sense] = None
    phrases: dict[str, list[tuple[tuple[str, ...], tuple[Sense, ...]]]] = {}
    for phrase in sorted(senses, key=len, reverse=True):
        phrases.setdefault(phrase[0], []).append((phrase, tuple(senses[phrase])))
    findings = {**data["classes"], **data["more"]}
    return Vocabulary(
        phrases,
        tuple(findings),
        frozenset(name for name, part in findings.items() if part.get("sided")),
        frozenset(name for name, part in findings.items() if part.get("graded")),
    )


def _senses(data: Mapping[str, Any]) -> Iterator[tuple[str, Sense]]:
    for finding, part in {**data["classes"], **data["more"]}.items():
        for role in ("names", "anatomy", *STATES):
            yield from ((phrase, Sense(role, finding)) for phrase in part.get(role, ()))
    yield from ((phrase, Sense("names", ANY_FINDING)) for phrase in data["anything"])
    for role in ("sides", "zones", "levels"):
        for target, phrases in data[role].items():
            yield from ((phrase, Sense(role, str(target))) for phrase in phrases)
    for cue, phrases in data["cues"].items():
        yield from ((phrase, Sense(cue)) for phrase in phrases)
