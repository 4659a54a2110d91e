"""The phrases of a kind of report, read from a YAML file (`chest.yaml` says what its parts mean)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

CHEXBERT = (
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
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five that CheXpert competitions score."""
ANYTHING = "anything"
"""What "no acute abnormality" rules out."""
STATES = ("abnormal", "doubtful", "normal")
"""What anatomy may be said to be."""

_WORD = re.compile(r"\d+\.\d+|[a-z0-9]+|[,:()]")


def words(text: str) -> list[str]:
    """Words in lower case and in the singular, commas, colons and brackets."""
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes")) else word[:-1]


@dataclass(frozen=True)
class Sense:
    """One thing that a phrase says: its sort ("name", "anatomy", "abnormal", "normal", a cue, ...) and of what."""

    sort: str
    of: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """Phrases by their first word, the longest first."""

    phrases: Mapping[str, Sequence[tuple[tuple[str, ...], tuple[Sense, ...]]]]
    findings: tuple[str, ...]
    """All that have a name, in the file's order."""
    sided: frozenset[str]
    graded: frozenset[str]

    def at(self, tokens: Sequence[str], i: int) -> tuple[int, tuple[Sense, ...]]:
        """Length and senses of the longest phrase that begins at token `i`; 0 where none does."""
        for phrase, senses in self.phrases.get(tokens[i], ()):
            if tuple(tokens[i : i + len(phrase)]) == phrase:
                return len(phrase), senses
        return 0, ()


@functools.lru_cache(maxsize=1)
def chest() -> Vocabulary:
    """The vocabulary of chest X-ray reports."""
    return build(yaml.safe_load(resources.files("mmpost.judges.radiology").joinpath("chest.yaml").read_text()))


def build(data: Mapping[str, Any]) -> Vocabulary:
    """A vocabulary from what stands in the file."""
    senses: dict[tuple[str, ...], dict[Sense, None]] = {}
    for phrase, sense in _senses(data):
        senses.setdefault(tuple(words(phrase)), {})[sense] = None
    table: dict[str, list[tuple[tuple[str, ...], tuple[Sense, ...]]]] = {}
    for phrase in sorted(senses, key=len, reverse=True):
        table.setdefault(phrase[0], []).append((phrase, tuple(senses[phrase])))
    findings = {**data["classes"], **data["more"]}
    return Vocabulary(
        table,
        tuple(findings),
        frozenset(name for name, part in findings.items() if part.get("sided")),
        frozenset(name for name, part in findings.items() if part.get("graded")),
    )


def _senses(data: Mapping[str, Any]) -> Iterator[tuple[str, Sense]]:
    for finding, part in {**data["classes"], **data["more"]}.items():
        for sort in ("names", "anatomy", *STATES):
            yield from ((phrase, Sense(sort, finding)) for phrase in part.get(sort, ()))
    yield from ((phrase, Sense("names", ANYTHING)) for phrase in data["anything"])
    for sort in ("sides", "zones", "levels"):
        for of, phrases in data[sort].items():
            yield from ((phrase, Sense(sort, str(of))) for phrase in phrases)
    for cue, phrases in data["cues"].items():
        yield from ((phrase, Sense(cue)) for phrase in phrases)
