"""Credit: from rewards to advantages. Every statistic over the batch is one over all ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.transforms.columns import finite_or_none, numbers, reward, token_mask, with_column
from mmpost.types import Context, Sample, Transform, Value

Rewards = Sequence[float | None]

SAME = 1e-9
"""Rewards that differ by less than this, relative to the largest, are equal: sums of fractions, not signals."""
REACHED = 1e-6
"""A rollout whose reward is within this of the truth's has reached it."""


class GroupAdvantage(Transform, Settings):
    """A = (r - mean of the group) / (std + eps) for each reply (GRPO); an unscorable reply (reward NaN) gets 0.

    Writes "advantage", exactly 0 in flat groups. An injected truth counts as a member of its group.
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    scale: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation of the group's rewards, of all rewards of the batch, or not at all."""
    eps: float = Field(default=1e-6, ge=0)
    """Added to the standard deviation."""
    ddof: Literal[0, 1] = 1
    """1: Bessel-corrected standard deviation; 0: population."""
    components: Mapping[str, float] = {}
    """Scores by name and their weights (GDPO): each is normalised in its group, the weighted sum in the batch; a score
    that a reply lacks adds nothing. Empty: the column reward is used."""
    gt_in_group_stats: Literal["always", "only_if_active"] = "always"
    """Injected truth takes part in the group's mean and deviation: always, or until a rollout reaches its reward."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        if self.components:
            return self._normalize_then_sum(samples, groups, context)
        spread = None
        if self.scale == "none":
            spread = 1.0
        elif self.scale == "batch":
            everything = context.gather([r for group in groups for r in group if r is not None])
            spread = _std(everything, self.ddof) + self.eps
        return [
            _advantages(sample, self._group(sample, rewards, spread), context)
            for sample, rewards in zip(samples, groups, strict=True)
        ]

    def _group(self, sample: Sample, rewards: Rewards, spread: float | None) -> list[float]:
        if self.gt_in_group_stats == "only_if_active":
            truth = [reply.origin == "truth" for reply in sample.replies]
            best = max((r for r, t in zip(rewards, truth, strict=True) if r is not None and not t), default=-math.inf)
            rewards = [
                None if t and r is not None and best >= r - REACHED else r for r, t in zip(rewards, truth, strict=True)
            ]
        return _normalise(rewards, self.ddof, self.eps, spread)

    def _normalize_then_sum(self, samples: list[Sample], groups: Sequence[Rewards], context: Context) -> list[Sample]:
        sums: list[list[float | None]] = []
        for sample, rewards in zip(samples, groups, strict=True):
            total: list[float | None] = [None if r is None else 0.0 for r in rewards]
            for name, weight in self.components.items():
                scores = [finite_or_none(reply.scores.get(name)) for reply in sample.replies]
                for i, value in enumerate(_normalise(scores, self.ddof, self.eps, None)):
                    so_far = total[i]
                    total[i] = None if so_far is None else so_far + weight * value
            sums.append(total)
        advantages = _standardised(sums, self.ddof, self.eps, context)
        return [_advantages(sample, values, context) for sample, values in zip(samples, advantages, strict=True)]


class LeaveOneOut(Transform, Settings):
    """A_i = r_i minus the mean reward of the group's other replies (RLOO); unscorable replies get 0.

    Writes "advantage".
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    normalize: bool = False
    """Standardise the advantages over the batch, one weight per reply."""
    eps: float = Field(default=1e-4, ge=0)
    """Added to the standard deviation (ddof 1) when they are standardised."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        centred: list[list[float | None]] = []
        for rewards in groups:
            n = sum(r is not None for r in rewards)
            deviations = _deviations(rewards)
            centred.append([None if d is None or n < 2 else n / (n - 1) * d for d in deviations])
        if self.normalize:
            advantages = _standardised(centred, 1, self.eps, context)
        else:
            advantages = [[a or 0.0 for a in group] for group in centred]
        return [_advantages(sample, values, context) for sample, values in zip(samples, advantages, strict=True)]


class GlobalWhiten(Transform, Settings):
    """Advantages whitened over all trained tokens of the batch, over all ranks (REINFORCE++).

    Each token's return is its reply's reward, discounted from the last token, plus, with `penalty`, the discounted sum
    of column kl_penalty from this token on. Writes "advantage", per token where tokens of a reply can differ.
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    baseline: bool = False
    """Subtract the group's mean reward first (REINFORCE++-baseline)."""
    penalty: bool = False
    """Add column kl_penalty, which KLReward(per_token=True) writes."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""
    variance: Literal["population", "sample"] = "population"
    """population: divided by n, at least 1e-8 (OpenRLHF); sample: divided by n - 1, plus 1e-8 (verl)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        returns = [self._returns(sample, group) for sample, group in zip(samples, groups, strict=True)]
        flat = [row for sample in returns for row in sample if row is not None]
        sums = [(math.fsum(m for _, m in row), math.fsum(x * m for x, m in row)) for row in flat]
        total, count = _sums(context, [s for _, s in sums]), _sums(context, [n for n, _ in sums])
        mean = total / count if count else 0.0
        squares = _sums(context, [math.fsum(m * (x - mean) ** 2 for x, m in row) for row in flat])
        if self.variance == "population":
            scale = max(squares / count if count else 0.0, 1e-8) ** -0.5
        else:
            scale = (squares / (count - 1 if count > 1 else 1.0) + 1e-8) ** -0.5
        out = []
        for sample, rows in zip(samples, returns, strict=True):
            values: list[Value] = []
            for row in rows:
                white = [(x - mean) * scale for x, _ in row or ()]
                alike = row is None or not (self.penalty or self.gamma < 1)
                values.append((white[0] if white else 0.0) if alike else white)
            out.append(with_column(sample, "advantage", values))
        return out

    def _returns(self, sample: Sample, rewards: Rewards) -> list[list[tuple[float, float]] | None]:
        """(return, mask) of each token of each reply; None for an unscorable reply."""
        centred = _deviations(rewards) if self.baseline else rewards
        rows: list[list[tuple[float, float]] | None] = []
        for reply, value in zip(sample.replies, centred, strict=True):
            if value is None:
                rows.append(None)
                continue
            mask = token_mask(reply)
            per_token: Sequence[float] = [0.0] * len(mask)
            if self.penalty:
                per_token = numbers(sample, reply, "kl_penalty", "KLReward(per_token=True)")
            row, after = [], 0.0
            for t in reversed(range(len(mask))):
                now = per_token[t] + (value if t == len(mask) - 1 else 0.0)
                after = now + self.gamma * after
                row.append((after, mask[t]))
            rows.append(row[::-1])
        return rows


