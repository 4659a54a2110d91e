"""Rule-based extraction of findings from radiology reports: presence, certainty, location and severity.

A report is split into sentences, and these into clauses. A clause holds finding names and cues. A cue applies forward
to the end of its clause ("no", "without", "possible") or backward to its beginning ("is not seen", "cannot be
excluded"); of several cues before a name, the nearest one decides. The method follows NegEx (Chapman et al. 2001), the
classes CheXpert (Irvin et al. 2019).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mmpost.judges.base import clean_text
from mmpost.judges.radiology.vocabulary import (
    ANY_FINDING,
    CHEXBERT_CLASSES,
    STATES,
    Sense,
    Vocabulary,
    chest_vocabulary,
    tokenize,
)

Status = Literal["present", "uncertain", "absent"]

_BREAK = re.compile(r"\n[ \t]*(?=[\n*\-•\dA-Z])")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\.\.+|;|\n+")
_FORWARD_CUES = ("rules_out", "doubts", "skips")
_BACKWARD_CUES = ("ruled_out", "doubted", "skipped")
_EITHER_DISTANCE = 7
"""Maximum number of words between "versus" and a finding that it makes uncertain."""


class Mention(NamedTuple):
    """One mention of a finding."""

    finding: str
    status: Status
    sides: frozenset[str] = frozenset()
    """Subset of left, right."""
    zones: frozenset[str] = frozenset()
    """Subset of upper, middle, lower."""
    levels: frozenset[int] = frozenset()
    """Severity: 1 mild, 2 moderate, 3 severe. "Small to moderate" is {1, 2}."""


@dataclass(frozen=True)
class Finding:
    """All mentions of a finding in a report, merged. Positive mentions take precedence over negative ones."""

    status: Status
    sides: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    levels: frozenset[int] = frozenset()

    @property
    def positive(self) -> bool:
        """Whether the finding is present or uncertain."""
        return self.status != "absent"


class _Attributes(NamedTuple):
    sides: frozenset[str]
    zones: frozenset[str]
    levels: frozenset[int]


class _Match(NamedTuple):
    """A vocabulary phrase at tokens [start, end)."""

    start: int
    end: int
    senses: tuple[Sense, ...]

    def targets(self, *roles: str) -> list[str]:
        return [sense.target for sense in self.senses if sense.role in roles]

    def has(self, *roles: str) -> bool:
        return any(sense.role in roles for sense in self.senses)


@dataclass(frozen=True)
class _Clause:
    """The matches in a clause, and the positions of its separators (commas, colons, and, with, or)."""

    matches: Sequence[_Match]
    separators: Sequence[int]
    names: Sequence[_Match] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", [match for match in self.matches if match.has("names")])


def extract_findings(text: str) -> dict[str, Finding]:
    """The findings in a report by name: the CheXbert classes except No Finding, and those that only the judge uses."""
    mentions: dict[str, list[Mention]] = {}
    for mention in extract_mentions(text):
        if mention.finding not in (ANY_FINDING, "No Finding"):
            mentions.setdefault(mention.finding, []).append(mention)
    return {name: _merge(of_finding) for name, of_finding in mentions.items()}


def chexbert_labels(text: str) -> dict[str, Status]:
    """The CheXbert classes of a report; classes that it does not mention are left out.

    No Finding is present if the report mentions any finding, and no class but Support Devices is present or uncertain.
    """
    if not any(extract_mentions(text)):
        return {}
    labels: dict[str, Status] = {
        name: finding.status for name, finding in extract_findings(text).items() if name in CHEXBERT_CLASSES
    }
    if all(status == "absent" for name, status in labels.items() if name != "Support Devices"):
        labels["No Finding"] = "present"
    return labels


def extract_mentions(text: str) -> Iterator[Mention]:
    """Every mention of a finding, in the order of the report's sentences."""
    for sentence in split_sentences(text):
        yield from _sentence_mentions(sentence)


def clean_report_lines(text: str) -> str:
    """Like `clean_text`, but keep line breaks that end a sentence: those before a blank line, a capital letter, a
    bullet or a digit. Other breaks only wrap the text.
    """
    return "\n".join(filter(None, map(clean_text, _BREAK.split(text))))


