"""What tasks with groups of rollouts share: their settings, and the stage that these make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import Field

from mmpost.objectives.policy import PolicyLoss
from mmpost.transforms.advantage import GlobalWhiten, GroupAdvantage, LeaveOneOut
from mmpost.transforms.answers import DropReplies
from mmpost.transforms.dynamic_sampling import DropZeroVariance
from mmpost.transforms.generate import Generate
from mmpost.transforms.inject_truth import InjectTruth, SmoothTruth
from mmpost.transforms.logprobs import OldLogprobs, ReferenceLogprobs
from mmpost.transforms.parse_rate import ParseRate
from mmpost.transforms.reward_shaping import KLReward, LengthReward, OverlongPenalty
from mmpost.transforms.score import Score
from mmpost.types import Gold, RefillBatch, Sample, Sampling, Source, Stage, Task, Transform

PUBLISHED: Mapping[str, Transform] = {"rloo": LeaveOneOut(), "dr_grpo": GroupAdvantage(scale="none")}
"""Advantages of the losses that were published with others than the group's normalised rewards."""


class PolicyGradientTask(Task):
    """A task that learns from groups of sampled replies (GRPO and its relatives)."""

    num_generations: int = Field(default=8, ge=1)
    """Rollouts per prompt."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Prompts per rollout batch, over all ranks."""
    num_iterations: int = Field(default=1, ge=1)
    """Passes over each rollout batch."""
    minibatches: int = Field(default=1, ge=1)
    """Optimiser steps per pass."""
    sampling: Sampling = Sampling()
    """How rollouts are drawn."""
    advantage: GroupAdvantage | LeaveOneOut | GlobalWhiten | None = None
    """From rewards to advantages; by default as the loss was published: leave-one-out for rloo, undivided by the
    standard deviation for dr_grpo, normalised within the group for the others."""
    policy: PolicyLoss = PolicyLoss()
    """The loss; it reads old log-probs by itself where a rollout batch serves several updates."""
    overlong: OverlongPenalty | None = None
    """Soft punishment of long replies (DAPO)."""
    length_reward: LengthReward | None = None
    """A reward for right replies that are short among those of the batch (Reason-RFT's optional one)."""
    kl_reward: KLReward | None = None
    """KL against the reference as a part of the reward (RLOO, REINFORCE++); in the loss it is policy.beta."""
    max_resample_times: int = Field(default=0, ge=0)
    """Rounds of dynamic sampling: groups with equal rewards are dropped and replaced; 0 keeps them."""

    def rl_stage(
        self,
        name: str,
        source: Source,
        score: Score,
        truth: Callable[[Sample], str | None] | None = None,
        smooth: bool = True,
        share: float = 1.0,
        gold: tuple[Gold, ...] = (),
    ) -> Stage:
        """Rollouts, scores, advantages and the policy loss; with `truth`, that text joins each group as a reply.

        `smooth`: the truth's reward becomes the rollouts' mean once one of them reaches it.
        """
        changes: dict[str, object] = {"injected": truth is not None}
        if self.num_iterations * self.minibatches > 1:
            changes["old"] = "column"
        if self.policy.form.reduction == "constant" and self.policy.max_tokens is None:
            changes["max_tokens"] = self.sampling.max_tokens
        policy = PolicyLoss.model_validate({**dict(self.policy), **changes})
        # The trainer remembers old log-probs by itself, but not that injected replies have them as their sampler's.
        weighed = truth is not None and policy.mismatch != "off"
        steps = tuple(self._transforms((score, *_counted(gold)), truth, smooth, old=weighed))
        return Stage(
            name,
            source,
            policy,
            self.prompts_per_step,
            steps,
            self.num_iterations,
            self.minibatches,
            fraction=share,
            gold=gold,
        )

    def _transforms(
        self, scored: Sequence[Transform], truth: Callable[[Sample], str | None] | None, smooth: bool, old: bool
    ) -> Iterator[Transform | RefillBatch]:
        yield DropReplies()
        yield Generate(n=self.num_generations, sampling=self.sampling)
        if truth is not None:
            yield InjectTruth(text=truth)
        yield from scored
        if self.overlong is not None:
            yield self.overlong
        if self.length_reward is not None:
            yield self.length_reward
        if truth is not None and smooth:
            yield SmoothTruth()
        if self.max_resample_times:
            yield DropZeroVariance()
            yield RefillBatch(self.prompts_per_step, self.max_resample_times)
        charged = self.kl_reward is not None
        if old or charged:
            yield OldLogprobs()
        if self.policy.beta or charged:
            yield ReferenceLogprobs()
        if self.kl_reward is not None:
            yield self.kl_reward
        yield self.advantage or PUBLISHED.get(self.policy.loss_type, GroupAdvantage())


def _counted(gold: Sequence[Gold]) -> list[Transform]:
    """What counts the unreadable, where the task can tell it."""
    return [ParseRate(gold=one) for one in gold if one.is_parseable is not None][:1]
