"""The base class of tasks that train with policy gradients on groups of sampled replies: GRPO and its relatives.

`PolicyGradientTask` holds the settings, `rl_stage` turns them into a training stage, and `_transforms` lists what
happens to each rollout batch before the loss sees it: sample, score, compute advantages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import Field

from mmpost.objectives.policy import PolicyLoss
from mmpost.transforms.advantage import GlobalWhiten, GroupAdvantage, LeaveOneOut
from mmpost.transforms.dynamic_sampling import DropZeroVariance
from mmpost.transforms.filter_replies import FilterReplies
from mmpost.transforms.generate import DropReplies, Generate, InjectTruth, greedy
from mmpost.transforms.logprobs import OldLogprobs, ReferenceLogprobs
from mmpost.transforms.reward_shaping import KLReward, LengthReward, OverlongPenalty
from mmpost.transforms.score import ParseRate, Score, SmoothTruth
from mmpost.types import Gold, RefillBatch, Sample, Sampling, Source, Stage, Task, Transform

PUBLISHED_ADVANTAGES: Mapping[str, Transform] = {
    "rloo": LeaveOneOut(),  # arXiv 2402.14740
    "dr_grpo": GroupAdvantage(scale="none"),  # arXiv 2503.20783
}
"""By `loss_type`, the advantages of the losses that were not published with GRPO's (arXiv 2402.03300): rewards
normalized by the mean and standard deviation of their group."""


class PolicyGradientTask(Task):
    """A task that learns from groups of sampled replies (GRPO and its relatives)."""

    num_generations: int = Field(default=8, ge=1)
    """Rollouts per prompt: the group size G."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Prompts per rollout batch, over all ranks."""
    num_iterations: int = Field(default=1, ge=1)
    """Passes over each rollout batch (mu in GRPO)."""
    minibatches: int = Field(default=1, ge=1)
    """Optimizer steps per pass."""
    sampling: Sampling = Sampling()
    """How rollouts are sampled."""
    advantage: GroupAdvantage | LeaveOneOut | GlobalWhiten | None = None
    """How rewards become advantages. By default as the loss was published: leave-one-out for rloo, not divided by the
    standard deviation for dr_grpo, normalized within the group for the others."""
    policy: PolicyLoss = PolicyLoss()
    """The loss. Where a rollout batch serves several updates, `old` is set to column automatically."""
    overlong: OverlongPenalty | None = None
    """Soft overlong punishment (DAPO)."""
    length_reward: LengthReward | None = None
    """Reward for correct replies that are short compared with the rest of the batch (optional in Reason-RFT)."""
    kl_reward: KLReward | None = None
    """KL penalty in the reward (RLOO, REINFORCE++); for one in the loss, set policy.beta."""
    max_resample_times: int = Field(default=0, ge=0)
    """Dynamic sampling (DAPO): groups without reward variance are dropped and replaced by new ones, for at most this
    many rounds of sampling; 0 keeps them."""

    def greedy(self) -> Generate:
        """One reply per sample, the most likely tokens, as long as rollouts may be: for benches."""
        return greedy(self.sampling.max_tokens)

    def rl_stage(
        self,
        name: str,
        source: Source,
        score: Score | tuple[Transform, ...],
        truth: Callable[[Sample], str | None] | None = None,
        smooth: bool = True,
        fraction: float = 1.0,
        gold: tuple[Gold, ...] = (),
        keep: FilterReplies | None = None,
    ) -> Stage:
        """A training stage: sample replies to the prompts of `source`, score them, and minimize the policy loss.

        `score`: the rewards; where they read what a judge says of the whole batch, that judge before them.
        `truth`: writes a sample's ground truth as a reply, which joins the rollouts of its group (ViSurf, arXiv
        2510.10606); None trains on rollouts alone.
        `smooth`: once a rollout earns the reward of the truth, the truth's reward becomes the mean of the rollouts'.
        `fraction`: weight of the stage when the run's steps are divided among its stages.
        `gold`: correct replies, for `mmpost check` and the parse-failure metrics; training does not depend on them.
        `keep`: which rollouts are trained on; with its `oversample`, more are sampled than a group has.
        """
        return Stage(
            name,
            source,
            self._policy_loss(injects_truth=truth is not None),
            self.prompts_per_step,
            tuple(self._transforms(score, truth, smooth, gold, keep)),
            self.num_iterations,
            self.minibatches,
            fraction=fraction,
            gold=gold,
        )

    def _policy_loss(self, injects_truth: bool) -> PolicyLoss:
        """`policy`, with the fields that follow from the rest of the task filled in."""
        # Metrics such as clip rates and KL must describe the policy's own samples, so the loss has to tell them from
        # injected replies.
        derived: dict[str, object] = {"injected": injects_truth}
        # The loss can take the old log-probs from its own forward pass only while the policy is still the one that
        # sampled the batch. Later updates need them stored: the trainer writes the column old_logp.
        if self.num_iterations * self.minibatches > 1:
            derived["old"] = "column"
        # Dr. GRPO divides by a constant, the most tokens that a reply can have, which is the sampling limit.
        if self.policy.form.reduction == "constant" and self.policy.max_tokens is None:
            derived["max_tokens"] = self.sampling.max_tokens
        # Not model_copy(update=...), which would skip the validators.
        return PolicyLoss.model_validate({**dict(self.policy), **derived})

    def _transforms(
        self,
        score: Score | tuple[Transform, ...],
        truth: Callable[[Sample], str | None] | None,
        smooth: bool,
        gold: Sequence[Gold],
        keep: FilterReplies | None,
    ) -> Iterator[Transform | RefillBatch]:
        # Sample a group of replies per prompt. Replies that come with the data would otherwise be part of it.
        yield DropReplies()
        sampled = math.ceil(self.num_generations * (keep.oversample if keep is not None else 1.0))
        yield Generate(n=sampled, sampling=self.sampling)
        if keep is not None:
            yield keep.model_copy(update={"n": self.num_generations})
        if truth is not None:
            yield InjectTruth(text=truth)

        # Score them. One parser is enough to count unparseable replies.
        yield from score if isinstance(score, tuple) else (score,)
        parseable = next((one for one in gold if one.is_parseable is not None), None)
        if parseable is not None:
            yield ParseRate(gold=parseable)

        # Shape the rewards. Smoothing comes last: whether a rollout reaches the truth is decided by its shaped reward.
        if self.overlong is not None:
            yield self.overlong
        if self.length_reward is not None:
            yield self.length_reward
        if truth is not None and smooth:
            yield SmoothTruth()

        # Dynamic sampling repeats everything above until the batch is full, so what needs a forward pass comes below.
        if self.max_resample_times:
            yield DropZeroVariance()
            yield RefillBatch(self.prompts_per_step, self.max_resample_times)

        # Log-probs that other transforms read. Those of the loss are up to the trainer, with one exception: the
        # correction of the train/inference mismatch needs the sampler's log-probs of every reply, and an injected
        # truth has none. OldLogprobs gives it its old log-probs, so that its weight is 1.
        corrects_truth = truth is not None and self.policy.mismatch != "off"
        if self.kl_reward is not None or corrects_truth:
            yield OldLogprobs()
        if self.kl_reward is not None or self.policy.beta:
            yield ReferenceLogprobs()
        if self.kl_reward is not None:
            yield self.kl_reward

        # Turn rewards into advantages.
        yield self.advantage or PUBLISHED_ADVANTAGES.get(self.policy.loss_type, GroupAdvantage())
