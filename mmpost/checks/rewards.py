"""Checks of rewards, without a model: the rewards of gold, empty and junk replies."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmpost.checks.report import Report, number
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.transforms.score import Score, gold_text
from mmpost.types import Context, Gold, Origin, Part, Reply, Sample, Stage

MAX_SCORED = 1000
"""Maximum number of samples per stage to score."""
TOLERANCE = 1e-6
JUNK = 'As I said: 41 or so <answer>[{"x": (((</answer'


@dataclass
class RewardCheck:
    """Rewards of one type of reply: a gold reply, the empty reply, or junk."""

    name: str
    declared: dict[str, float] = field(default_factory=dict)
    """The reward that the task declares for this gold reply by sample uid, if any."""
    rewards: dict[str, float] = field(default_factory=dict)
    """Reward by sample uid."""
    without_truth: list[str] = field(default_factory=list)
    """Uids of samples without a usable truth."""
    unparseable: list[str] = field(default_factory=list)
    """Uids of samples whose gold reply the rewards cannot parse."""
    unscored: int = 0
    """Number of samples to which no reward applies."""


class _NoLogContext(Context):
    """A context for `Score` that discards logged values."""

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        return None


def check_rewards(
    stage: Stage, samples: Sequence[Sample], lengths: PromptLengths | None, user: Collection[str], report: Report
) -> None:
    """Check the rewards of a stage: gold replies must earn what the task declares, or more than empty and junk replies.

    `user` names the user's rewards, which are left out because the task does not know their maximum.
    """
    scores = [t for t in stage.transforms if isinstance(t, Score)]
    if not scores:
        return
    report.section(f"rewards, stage {stage.name}")
    if not stage.gold:
        report.warn(f"found no gold reply in stage {stage.name!r}; set `gold` of its Stage")
    task_rewards = {name: reward for name, reward in scores[0].rewards.items() if name not in user}
    score = scores[0].model_copy(update={"rewards": task_rewards})
    framed = [s if lengths is None else replace(s, frame=lengths.coordinate_frame(s)) for s in samples[:MAX_SCORED]]
    baselines = [_score_text(score, framed, name, text) for name, text in (("empty", ""), ("junk", JUNK))]
    golds = [_score_gold(score, framed, gold) for gold in stage.gold]
    rows = [
        (c.name, number(len(c.rewards)), *_statistics(c), _range(c.declared.values())) for c in (*golds, *baselines)
    ]
    report.table("reply", "scored", "mean", "min", "max", "declared", rows=rows, right=(1, 2, 3, 4, 5))
    if user:
        report.say(f"user rewards are not included, because their maximum is unknown: {', '.join(user)}")
    for check in golds:
        _compare(check, baselines, framed, report)


def _statistics(check: RewardCheck) -> tuple[str, str, str]:
    """Mean, minimum and maximum."""
    values = list(check.rewards.values())
    if not values:
        return "", "", ""
    return number(sum(values) / len(values)), number(min(values)), number(max(values))


def _range(values: Collection[float]) -> str:
    """The value that all have, or the smallest and the largest."""
    return " to ".join(dict.fromkeys(number(f(values)) for f in (min, max))) if values else ""


def _score_text(score: Score, samples: Sequence[Sample], name: str, text: str) -> RewardCheck:
    check = RewardCheck(name)
    for sample in samples:
        _add(check, sample, _reward(score, sample, text, "policy"))
    return check


def _score_gold(score: Score, samples: Sequence[Sample], gold: Gold) -> RewardCheck:
    check = RewardCheck(gold.name)
    for sample in samples:
        text = gold_text(gold, sample)
        if text is None:
            check.without_truth.append(sample.uid)
        elif gold.is_parseable is not None and not gold.is_parseable(text):
            check.unparseable.append(sample.uid)
        else:
            _add(check, sample, _reward(score, sample, text, gold.origin))
            if gold.reward is not None:
                check.declared[sample.uid] = gold.reward(sample) if callable(gold.reward) else gold.reward
    return check


def _reward(score: Score, sample: Sample, text: str, origin: Origin) -> float:
    reply = Reply((Part("text", text, "assistant"),), origin)
    context = _NoLogContext()  # pyright: ignore[reportAbstractUsage] - `Score` only logs
    scored = score([replace(sample, replies=(reply,))], context)[0].replies[0]
    return float(scored.columns["reward"])  # type: ignore[arg-type]


def _add(check: RewardCheck, sample: Sample, reward: float) -> None:
    if math.isnan(reward):
        check.unscored += 1
    else:
        check.rewards[sample.uid] = reward


def _compare(check: RewardCheck, baselines: Sequence[RewardCheck], samples: Sequence[Sample], report: Report) -> None:
    """Report gold replies that earn less than declared or, if nothing is declared, no more than a baseline."""
    for uids, problem in (
        (check.without_truth, "have no usable truth"),
        (check.unparseable, "have gold replies that the rewards cannot parse"),
    ):
        if uids:
            report.warn(f"{check.name}: {len(uids)} samples {problem}, first {', '.join(map(repr, uids[:3]))}")
    if check.unscored:
        report.warn(f"{check.name}: no reward applies to {check.unscored} samples")
    truth = {s.uid: s.truth for s in samples}
    errors = []
    for uid, reward in check.rewards.items():
        others = {b.name: b.rewards[uid] for b in baselines if uid in b.rewards}
        declared = check.declared.get(uid)
        if declared is not None and reward < declared - TOLERANCE:
            errors.append(_message(check.name, uid, reward, f"the declared {number(declared)}", truth[uid]))
        elif declared is None and others and reward <= max(others.values()):
            best = max(others, key=lambda name: others[name])
            expected = f"more than the {number(others[best])} of the {best} reply"
            errors.append(_message(check.name, uid, reward, expected, truth[uid]))
        elif declared is not None and reward > declared + TOLERANCE:
            report.warn(f"{uid}: {check.name} gets {number(reward)}, more than the declared {number(declared)}")
    report.error(*errors)


def _message(name: str, uid: str, reward: float, expected: str, truth: Any) -> str:
    return f"{uid}: {name} gets {number(reward)}, wanted {expected}; truth {truth!r:.160}"
