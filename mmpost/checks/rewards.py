"""Rewards without a model: what right, empty and junk replies get."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmpost.checks.report import Report, number
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.transforms.parse_rate import gold_text
from mmpost.transforms.score import Score
from mmpost.types import Context, Gold, Origin, Part, Reply, Sample, Stage

SCORED = 1000
"""Samples of a stage whose gold is scored, at most."""
EXACT = 1e-6
JUNK = 'As I said: 41 or so <answer>[{"x": (((</answer'


@dataclass
class Tally:
    """Rewards of one sort of reply, by sample."""

    name: str
    declared: float | None = None
    found: dict[str, float] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)
    """Samples that have no usable truth."""
    unread: list[str] = field(default_factory=list)
    """Samples whose gold the rewards cannot read."""
    unscored: int = 0
    """Samples to which no reward applies."""


class _NoLog(Context):
    """The context of a Score that nobody listens to."""

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        return None


def check_rewards(
    stage: Stage, samples: Sequence[Sample], lengths: PromptLengths | None, user: Collection[str], report: Report
) -> None:
    """Score gold, empty and junk replies of a stage; `user` are rewards whose maximum the task cannot know."""
    scores = [t for t in stage.transforms if isinstance(t, Score)]
    if not scores:
        return
    report.section(f"rewards, stage {stage.name}")
    if not stage.gold:
        report.warn(f"the task does not say what a right reply is: give Stage {stage.name!r} its `gold`")
    score = _without(scores[0], user)
    framed = [s if lengths is None else replace(s, frame=lengths.coordinate_frame(s)) for s in samples[:SCORED]]
    plain = [_tally(score, framed, name, text) for name, text in (("empty", ""), ("junk", JUNK))]
    golds = [_gold(score, framed, gold) for gold in stage.gold]
    rows = [
        (t.name, number(len(t.found)), *_spread(t), "" if t.declared is None else number(t.declared))
        for t in (*golds, *plain)
    ]
    report.table("reply", "scored", "mean", "min", "max", "declared", rows=rows, right=(1, 2, 3, 4, 5))
    if user:
        report.say(f"without the rewards of the command line, whose maximum nobody declares: {', '.join(user)}")
    for tally in golds:
        _judge(tally, plain, framed, report)


def _without(score: Score, names: Collection[str]) -> Score:
    left = {k: v for k, v in score.rewards.items() if k not in names}
    return score.model_copy(update={"rewards": left})


def _spread(tally: Tally) -> tuple[str, str, str]:
    values = list(tally.found.values())
    if not values:
        return "", "", ""
    return number(sum(values) / len(values)), number(min(values)), number(max(values))


def _tally(score: Score, samples: Sequence[Sample], name: str, text: str) -> Tally:
    tally = Tally(name)
    for sample in samples:
        _add(tally, sample, _reward(score, sample, text, "policy"))
    return tally


def _gold(score: Score, samples: Sequence[Sample], gold: Gold) -> Tally:
    tally = Tally(gold.name, gold.reward)
    for sample in samples:
        text = gold_text(gold, sample)
        if text is None:
            tally.without.append(sample.uid)
        elif gold.is_parseable is not None and not gold.is_parseable(text):
            tally.unread.append(sample.uid)
        else:
            _add(tally, sample, _reward(score, sample, text, gold.origin))
    return tally


def _reward(score: Score, sample: Sample, text: str, origin: Origin) -> float:
    reply = Reply((Part("text", text, "assistant"),), origin)
    context = _NoLog()  # pyright: ignore[reportAbstractUsage] - a Score only logs
    scored = score([replace(sample, replies=(reply,))], context)[0].replies[0]
    return float(scored.columns["reward"])  # type: ignore[arg-type]


def _add(tally: Tally, sample: Sample, value: float) -> None:
    if math.isnan(value):
        tally.unscored += 1
    else:
        tally.found[sample.uid] = value


def _judge(tally: Tally, plain: Sequence[Tally], samples: Sequence[Sample], report: Report) -> None:
    for uids, what in (
        (tally.without, "have no usable truth"),
        (tally.unread, "have gold that the rewards cannot read"),
    ):
        if uids:
            report.warn(f"{tally.name}: {len(uids)} samples {what}, the first {', '.join(map(repr, uids[:3]))}")
    if tally.unscored:
        report.warn(f"{tally.name}: no reward applies to {tally.unscored} samples")
    truth = {s.uid: s.truth for s in samples}
    wrong = []
    for uid, value in tally.found.items():
        others = {t.name: t.found[uid] for t in plain if uid in t.found}
        if tally.declared is not None and value < tally.declared - EXACT:
            wrong.append(_wrong(tally.name, uid, value, f"the declared {number(tally.declared)}", truth[uid]))
        elif tally.declared is None and others and value <= max(others.values()):
            name = max(others, key=lambda k: others[k])
            wrong.append(_wrong(tally.name, uid, value, f"more than the {number(others[name])} of {name}", truth[uid]))
        elif tally.declared is not None and value > tally.declared + EXACT:
            report.warn(f"{uid}: {tally.name} gets {number(value)}, above the declared {number(tally.declared)}")
    report.error(*wrong)


def _wrong(name: str, uid: str, value: float, wanted: str, truth: Any) -> str:
    return f"{uid}: {name} gets {number(value)}, wanted {wanted}; truth {truth!r:.160}"
