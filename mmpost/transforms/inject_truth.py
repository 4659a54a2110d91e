"""The ground truth as one more reply of each group (ViSurf, arXiv 2510.10606)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.transforms.advantage import TRUTH_TOLERANCE
from mmpost.transforms.columns import reward, with_column, with_columns
from mmpost.types import Context, Sample, Transform


class InjectTruth(Transform, Settings):
    """Append the ground truth of each sample as a reply of origin "truth".

    Samples without usable truth get none. Writes "injected" (1 for the truth, 0 for rollouts) on every reply. The truth
    is never truncated, and its log-probs are computed at the temperature of the rollouts. Since it was not sampled, it
    has no behaviour_logp: the transform that computes old_logp copies it there (OldLogprobs).
    """

    makes: ClassVar[tuple[str, ...]] = ("injected", "truncated", "temperature")

    text: Callable[[Sample], str | None]
    """Writes the truth in the format that the prompt asks for (tags, separators and key order as in its example), since
    every deviation is imitated, too; None where the sample has no usable truth."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            replies = tuple(with_columns(reply, injected=0.0) for reply in sample.replies)
            text = self.text(sample)
            context.log("truth/injected", float(text is not None))
            if text is not None:
                truth = with_columns(context.encode_reply(text, "truth"), injected=1.0, truncated=0.0)
                if replies and "temperature" in replies[0].columns:
                    truth = with_columns(truth, temperature=replies[0].columns["temperature"])
                replies = (*replies, truth)
            out.append(replace(sample, replies=replies))
        return out


class SmoothTruth(Transform, Settings):
    """Once a rollout reaches the reward of the truth, set the truth's reward to the mean of the rollouts'.

    The truth's advantage is then 0: the policy does not imitate what it can already do (ViSurf's reward smoothing). Put
    it after Score, and before DropZeroVariance, which then drops solved groups.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    tolerance: float = Field(default=TRUTH_TOLERANCE, ge=0)
    """A rollout whose reward is at most this far below the truth's has reached it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._smooth(sample, context) for sample in samples]

    def _smooth(self, sample: Sample, context: Context) -> Sample:
        rewards = [reward(sample, reply) for reply in sample.replies]
        truths = [i for i, reply in enumerate(sample.replies) if reply.origin == "truth"]
        rollouts = [r for i, r in enumerate(rewards) if i not in truths and r is not None]
        smoothed = [float("nan") if r is None else r for r in rewards]
        for i in truths:
            truth = rewards[i]
            reached = truth is not None and bool(rollouts) and max(rollouts) >= truth - self.tolerance
            context.log("truth/smoothed", float(reached))
            if reached:
                smoothed[i] = fmean(rollouts)
        return with_column(sample, "reward", smoothed)
