"""A rule-based judge that compares the findings of two chest X-ray reports. Needs neither a model nor a network."""

from __future__ import annotations

from collections.abc import Sequence

from mmpost.judges.base import Judge, Pair, Verdict, length_controlled
from mmpost.judges.radiology.findings import Finding, clean_report_lines, extract_findings, extract_mentions
from mmpost.judges.radiology.green import green_score

ERROR_TYPES = ("false", "missing", "location", "severity")
"""GREEN's error categories (a) to (d). (e) and (f), comparisons with prior studies, are not evaluated."""


class RuleJudge(Judge):
    """Scores matched / (matched + errors) over the findings that either report calls present or uncertain.

    Each finding has exactly one outcome, so the score is a fraction of findings: matched, false, missing, wrong
    location (both reports give one, and the sides differ or no zone is shared) or wrong severity (both give one, and no
    level is shared). If both reports mention findings but neither has a positive one, that counts as one match. A
    difference in certainty is counted (`certainty`) but is not an error. A reference that mentions no finding at all
    has no score.
    """

    absences: bool = False
    """Also count findings that both reports rule out as matched, as chat models do with GREEN's prompt. A candidate can
    then raise its score by ruling out more."""
    length_control: bool = False
    """LC-GREEN: divide the score by candidate words / reference words if that is more than 1."""
    clean: bool = True
    """Remove [spans] and **, and lowercase both reports first, as the released scoring scripts do."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        return [self._judge_pair(Pair(*pair)) for pair in pairs]

    def _judge_pair(self, pair: Pair) -> Verdict:
        if self.clean:
            pair = pair._replace(
                reference=clean_report_lines(pair.reference), candidate=clean_report_lines(pair.candidate)
            )
        if not any(extract_mentions(pair.reference)):
            return Verdict(None, "inapplicable", raw_reply="the reference mentions no finding")
        reference, candidate = extract_findings(pair.reference), extract_findings(pair.candidate)
        counts = compare_findings(reference, candidate)
        if not any(counts.values()) and any(extract_mentions(pair.candidate)):
            counts["matched"] = 1.0
        if self.absences:
            counts["matched"] += sum(
                name in candidate and not (reference[name].positive or candidate[name].positive) for name in reference
            )
        score = green_score(counts["matched"], sum(counts[name] for name in ERROR_TYPES))
        return Verdict(length_controlled(score, pair) if self.length_control else score, counts=counts)


def compare_findings(reference: dict[str, Finding], candidate: dict[str, Finding]) -> dict[str, float]:
    """Number of findings that are matched, that have each type of error, and whose certainty differs."""
    counts: dict[str, float] = dict.fromkeys(("matched", *ERROR_TYPES, "certainty"), 0.0)
    for name in dict.fromkeys([*reference, *candidate]):
        expected, reported = reference.get(name), candidate.get(name)
        if expected is None or not expected.positive:
            counts["false"] += reported is not None and reported.positive
        elif reported is None or not reported.positive:
            counts["missing"] += 1
        else:
            counts[_outcome(expected, reported)] += 1
            counts["certainty"] += expected.status != reported.status
    return counts


def _outcome(expected: Finding, reported: Finding) -> str:
    other_side = expected.sides and reported.sides and expected.sides != reported.sides
    other_zone = expected.zones and reported.zones and not expected.zones & reported.zones
    if other_side or other_zone:
        return "location"
    other_severity = expected.levels and reported.levels and not expected.levels & reported.levels
    return "severity" if other_severity else "matched"
