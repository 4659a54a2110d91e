"""GREEN (Ostmeier et al. 2024): a model lists errors and matched findings of a radiology report; the score is a share.

The headers, the names of the six categories and the layout are those that the released judge was trained to write; the
words around them are our own.
"""

from __future__ import annotations

import re
from typing import Literal

from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Pair, Verdict, cleaned, ratio
from mmpost.judges.chat_judge import Form

CATEGORIES = (
    "False report of a finding in the candidate",
    "Missing a finding present in the reference",
    "Misidentification of a finding's anatomic location/position",
    "Misassessment of the severity of a finding",
    "Mentioning a comparison that isn't in the reference",
    "Omitting a comparison detailing a change from a prior study",
)
"""The errors (a) to (f)."""
SECTIONS = ("Explanation", "Clinically Significant Errors", "Clinically Insignificant Errors", "Matched Findings")
WORDS = 300
"""Of each report, as many words from its beginning."""

_LAYOUT = """[Explanation]:
<what you compared>

[Clinically Significant Errors]:
{lines}

[Clinically Insignificant Errors]:
{lines}

[Matched Findings]:
<number of matched findings>. <finding 1>; <finding 2>; ...; <finding n>"""

_PROMPT = """You check a radiology report (the candidate) against one by experts (the reference). Findings count, \
style does not.

Count the candidate's errors, first those that matter clinically, then those that do not, by category:
{categories}
Count also the findings on which both reports agree.

Reference Report:
{reference}

Candidate Report:
{candidate}

Answer in exactly this layout. Write all six lines in both lists, with the number 0 where there is no error:
{layout}"""

_HEADER = re.compile(r"^[ \t#*]*\[([^\]\n]+)\][ \t]*:?[ \t*]*", re.MULTILINE)
_LINE = re.compile(r"[*\- ]*\(([a-f1-6])\)(.*)")
_COUNT = re.compile(r":[ \t*]*(\d{1,3})[ \t*]*(?:\.|$)")
_MATCHED = re.compile(r"[ \t*]*(\d{1,3})[ \t*]*(?:\.|$)")
_ITEM = re.compile(r"[ \t*]*(\d{1,3})[.)]")
_NONE = re.compile(r"None\b|No\W*$|No (?:\w+ ){0,3}(?:errors?|findings?|matches)\b", re.IGNORECASE)


class Green(Form):
    """GREEN's question and how its answer is read.

    `ours` wants both counts said: the list of significant errors with at least one line that has a number (or a
    sentence such as "No errors"), no other line, and the matched findings; else the answer is unparseable.
    `released` reads as the released scorer does: what is missing counts 0, so an unparseable answer scores 0.
    """

    variant: Literal["ours", "released"] = "ours"
    """Whether an answer that cannot be read has no score, or 0."""
    clean: bool = True
    """Take [spans], ** and capitals out of both reports first."""

    def messages(self, pair: Pair) -> Messages:
        texts = [cleaned(text) if self.clean else text for text in (pair.reference, pair.candidate)]
        reference, candidate = (" ".join(text.split()[:WORDS]) for text in texts)
        letters = list(zip("abcdef", CATEGORIES, strict=True))
        lines = "\n".join(f"({x}) {name}: <number of errors>. <error 1>; ...; <error n>" for x, name in letters)
        named = "\n".join(f"({x}) {name}" for x, name in letters)
        layout = _LAYOUT.format(lines=lines)
        text = _PROMPT.format(categories=named, reference=reference, candidate=candidate, layout=layout)
        return [{"role": "user", "content": text}]

    def read(self, said: str) -> Verdict:
        counts = _released(said) if self.variant == "released" else _strict(said)
        if counts is None:
            return Verdict(None, "unparseable", said=said)
        errors = sum(counts[f"significant/{x}"] for x in "abcdef")
        return Verdict(ratio(counts["matched"], errors), counts=counts, said=said)


def sections(said: str) -> dict[str, str]:
    """The text below each of the four headers, however it is spaced; of a header that comes twice, the last."""
    found = list(_HEADER.finditer(said))
    if not found:
        return {}
    ends = [after.start() for after in found[1:]] + [len(said)]
    texts = {match[1].strip().title(): said[match.end() : end].strip() for match, end in zip(found, ends, strict=True)}
    return {name: texts[name] for name in SECTIONS if name in texts}


def _strict(said: str) -> dict[str, float] | None:
    """All counts, or None where the answer leaves one in doubt."""
    parts = sections(said.replace("\r\n", "\n"))
    significant = _errors(parts.get("Clinically Significant Errors", ""))
    agreed = _agreed(parts.get("Matched Findings", ""))
    if significant is None or agreed is None:
        return None
    insignificant = _errors(parts.get("Clinically Insignificant Errors", ""))
    counts = {f"significant/{x}": n for x, n in significant.items()}
    counts |= {f"insignificant/{x}": n for x, n in (insignificant or dict.fromkeys("abcdef", 0.0)).items()}
    return {**counts, "matched": agreed}


def _agreed(text: str) -> float | None:
    """How many findings both reports have; None where no number is said, or more than one."""
    if _NONE.match(text) and not re.search(r"\d", text):
        return 0.0
    begun = [int(found[1]) for found in map(_ITEM.match, text.splitlines()) if found]
    if len(begun) > 1:
        # A numbered list is as long as its last number, where it is one.
        return float(len(begun)) if begun == list(range(1, len(begun) + 1)) else None
    number = _MATCHED.match(text)
    return float(number[1]) if number else None


def _errors(text: str) -> dict[str, float] | None:
    """Errors by category; None where there is no line, one is no category's, one has no number, or one comes twice.

    "No errors" is none at all, unless counts follow.
    """
    if _NONE.match(text) and not re.search(r"\d", text) and not any(map(_LINE.match, text.splitlines())):
        return dict.fromkeys("abcdef", 0.0)
    counts = dict.fromkeys("abcdef", 0.0)
    seen: set[str] = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LINE.match(line)
        if found is None:
            return None
        letter, rest = found.groups()
        name = letter if letter in counts else "abcdef"[int(letter) - 1]
        number = _COUNT.search(rest)
        none = _NONE.match(rest.rpartition(":")[2].strip())
        if name in seen or not (number or none):
            return None
        seen.add(name)
        counts[name] = float(number[1]) if number else 0.0
    return counts if seen else None


def _released(said: str) -> dict[str, float]:
    """As the released scorer counts: a section ends at the first empty line, and what cannot be read is 0."""
    counts: dict[str, float] = {}
    for prefix, section in (("significant", SECTIONS[1]), ("insignificant", SECTIONS[2])):
        text = _until_blank(said, section)
        marks = "abcdef" if re.search(r"\([a-f]\) ", text) else "123456"
        # The scorer sorts the lines; of two lines of one category the later in that order counts.
        lines = sorted(re.findall(rf"\([{marks[0]}-{marks[-1]}]\) .*", text))
        for letter, mark in zip("abcdef", marks, strict=True):
            numbers = [re.search(r"(?<=: )\b\d+\b(?=\.)", line) for line in lines if line.startswith(f"({mark}) ")]
            counts[f"{prefix}/{letter}"] = float(([0.0] + [float(n[0]) for n in numbers if n])[-1])
    matched = re.match(r"\d+\b(?=\.)", _until_blank(said, SECTIONS[3]))
    return {**counts, "matched": float(matched[0]) if matched else 0.0}


def _until_blank(said: str, section: str) -> str:
    found = re.search(rf"\[{section}\]:\s*(.*?)(?:\n\s*\n|\Z)", said, re.DOTALL)
    return "" if found is None or found[1].startswith("No") else found[1]
