"""The ground truth as one more reply of the group (ViSurf)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from mmpost.config.settings import Settings
from mmpost.transforms.advantage import REACHED
from mmpost.transforms.columns import reward, with_column, with_columns
from mmpost.types import Context, Sample, Transform


class InjectTruth(Transform, Settings):
    """Append the truth of each sample as a reply of origin "truth"; a sample without usable truth stays as it is.

    Writes "injected" (1 for the truth, 0 for the others) on every reply; the truth is never truncated and takes the
    temperature of the group's other replies. It was not sampled: its behaviour_logp is its old_logp, which the
    transform that computes old_logp must copy.
    """

    makes: ClassVar[tuple[str, ...]] = ("injected", "truncated", "temperature")

    text: Callable[[Sample], str | None]
    """The truth as the model itself would write it: the separators, key order and tags of the prompt's own example.
    None where the sample has no usable truth."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            others = tuple(with_columns(reply, injected=0.0) for reply in sample.replies)
            text = self.text(sample)
            context.log("truth/injected", float(text is not None))
            if text is not None:
                truth = with_columns(context.encode_reply(text, "truth"), injected=1.0, truncated=0.0)
                if others and "temperature" in others[0].columns:
                    truth = with_columns(truth, temperature=others[0].columns["temperature"])
                others = (*others, truth)
            out.append(replace(sample, replies=others))
        return out


class SmoothTruth(Transform, Settings):
    """Where a rollout's reward reaches that of the truth, the truth's becomes the mean of the rollouts'.

    Its advantage is then 0: no imitation of what the policy can do already (ViSurf, third rule). Between Score and the
    advantage; before DropZeroVariance, which then drops solved groups.
    """

    makes: ClassVar[tuple[str, ...]] = ("reward",)

    tolerance: float = Field(default=REACHED, ge=0)
    """A rollout this close below the truth has reached it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [self._smooth(sample, context) for sample in samples]

    def _smooth(self, sample: Sample, context: Context) -> Sample:
        rewards = [reward(sample, reply) for reply in sample.replies]
        truths = [i for i, reply in enumerate(sample.replies) if reply.origin == "truth"]
        rollouts = [r for i, r in enumerate(rewards) if i not in truths and r is not None]
        new = [float("nan") if r is None else r for r in rewards]
        for i in truths:
            own = rewards[i]
            reached = own is not None and bool(rollouts) and max(rollouts) >= own - self.tolerance
            context.log("truth/smoothed", float(reached))
            if reached:
                new[i] = fmean(rollouts)
        return with_column(sample, "reward", new)
