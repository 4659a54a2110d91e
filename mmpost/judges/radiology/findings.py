"""What a radiology report says of each finding: there or not or perhaps, where, how much. Rules, no model.

A report is cut into sentences and these into clauses; a clause holds names of findings and cues. A cue reaches forward
to the end of its clause (no, without, possible) or backward to its beginning (is not seen, cannot be excluded), and the
nearest one before a name decides. The idea is NegEx's (Chapman et al. 2001), the classes CheXpert's (Irvin 2019).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mmpost.judges.radiology.vocabulary import ANYTHING, CHEXBERT, STATES, Sense, Vocabulary, chest, words

Status = Literal["present", "uncertain", "absent"]

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\.\.+|;|\n+")
_BEFORE = ("rules_out", "doubts", "skips")
_AFTER = ("ruled_out", "doubted", "skipped")
_NEAR = 7
"""Most words between "versus" and what it puts in doubt."""


class Mention(NamedTuple):
    """One thing said of one finding."""

    finding: str
    status: Status
    sides: frozenset[str] = frozenset()
    """Of left, right."""
    zones: frozenset[str] = frozenset()
    """Of upper, middle, lower."""
    levels: frozenset[int] = frozenset()
    """1 mild, 2 moderate, 3 severe; "small to moderate" is both."""


@dataclass(frozen=True)
class Finding:
    """All that a report says of one finding; what is said to be there wins over what is said to be not."""

    status: Status
    sides: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    levels: frozenset[int] = frozenset()

    @property
    def there(self) -> bool:
        """Whether it is there, or may be."""
        return self.status != "absent"


class _Hit(NamedTuple):
    start: int
    end: int
    senses: tuple[Sense, ...]

    def of(self, *sorts: str) -> list[str]:
        return [sense.of for sense in self.senses if sense.sort in sorts]

    def has(self, *sorts: str) -> bool:
        return any(sense.sort in sorts for sense in self.senses)


@dataclass(frozen=True)
class _Clause:
    """Hits of one clause, and where commas and their like stand."""

    hits: Sequence[_Hit]
    breaks: Sequence[int]
    named: Sequence[_Hit] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "named", [hit for hit in self.hits if hit.has("names")])


def findings(text: str) -> dict[str, Finding]:
    """What the report says, by finding: the fourteen classes but No Finding, and those that only the judge compares."""
    found: dict[str, list[Mention]] = {}
    for mention in mentions(text):
        if mention.finding not in (ANYTHING, "No Finding"):
            found.setdefault(mention.finding, []).append(mention)
    return {name: _together(said) for name, said in found.items()}


def labels(text: str) -> dict[str, Status]:
    """The fourteen CheXbert classes of a report; one that is not mentioned is missing.

    No Finding: the report says something, and none of the other classes is there but Support Devices.
    """
    found: dict[str, Status] = {name: what.status for name, what in findings(text).items() if name in CHEXBERT}
    if not any(mentions(text)):
        return {}
    ill = any(status != "absent" for name, status in found.items() if name != "Support Devices")
    if not ill:
        found["No Finding"] = "present"
    return found


def mentions(text: str) -> Iterator[Mention]:
    """Everything said of any finding, in the report's order."""
    for sentence in sentences(text):
        yield from _mentions(sentence)


def sentences(text: str) -> list[str]:
    """The sentences of a report, stripped, in its order."""
    return [piece for piece in (part.strip() for part in _SENTENCE.split(text)) if piece]


def _together(said: Sequence[Mention]) -> Finding:
    there = [m for m in said if m.status != "absent"]
    if not there:
        return Finding("absent")
    sure: Status = "present" if any(m.status == "present" for m in there) else "uncertain"
    sides, zones = (frozenset().union(*(getattr(m, name) for m in there)) for name in ("sides", "zones"))
    return Finding(sure, sides, zones, frozenset().union(*(m.levels for m in there)))


# Reports are made of few different sentences: half of 24,000 real ones are repeats.
@functools.lru_cache(maxsize=1 << 16)
def _mentions(sentence: str) -> tuple[Mention, ...]:
    vocabulary = chest()
    tokens = words(sentence)
    hits: list[_Hit] = []
    i = 0
    while i < len(tokens):
        length, senses = vocabulary.at(tokens, i)
        if length:
            hits.append(_Hit(i, i + length, senses))
        i += max(length, 1)
    found: list[Mention] = []
    for clause in _clauses(tokens, hits):
        found += _named(clause, vocabulary)
        found += _states(clause, vocabulary)
    return tuple(found)


