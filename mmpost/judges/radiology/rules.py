"""A judge by rules: compares the findings of two chest X-ray reports. Needs no model and no network."""

from __future__ import annotations

from collections.abc import Sequence

from mmpost.judges.base import Judge, Pair, Verdict, length_controlled, ratio, sentences
from mmpost.judges.radiology.findings import Finding, findings, mentions

ERRORS = ("false", "missing", "location", "severity")
"""What is wrong with a finding: GREEN's categories (a) to (d). Comparisons with earlier studies are not looked at."""


class RuleJudge(Judge):
    """Matched / (matched + errors) over the findings that either report says are there, surely or perhaps.

    A finding is matched, false, missing, in another place (both say where, and the sides differ or the zones have
    nothing in common) or of another severity (both say how severe, and nothing is in common): one of these, so that the
    score is a share of findings. Where neither report has any, and both say something, they match in that. Whether a
    finding is sure is counted (`certainty`) and no error. A reference that says nothing of any finding has no score.
    """

    absences: bool = False
    """Also count what both reports rule out as matched, as models that are asked for GREEN's list do. A candidate can
    then raise its score by denying more."""
    length_control: bool = False
    """Divide by how many times longer than the reference the candidate is (LC-GREEN)."""
    clean: bool = True
    """Take [spans], ** and capitals out of both reports first, as the released scoring scripts do."""

    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        return [self._one(Pair(*pair)) for pair in pairs]

    def _one(self, pair: Pair) -> Verdict:
        if self.clean:
            pair = pair._replace(reference=sentences(pair.reference), candidate=sentences(pair.candidate))
        if not any(mentions(pair.reference)):
            return Verdict(None, "inapplicable", said="the reference says nothing of any finding")
        wanted, said = findings(pair.reference), findings(pair.candidate)
        counts = compare(wanted, said)
        if not any(counts.values()) and any(mentions(pair.candidate)):
            counts["matched"] = 1.0
        if self.absences:
            both = [name for name in wanted if name in said and not (wanted[name].there or said[name].there)]
            counts["matched"] += len(both)
        score = ratio(counts["matched"], sum(counts[name] for name in ERRORS))
        return Verdict(length_controlled(score, pair) if self.length_control else score, counts=counts)


def compare(wanted: dict[str, Finding], said: dict[str, Finding]) -> dict[str, float]:
    """How many findings are matched, wrong in each way, and matched with another certainty."""
    counts: dict[str, float] = dict.fromkeys(("matched", *ERRORS, "certainty"), 0.0)
    for name in dict.fromkeys([*wanted, *said]):
        here, there = wanted.get(name), said.get(name)
        if here is None or not here.there:
            counts["false"] += there is not None and there.there
        elif there is None or not there.there:
            counts["missing"] += 1
        else:
            counts[_outcome(here, there)] += 1
            counts["certainty"] += here.status != there.status
    return counts


def _outcome(wanted: Finding, said: Finding) -> str:
    sides = wanted.sides and said.sides and wanted.sides != said.sides
    zones = wanted.zones and said.zones and not wanted.zones & said.zones
    if sides or zones:
        return "location"
    return "severity" if wanted.levels and said.levels and not wanted.levels & said.levels else "matched"
