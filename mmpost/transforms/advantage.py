"""Credit assignment: from rewards to advantages. Every statistic over the batch is taken over all ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.core.columns import finite_or_none, numbers, reward, token_mask, with_column
from mmpost.types import Context, Sample, Transform, Value

Rewards = Sequence[float | None]
"""The rewards of a group's replies; None for one that no reward applies to."""

EQUAL_WITHIN = 1e-9
"""Rewards whose difference is smaller than this, relative to the largest, count as equal. They are sums of fractions:
dividing their rounding errors by a standard deviation of the same size would turn noise into full-size advantages."""
TRUTH_TOLERANCE = 1e-6
"""A rollout whose reward is at most this far below the truth's has reached it."""


class GroupAdvantage(Transform, Settings):
    """GRPO: A = (r - mean of the group) / (std + eps) for each reply; a reply without reward (NaN) gets 0.

    Writes "advantage", exactly 0 in groups without reward variance. An injected truth counts as a member of its group.
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    scale: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation of the group's rewards, by that of all rewards of the batch, or not at all."""
    eps: float = Field(default=1e-6, ge=0)
    """Added to the standard deviation."""
    ddof: Literal[0, 1] = 1
    """1: Bessel-corrected standard deviation; 0: population standard deviation."""
    components: Mapping[str, float] = {}
    """Scores and their weights (GDPO): each score is normalized within the group, and their weighted sum over the
    batch. A score that a reply lacks contributes 0. Empty: the reward is used."""
    gt_in_group_stats: Literal["always", "only_if_active"] = "always"
    """When the reward of an injected truth counts in the group's mean and standard deviation: always, or only as long
    as no rollout has reached it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        if self.components:
            return self._normalize_then_sum(samples, groups, context)
        divisor = None
        if self.scale == "none":
            divisor = 1.0
        elif self.scale == "batch":
            all_rewards = context.gather([r for group in groups for r in group if r is not None])
            divisor = _std(all_rewards, self.ddof) + self.eps
        return [
            _with_advantages(sample, self._group(sample, rewards, divisor), context)
            for sample, rewards in zip(samples, groups, strict=True)
        ]

    def _group(self, sample: Sample, rewards: Rewards, divisor: float | None) -> list[float]:
        if self.gt_in_group_stats == "only_if_active":
            is_truth = [reply.origin == "truth" for reply in sample.replies]
            pairs = list(zip(rewards, is_truth, strict=True))
            best = max((r for r, truth in pairs if r is not None and not truth), default=-math.inf)
            # A truth that a rollout has reached is treated like a reply without reward: out of the statistics, A = 0.
            rewards = [None if truth and r is not None and best >= r - TRUTH_TOLERANCE else r for r, truth in pairs]
        return _normalize(rewards, self.ddof, self.eps, divisor)

    def _normalize_then_sum(self, samples: list[Sample], groups: Sequence[Rewards], context: Context) -> list[Sample]:
        """GDPO's advantages. `groups` tells which replies have a reward at all."""
        sums: list[list[float | None]] = []
        for sample, rewards in zip(samples, groups, strict=True):
            totals: list[float | None] = [None if r is None else 0.0 for r in rewards]
            for name, weight in self.components.items():
                scores = [finite_or_none(reply.scores.get(name)) for reply in sample.replies]
                for i, value in enumerate(_normalize(scores, self.ddof, self.eps, None)):
                    total = totals[i]
                    totals[i] = None if total is None else total + weight * value
            sums.append(totals)
        advantages = _standardize_over_batch(sums, self.ddof, self.eps, context)
        return [_with_advantages(sample, values, context) for sample, values in zip(samples, advantages, strict=True)]


class LeaveOneOut(Transform, Settings):
    """RLOO: A_i = r_i minus the mean reward of the group's other replies; a reply without reward (NaN) gets 0.

    Writes "advantage".
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    normalize: bool = False
    """Standardize the advantages over the batch; every reply has the same weight in mean and standard deviation."""
    eps: float = Field(default=1e-4, ge=0)
    """Added to the standard deviation (ddof 1) if `normalize`."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        centered: list[list[float | None]] = []
        for rewards in groups:
            n = sum(r is not None for r in rewards)
            # r_i - mean of the others = n / (n - 1) * (r_i - mean of all).
            deviations = _deviations(rewards)
            centered.append([None if d is None or n < 2 else n / (n - 1) * d for d in deviations])
        if self.normalize:
            advantages = _standardize_over_batch(centered, 1, self.eps, context)
        else:
            advantages = [[a or 0.0 for a in group] for group in centered]
        return [_with_advantages(sample, values, context) for sample, values in zip(samples, advantages, strict=True)]