def split_sentences(text: str) -> list[str]:
    """The non-empty sentences of a report, stripped."""
    return [sentence for sentence in (part.strip() for part in _SENTENCE.split(text)) if sentence]


def _merge(mentions: Sequence[Mention]) -> Finding:
    positive = [m for m in mentions if m.status != "absent"]
    if not positive:
        return Finding("absent")
    status: Status = "present" if any(m.status == "present" for m in positive) else "uncertain"
    sides, zones = (frozenset().union(*(getattr(m, name) for m in positive)) for name in ("sides", "zones"))
    return Finding(status, sides, zones, frozenset().union(*(m.levels for m in positive)))


# Reports repeat the same sentences: half of the 24,000 in Open-i are duplicates.
@functools.lru_cache(maxsize=1 << 16)
def _sentence_mentions(sentence: str) -> tuple[Mention, ...]:
    vocabulary = chest_vocabulary()
    tokens = tokenize(sentence)
    matches: list[_Match] = []
    i = 0
    while i < len(tokens):
        length, senses = vocabulary.longest_match(tokens, i)
        if length:
            matches.append(_Match(i, i + length, senses))
        i += max(length, 1)
    mentions: list[Mention] = []
    for clause in _split_clauses(tokens, matches):
        mentions += _named_findings(clause, vocabulary)
        mentions += _anatomy_findings(clause, vocabulary)
    return tuple(mentions)


def _split_clauses(tokens: Sequence[str], matches: Sequence[_Match]) -> Iterator[_Clause]:
    """Cut at "ends" cues, and at separators between two verbs or before an opener."""
    match_at = {match.start: match for match in matches}
    verbs = [match.start for match in matches if match.has("verbs")]
    subjects = [match.start for match in matches if match.has("names", "anatomy")]
    commas = [i for i, token in enumerate(tokens) if token in (",", ":")]
    cuts = [0]
    separators = []
    for i, token in enumerate(tokens):
        if i in match_at and match_at[i].has("ends"):
            cuts.append(i)
        if token not in (",", ":", "and", "with", "or"):
            continue
        separators.append(i)
        subject = next((s for s in subjects if cuts[-1] <= s < i), None)
        if token == "or" or subject is None:
            continue
        next_comma = next((comma for comma in commas if comma > i), len(tokens))
        # "There is" and the like end the previous clause, and are the verb of the one that they begin.
        begins_with_verb = cuts[-1] in match_at and match_at[cuts[-1]].has("ends")
        verb_before = begins_with_verb or any(subject < v < i for v in verbs)
        between_verbs = verb_before and token != "with" and any(i < v < next_comma for v in verbs)
        following = match_at.get(i + 2 if tokens[i + 1 : i + 2] == ["and"] else i + 1)
        opener = following is not None and (following.has("openers") or (verb_before and following.has("sides")))
        if between_verbs or opener:
            cuts.append(i)
    for start, end in zip(cuts, [*cuts[1:], len(tokens)], strict=True):
        inside = [match for match in matches if start <= match.start < end]
        if inside:
            yield _Clause(inside, [s for s in separators if start < s < end])


def _status(clause: _Clause, start: int, end: int) -> Status | None:
    """Status of the finding at tokens [start, end) of a clause. None if the clause makes no statement about this
    patient's present state (history, recommendations, limits of the exam).
    """
    before = [match for match in clause.matches if match.end <= start and match.has(*_FORWARD_CUES)]
    after = next((match for match in clause.matches if match.start >= end and match.has(*_BACKWARD_CUES)), None)
    cue = before[-1] if before else None
    # "No definite effusion": a doubt directly after a negation belongs to it.
    if cue is not None and cue.has("doubts") and len(before) > 1 and before[-2].has("rules_out"):
        cue = before[-2] if before[-2].end == cue.start else cue
    if (cue is not None and cue.has("skips")) or (after is not None and after.has("skipped")):
        return None
    if (cue is not None and cue.has("rules_out")) or (after is not None and after.has("ruled_out")):
        return "absent"
    either = any(
        match.has("either")
        and (0 <= start - match.end <= _EITHER_DISTANCE or 0 <= match.start - end <= _EITHER_DISTANCE)
        for match in clause.matches
    )
    return "uncertain" if cue is not None or after is not None or either else "present"