def _clauses(tokens: Sequence[str], hits: Sequence[_Hit]) -> Iterator[_Clause]:
    """Cut where an "ends" cue stands, and at commas and their like between two verbs or before an opener."""
    at = {hit.start: hit for hit in hits}
    verbs = [hit.start for hit in hits if hit.has("verbs")]
    subjects = [hit.start for hit in hits if hit.has("names", "anatomy")]
    commas = [i for i, token in enumerate(tokens) if token in (",", ":")]
    cuts = [0]
    breaks = []
    for i, token in enumerate(tokens):
        if i in at and at[i].has("ends"):
            cuts.append(i)
        if token not in (",", ":", "and", "with", "or"):
            continue
        breaks.append(i)
        first = next((s for s in subjects if cuts[-1] <= s < i), None)
        if token == "or" or first is None:
            continue
        right = next((comma for comma in commas if comma > i), len(tokens))
        said = cuts[-1] in at and at[cuts[-1]].has("ends")  # "there is" begins the clause
        told = said or any(first < v < i for v in verbs)
        parted = told and token != "with" and any(i < v < right for v in verbs)
        following = at.get(i + 2 if tokens[i + 1 : i + 2] == ["and"] else i + 1)
        opens = following is not None and (following.has("openers") or (told and following.has("sides")))
        if parted or opens:
            cuts.append(i)
    for start, end in zip(cuts, [*cuts[1:], len(tokens)], strict=True):
        inside = [hit for hit in hits if start <= hit.start < end]
        if inside:
            yield _Clause(inside, [b for b in breaks if start < b < end])


def _status(clause: _Clause, start: int, end: int) -> Status | None:
    """Of what stands at [start, end) in its clause; None where nothing is said of this patient now."""
    before = [hit for hit in clause.hits if hit.end <= start and hit.has(*_BEFORE)]
    after = next((hit for hit in clause.hits if hit.start >= end and hit.has(*_AFTER)), None)
    cue = before[-1] if before else None
    if cue is not None and cue.has("doubts") and len(before) > 1 and before[-2].has("rules_out"):
        cue = before[-2] if before[-2].end == cue.start else cue
    if (cue is not None and cue.has("skips")) or (after is not None and after.has("skipped")):
        return None
    if (cue is not None and cue.has("rules_out")) or (after is not None and after.has("ruled_out")):
        return "absent"
    either = any(
        hit.has("either") and (0 <= start - hit.end <= _NEAR or 0 <= hit.start - end <= _NEAR) for hit in clause.hits
    )
    return "uncertain" if cue is not None or after is not None or either else "present"


def _named(clause: _Clause, vocabulary: Vocabulary) -> Iterator[Mention]:
    last: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    for number, hit in enumerate(clause.named):
        status = _status(clause, hit.start, hit.end)
        if status is None:
            continue
        start = _begin(clause, number)
        stop = _begin(clause, number + 1) if number + 1 < len(clause.named) else clause.hits[-1].end
        sides, zones, levels = _words_of(clause.hits, start, stop)
        sides, zones = (sides or last[0], zones or last[1]) if number else (sides, zones)
        last = (sides, zones)
        for name in hit.of("names"):
            yield _mention(name, status, (sides, zones, levels), vocabulary)


def _begin(clause: _Clause, number: int) -> int:
    """Where the words that describe the n-th name begin: at the last break before it, or after the name before it."""
    if number == 0:
        return clause.hits[0].start
    previous, own = clause.named[number - 1].end, clause.named[number].start
    return max((b for b in clause.breaks if previous <= b < own), default=previous)


def _states(clause: _Clause, vocabulary: Vocabulary) -> Iterator[Mention]:
    """Anatomy that is called normal or abnormal: by the nearest such word for it, rather after it than before."""
    for place in clause.hits:
        for name in place.of("anatomy"):
            states = [
                h for h in clause.hits if h is not place and any(s.sort in STATES and s.of == name for s in h.senses)
            ]
            if not states:
                continue
            near = min(states, key=lambda h: h.start - place.end if h.start >= place.end else place.start - h.end + 0.5)
            sort = next(s.sort for s in near.senses if s.sort in STATES and s.of == name)
            status = _status(clause, max(place.start, near.start), max(place.end, near.end))
            if sort == "normal":
                yield Mention(name, "absent")
            elif status is not None:
                doubt = sort == "doubtful" and status == "present"
                described = _words_of(clause.hits, near.start - 3, near.end + 2)
                yield _mention(name, "uncertain" if doubt else status, described, vocabulary)


def _words_of(hits: Sequence[_Hit], start: int, stop: int) -> tuple[frozenset[str], frozenset[str], frozenset[int]]:
    inside = [hit for hit in hits if start <= hit.start < stop]
    sides = {side for hit in inside for side in hit.of("sides")}
    sides = {"left", "right"} if "both" in sides else sides
    levels = {int(level) for hit in inside for level in hit.of("levels")}
    return frozenset(sides), frozenset(zone for hit in inside for zone in hit.of("zones")), frozenset(levels)


def _mention(
    name: str,
    status: Status,
    described: tuple[frozenset[str], frozenset[str], frozenset[int]],
    vocabulary: Vocabulary,
) -> Mention:
    sides, zones, levels = described if status != "absent" else (frozenset(),) * 3
    sides, zones = (sides, zones) if name in vocabulary.sided else (frozenset(), frozenset())
    return Mention(name, status, sides, zones, levels if name in vocabulary.graded else frozenset())


def described(found: Mapping[str, Finding]) -> str:
    """The findings in one line, for people: what is there, what perhaps, what not."""
    marks = {"present": "", "uncertain": "? ", "absent": "no "}
    return "; ".join(
        " ".join(
            [marks[f.status] + name, *sorted(f.sides), *sorted(f.zones), *(f"level {n}" for n in sorted(f.levels))]
        )
        for name, f in found.items()
    )
