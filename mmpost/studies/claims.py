"""Verdicts about the claims of a study: whether a gap between two arms depends on the cause as it was predicted.

For each claim the gap with the cause, the gap without it and their difference, the interaction, are measured, paired by
seed and sample. A gap alone would not do: one method may be better for any reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmpost.errors import ConfigError
from mmpost.metrics.intervals import Estimate, Measured, holm, power
from mmpost.studies.study import Claim, Study, Variant

SIGNIFICANT = 0.05
EQUIVALENT = 0.9
"""Level of the interval that must lie within the margin: two one-sided tests at 5 % (Schuirmann 1987)."""

Scores = Mapping[Variant, Mapping[str, Measured]]
"""The measured metrics of each variant."""


def findings(study: Study, scores: Scores, matched: Mapping[str, Mapping[str, Measured]]) -> dict[str, Any]:
    """For each claim its gaps, interaction, verdict, and the gap at every level of the dial, as study.json has them.

    `matched`: for claims at equal learning, their gap at each level; a level is missing where arms do not overlap.
    """
    gaps = {name: _gaps(study, claim, scores, matched.get(name, {})) for name, claim in study.predict.items()}
    effects = {name: _effect(claim, gaps[name]) for name, claim in study.predict.items()}
    decided = [name for name, effect in effects.items() if effect is not None]
    adjusted = dict(zip(decided, holm([effects[name].p for name in decided]), strict=True))  # type: ignore[union-attr]
    out: dict[str, Any] = {}
    for name, claim in study.predict.items():
        effect = effects[name]
        dose = {level: gap.estimate().as_dict() for level, gap in gaps[name].items() if level != CONTROL}
        entry: dict[str, Any] = {"claim": claim.model_dump(mode="json"), "dose": dose}
        if effect is None:
            out[name] = {**entry, "verdict": "undecided", "reason": "no overlap of the arms' ranges"}
            continue
        entry |= {
            "gap": gaps[name][claim.at].estimate().as_dict(),
            "effect": effect.as_dict(),
            "p": adjusted[name],
            "verdict": verdict(claim, effect, adjusted[name]),
            "power": _power(claim, effect),
        }
        if claim.has_control:
            control = gaps[name][CONTROL].estimate()
            entry["control"] = control.as_dict()
            if claim.vanishes:
                entry["control_verdict"] = control_verdict(claim, control)
        out[name] = entry
    return out


CONTROL = "\0control"
"""The key of the control among the gaps, which may be of a level's other metric."""


def _gaps(study: Study, claim: Claim, scores: Scores, matched: Mapping[str, Measured]) -> dict[str, Measured]:
    """The gap at each level of the dial, and that of the control."""
    if claim.matched:
        gaps = dict(matched)
    else:
        arms = (claim.arm, claim.against)
        both = [level for level in study.dial or ("",) if all(Variant(arm, level) in scores for arm in arms)]
        gaps = {level: _gap(claim, scores, level, claim.metric) for level in both}
    if claim.has_control:
        level = claim.control or claim.at
        if claim.control_metric:
            gaps[CONTROL] = _gap(claim, scores, level, claim.control_metric)
        elif level in gaps:
            gaps[CONTROL] = gaps[level]
    return gaps


def _gap(claim: Claim, scores: Scores, level: str, metric: str) -> Measured:
    first, second = (scores[Variant(arm, level)] for arm in (claim.arm, claim.against))
    if metric not in first or metric not in second:
        raise ConfigError(f"predict: wanted the metric {metric!r}, found {', '.join(sorted(first))}")
    return first[metric] - second[metric]


def _effect(claim: Claim, gaps: Mapping[str, Measured]) -> Estimate | None:
    """The interaction, or the gap of a claim without a control; None without overlap."""
    if claim.at not in gaps or (claim.has_control and CONTROL not in gaps):
        return None
    return (gaps[claim.at] - gaps[CONTROL] if claim.has_control else gaps[claim.at]).estimate()


def verdict(claim: Claim, effect: Estimate, p: float) -> str:
    """ "as predicted", "against" or "undecided".

    Against is an effect of the other sign, and one that is surely smaller than half of the predicted gap without being
    told from 0. `p` is adjusted for the number of claims.
    """
    sign = math.copysign(1.0, claim.gap)
    if p < SIGNIFICANT:
        return "as predicted" if sign * effect.mean > 0 else "against"
    highest = max(sign * end for end in effect.interval(EQUIVALENT))
    return "against" if highest < claim.margin else "undecided"


def control_verdict(claim: Claim, control: Estimate) -> str:
    """ "vanished" if the gap without the cause surely lies within the margin, "remains" if it surely is not 0."""
    if all(abs(end) < claim.margin for end in control.interval(EQUIVALENT)):
        return "vanished"
    return "remains" if control.p < SIGNIFICANT else "undecided"


def _power(claim: Claim, effect: Estimate) -> float | None:
    """The chance of telling the predicted gap from 0 with this spread over seeds and samples; None of a single seed."""
    if len(effect.seeds) < 2 or not effect.sample_df:
        return None
    return power(
        claim.gap, effect.sd, math.sqrt(effect.sample_variance), len(effect.seeds), groups=int(effect.sample_df) + 1
    )


def planned_power(claims: Mapping[str, Any], seeds: int) -> dict[str, float]:
    """The power of each claim with `seeds` seeds, from the spread that a pilot measured (its `findings`)."""
    out = {}
    for name, entry in claims.items():
        effect = entry.get("effect")
        if effect and effect["sd"] is not None:
            out[name] = power(entry["claim"]["gap"], effect["sd"], effect["sample_se"], seeds)
    return out