class GlobalWhiten(Transform, Settings):
    """REINFORCE++: advantages whitened over all trained tokens of the batch, over all ranks.

    A token's return is the reward of its reply, discounted from the last token, plus, with `penalty`, the discounted
    sum of the column kl_penalty from this token on. Writes "advantage", per token if tokens of a reply can differ. A
    reply without reward (NaN) gets 0.
    """

    makes: ClassVar[tuple[str, ...]] = ("advantage",)

    baseline: bool = False
    """Subtract the group's mean reward first (REINFORCE++-baseline)."""
    penalty: bool = False
    """Add the column kl_penalty, which KLReward(per_token=True) writes."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""
    variance: Literal["population", "sample"] = "population"
    """population: sum of squares / n, at least 1e-8 (OpenRLHF); sample: sum of squares / (n - 1), plus 1e-8 (verl)."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        groups = [[reward(sample, reply) for reply in sample.replies] for sample in samples]
        _log_groups(samples, groups, context)
        returns = [self._returns(sample, group) for sample, group in zip(samples, groups, strict=True)]
        mean, scale = self._statistics([row for rows in returns for row in rows if row is not None], context)
        per_token = self.penalty or self.gamma < 1
        out = []
        for sample, rows in zip(samples, returns, strict=True):
            values: list[Value] = []
            for row in rows:
                white = [(x - mean) * scale for x, _ in row or ()]
                if row is not None and per_token:
                    values.append(white)
                else:
                    values.append(white[0] if white else 0.0)
            out.append(with_column(sample, "advantage", values))
        return out

    def _statistics(self, rows: Sequence[Sequence[tuple[float, float]]], context: Context) -> tuple[float, float]:
        """Masked mean of the returns, and 1 / their standard deviation, over all ranks."""
        sums = [(math.fsum(m for _, m in row), math.fsum(x * m for x, m in row)) for row in rows]
        total, count = _global_sum(context, [s for _, s in sums]), _global_sum(context, [n for n, _ in sums])
        mean = total / count if count else 0.0
        squares = _global_sum(context, [math.fsum(m * (x - mean) ** 2 for x, m in row) for row in rows])
        if self.variance == "population":
            return mean, max(squares / count if count else 0.0, 1e-8) ** -0.5
        return mean, (squares / (count - 1 if count > 1 else 1.0) + 1e-8) ** -0.5

    def _returns(self, sample: Sample, rewards: Rewards) -> list[list[tuple[float, float]] | None]:
        """(return, mask) of each token of each reply; None for a reply without reward."""
        baselined = _deviations(rewards) if self.baseline else rewards
        rows: list[list[tuple[float, float]] | None] = []
        for reply, value in zip(sample.replies, baselined, strict=True):
            if value is None:
                rows.append(None)
                continue
            mask = token_mask(reply)
            penalties: Sequence[float] = [0.0] * len(mask)
            if self.penalty:
                penalties = numbers(sample, reply, "kl_penalty", "KLReward(per_token=True)")
            row, return_ = [], 0.0
            for t in reversed(range(len(mask))):
                token_reward = penalties[t] + (value if t == len(mask) - 1 else 0.0)
                return_ = token_reward + self.gamma * return_
                row.append((return_, mask[t]))
            rows.append(row[::-1])
        return rows


def _deviations(rewards: Rewards) -> list[float | None]:
    """Each reward minus the mean of the group; exactly 0 where only rounding errors are left."""
    scored = [r for r in rewards if r is not None]
    mean = fmean(scored) if scored else 0.0
    floor = EQUAL_WITHIN * max((abs(r) for r in scored), default=0.0)
    return [None if r is None else 0.0 if abs(r - mean) <= floor else r - mean for r in rewards]


def _std(values: Sequence[float], ddof: int) -> float:
    if len(values) <= ddof:
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - ddof))


def _normalize(rewards: Rewards, ddof: int, eps: float, divisor: float | None) -> list[float]:
    """(r - mean) / divisor, 0 for None and in groups without variance; `divisor` None: the group's std plus eps."""
    deviations = _deviations(rewards)
    if not any(deviations):
        return [0.0] * len(deviations)
    if divisor is None:
        divisor = _std([r for r in rewards if r is not None], ddof) + eps
    return [0.0 if not d else d / divisor for d in deviations]


def _standardize_over_batch(groups: Sequence[Rewards], ddof: int, eps: float, context: Context) -> list[list[float]]:
    """(x - mean) / (std + eps), with mean and std over the values of all groups and ranks; 0 for None."""
    all_values = context.gather([x for group in groups for x in group if x is not None])
    mean, divisor = fmean(all_values or [0.0]), _std(all_values, ddof) + eps
    return [[0.0 if x is None else (x - mean) / divisor for x in group] for group in groups]


def _global_sum(context: Context, values: Sequence[float]) -> float:
    """The sum over all ranks. `fsum` is exact, so it does not depend on how the values are spread over the ranks."""
    return math.fsum(context.gather(values))


def _log_groups(samples: Sequence[Sample], groups: Sequence[Rewards], context: Context) -> None:
    """Log statistics of the rollouts' rewards, without injected replies."""
    for sample, rewards in zip(samples, groups, strict=True):
        rollouts = [r for r, reply in zip(rewards, sample.replies, strict=True) if reply.origin != "truth"]
        scored = [r for r in rollouts if r is not None]
        for value in rollouts:
            context.log("advantage/unscorable", float(value is None))
        if scored:
            context.log("advantage/group_std", _std(scored, 1))
            context.log("reward/zero_std_groups", float(not any(_deviations(scored))))


def _with_advantages(sample: Sample, advantages: Sequence[float], context: Context) -> Sample:
    """`sample` with the advantages of its replies; logs those of injected truths."""
    for reply, advantage in zip(sample.replies, advantages, strict=True):
        if reply.origin == "truth":
            context.log("truth/active", float(advantage > 0))
            context.log("truth/advantage", advantage)
    return with_column(sample, "advantage", advantages)
