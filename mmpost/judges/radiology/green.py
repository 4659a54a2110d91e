"""GREEN (Ostmeier et al. 2024): a chat model lists the errors and matched findings of a radiology report.

Headers, the six category names and the layout are those that the released judge was trained to write. The rest of the
prompt is worded differently.
"""

from __future__ import annotations

import re
from typing import Literal

from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Pair, Verdict, clean_text
from mmpost.judges.chat_judge import JudgePrompt

CATEGORIES = (
    "False report of a finding in the candidate",
    "Missing a finding present in the reference",
    "Misidentification of a finding's anatomic location/position",
    "Misassessment of the severity of a finding",
    "Mentioning a comparison that isn't in the reference",
    "Omitting a comparison detailing a change from a prior study",
)
"""The error categories (a) to (f)."""
SECTIONS = ("Explanation", "Clinically Significant Errors", "Clinically Insignificant Errors", "Matched Findings")
MAX_WORDS = 300
"""Longer reports are cut to their first words."""

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


class Green(JudgePrompt):
    """GREEN's prompt and two parsers for the reply.

    `ours` is strict. The list of significant errors must have at least one line with a count (or say "No errors") and
    no other lines, and the number of matched findings must be stated; otherwise the reply is unparseable. `released`
    follows the released scorer: whatever is missing counts as 0, so a broken reply scores 0.
    """

    variant: Literal["ours", "released"] = "ours"
    """The parser: a malformed reply has no score with `ours`, and usually 0 with `released`."""
    clean: bool = True
    """Remove [spans] and **, and lowercase both reports first."""

    def messages(self, pair: Pair) -> Messages:
        texts = [clean_text(text) if self.clean else text for text in (pair.reference, pair.candidate)]
        reference, candidate = (" ".join(text.split()[:MAX_WORDS]) for text in texts)
        lettered = list(zip("abcdef", CATEGORIES, strict=True))
        lines = "\n".join(f"({x}) {name}: <number of errors>. <error 1>; ...; <error n>" for x, name in lettered)
        categories = "\n".join(f"({x}) {name}" for x, name in lettered)
        layout = _LAYOUT.format(lines=lines)
        text = _PROMPT.format(categories=categories, reference=reference, candidate=candidate, layout=layout)
        return [{"role": "user", "content": text}]

    def parse(self, reply: str) -> Verdict:
        counts = _parse_released(reply) if self.variant == "released" else _parse_strict(reply)
        if counts is None:
            return Verdict(None, "unparseable", raw_reply=reply)
        errors = sum(counts[f"significant/{x}"] for x in "abcdef")
        return Verdict(green_score(counts["matched"], errors), counts=counts, raw_reply=reply)


def green_score(matched: float, errors: float) -> float:
    """Matched / (matched + significant errors); 0 without matched findings."""
    return matched / (matched + errors) if matched else 0.0


def split_sections(reply: str) -> dict[str, str]:
    """The text below each of the four headers, whatever their spacing. A repeated header's last section counts."""
    headers = list(_HEADER.finditer(reply))
    if not headers:
        return {}
    ends = [header.start() for header in headers[1:]] + [len(reply)]
    texts = {
        header[1].strip().title(): reply[header.end() : end].strip() for header, end in zip(headers, ends, strict=True)
    }
    return {name: texts[name] for name in SECTIONS if name in texts}


def _parse_strict(reply: str) -> dict[str, float] | None:
    """All counts, or None if one of those that enter the score is ambiguous."""
    sections = split_sections(reply.replace("\r\n", "\n"))
    significant = _count_errors(sections.get("Clinically Significant Errors", ""))
    matched = _count_matched(sections.get("Matched Findings", ""))
    if significant is None or matched is None:
        return None
    # Insignificant errors are only logged, so a malformed list of them costs no score.
    insignificant = _count_errors(sections.get("Clinically Insignificant Errors", ""))
    counts = {f"significant/{x}": n for x, n in significant.items()}
    counts |= {f"insignificant/{x}": n for x, n in (insignificant or dict.fromkeys("abcdef", 0.0)).items()}
    return {**counts, "matched": matched}


def _count_matched(text: str) -> float | None:
    """The number of matched findings; None if none is stated, or several are."""
    if _NONE.match(text) and not re.search(r"\d", text):
        return 0.0
    item_numbers = [int(item[1]) for item in map(_ITEM.match, text.splitlines()) if item]
    if len(item_numbers) > 1:
        # Several lines that begin with a number: only a list numbered 1, 2, 3, ... has an unambiguous count.
        return float(len(item_numbers)) if item_numbers == list(range(1, len(item_numbers) + 1)) else None
    number = _MATCHED.match(text)
    return float(number[1]) if number else None


def _count_errors(text: str) -> dict[str, float] | None:
    """Number of errors by category. None if there are no lines, or if any line has no category, has no count or
    repeats a category. "No errors" means 0 in all categories, unless counts follow.
    """
    if _NONE.match(text) and not re.search(r"\d", text) and not any(map(_LINE.match, text.splitlines())):
        return dict.fromkeys("abcdef", 0.0)
    counts = dict.fromkeys("abcdef", 0.0)
    seen: set[str] = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LINE.match(line)
        if match is None:
            return None
        letter, rest = match.groups()
        name = letter if letter in counts else "abcdef"[int(letter) - 1]
        number = _COUNT.search(rest)
        none = _NONE.match(rest.rpartition(":")[2].strip())
        if name in seen or not (number or none):
            return None
        seen.add(name)
        counts[name] = float(number[1]) if number else 0.0
    return counts if seen else None


def _parse_released(reply: str) -> dict[str, float]:
    """Counts as the released scorer reads them: a section ends at the first empty line; what cannot be parsed is 0."""
    counts: dict[str, float] = {}
    for prefix, section in (("significant", SECTIONS[1]), ("insignificant", SECTIONS[2])):
        text = _until_blank(reply, section)
        marks = "abcdef" if re.search(r"\([a-f]\) ", text) else "123456"
        # The released scorer sorts the lines; if a category repeats, the last line in that order counts.
        lines = sorted(re.findall(rf"\([{marks[0]}-{marks[-1]}]\) .*", text))
        for letter, mark in zip("abcdef", marks, strict=True):
            numbers = [re.search(r"(?<=: )\b\d+\b(?=\.)", line) for line in lines if line.startswith(f"({mark}) ")]
            counts[f"{prefix}/{letter}"] = float(([0.0] + [float(n[0]) for n in numbers if n])[-1])
    matched = re.match(r"\d+\b(?=\.)", _until_blank(reply, SECTIONS[3]))
    return {**counts, "matched": float(matched[0]) if matched else 0.0}


def _until_blank(reply: str, section: str) -> str:
    match = re.search(rf"\[{section}\]:\s*(.*?)(?:\n\s*\n|\Z)", reply, re.DOTALL)
    return "" if match is None or match[1].startswith("No") else match[1]