def _named_findings(clause: _Clause, vocabulary: Vocabulary) -> Iterator[Mention]:
    """Findings that the clause names. In an enumeration, a name without a location inherits that of the one before."""
    previous_sides: frozenset[str] = frozenset()
    previous_zones: frozenset[str] = frozenset()
    for index, match in enumerate(clause.names):
        status = _status(clause, match.start, match.end)
        if status is None:
            continue
        start = _description_start(clause, index)
        stop = _description_start(clause, index + 1) if index + 1 < len(clause.names) else clause.matches[-1].end
        attributes = _attributes(clause.matches, start, stop)
        if index:
            attributes = attributes._replace(
                sides=attributes.sides or previous_sides, zones=attributes.zones or previous_zones
            )
        previous_sides, previous_zones = attributes.sides, attributes.zones
        for name in match.targets("names"):
            yield _mention(name, status, attributes, vocabulary)


def _description_start(clause: _Clause, index: int) -> int:
    """Start of the words that describe the index-th name: the last separator before it, else the end of the
    previous name."""
    if index == 0:
        return clause.matches[0].start
    previous_end, start = clause.names[index - 1].end, clause.names[index].start
    return max((s for s in clause.separators if previous_end <= s < start), default=previous_end)


def _anatomy_findings(clause: _Clause, vocabulary: Vocabulary) -> Iterator[Mention]:
    """Findings from anatomy that is called normal or abnormal, by the nearest such word (of two, the later one)."""
    for anatomy in clause.matches:
        for name in anatomy.targets("anatomy"):
            states = [
                match
                for match in clause.matches
                if match is not anatomy and any(s.role in STATES and s.target == name for s in match.senses)
            ]
            if not states:
                continue
            nearest = min(
                states,
                key=lambda m: m.start - anatomy.end if m.start >= anatomy.end else anatomy.start - m.end + 0.5,
            )
            state = next(s.role for s in nearest.senses if s.role in STATES and s.target == name)
            status = _status(clause, max(anatomy.start, nearest.start), max(anatomy.end, nearest.end))
            if state == "normal":
                yield Mention(name, "absent")
            elif status is not None:
                if state == "doubtful" and status == "present":
                    status = "uncertain"
                yield _mention(
                    name, status, _attributes(clause.matches, nearest.start - 3, nearest.end + 2), vocabulary
                )


def _attributes(matches: Sequence[_Match], start: int, stop: int) -> _Attributes:
    """Sides, zones and levels that are mentioned in tokens [start, stop)."""
    inside = [match for match in matches if start <= match.start < stop]
    sides = {side for match in inside for side in match.targets("sides")}
    return _Attributes(
        frozenset({"left", "right"} if "both" in sides else sides),
        frozenset(zone for match in inside for zone in match.targets("zones")),
        frozenset(int(level) for match in inside for level in match.targets("levels")),
    )


def _mention(name: str, status: Status, attributes: _Attributes, vocabulary: Vocabulary) -> Mention:
    """A mention with those of the attributes that apply to the finding; absent findings have none."""
    located = status != "absent" and name in vocabulary.sided
    graded = status != "absent" and name in vocabulary.graded
    return Mention(
        name,
        status,
        attributes.sides if located else frozenset(),
        attributes.zones if located else frozenset(),
        attributes.levels if graded else frozenset(),
    )


def format_findings(findings: Mapping[str, Finding]) -> str:
    """The findings on one line for display; "?" marks uncertain ones, "no" absent ones."""
    prefixes = {"present": "", "uncertain": "? ", "absent": "no "}
    return "; ".join(
        " ".join(
            [prefixes[f.status] + name, *sorted(f.sides), *sorted(f.zones), *(f"level {n}" for n in sorted(f.levels))]
        )
        for name, f in findings.items()
    )