def _deviations(rewards: Rewards) -> list[float | None]:
    """Reward minus the mean of the scorable ones; exactly 0 where only rounding is left."""
    scored = [r for r in rewards if r is not None]
    mean = fmean(scored) if scored else 0.0
    floor = SAME * max((abs(r) for r in scored), default=0.0)
    return [None if r is None else 0.0 if abs(r - mean) <= floor else r - mean for r in rewards]


def _std(values: Sequence[float], ddof: int) -> float:
    if len(values) <= ddof:
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - ddof))


def _normalise(rewards: Rewards, ddof: int, eps: float, spread: float | None) -> list[float]:
    """(r - mean) / spread, by default the deviation of these rewards plus eps; 0 for None and where all are equal."""
    deviations = _deviations(rewards)
    if not any(deviations):
        return [0.0] * len(deviations)
    if spread is None:
        spread = _std([r for r in rewards if r is not None], ddof) + eps
    return [0.0 if not d else d / spread for d in deviations]


def _standardised(groups: Sequence[Rewards], ddof: int, eps: float, context: Context) -> list[list[float]]:
    """(x - mean) / (std + eps) over the values of all groups and all ranks; 0 for None."""
    everything = context.gather([x for group in groups for x in group if x is not None])
    mean, spread = fmean(everything or [0.0]), _std(everything, ddof) + eps
    return [[0.0 if x is None else (x - mean) / spread for x in group] for group in groups]


def _sums(context: Context, values: Sequence[float]) -> float:
    """The sum over all ranks; independent of how the values lie on them."""
    return math.fsum(context.gather(values))


def _log_groups(samples: Sequence[Sample], groups: Sequence[Rewards], context: Context) -> None:
    """Rollout statistics, injected replies left out."""
    for sample, rewards in zip(samples, groups, strict=True):
        rollouts = [r for r, reply in zip(rewards, sample.replies, strict=True) if reply.origin != "truth"]
        scored = [r for r in rollouts if r is not None]
        for value in rollouts:
            context.log("advantage/unscorable", float(value is None))
        if scored:
            context.log("advantage/group_std", _std(scored, 1))
            context.log("reward/flat_groups", float(not any(_deviations(scored))))


def _advantages(sample: Sample, advantages: Sequence[float], context: Context) -> Sample:
    """`sample` with the advantages of its replies; logs those of injected ones."""
    for reply, advantage in zip(sample.replies, advantages, strict=True):
        if reply.origin == "truth":
            context.log("truth/active", float(advantage > 0))
            context.log("truth/advantage", advantage)
    return with_column(sample, "advantage", advantages)
