"""Dynamic sampling (DAPO): train only on groups that have a gradient."""

from __future__ import annotations

from statistics import fmean

from mmpost.config.settings import Bound, Settings
from mmpost.core.columns import finite_or_none, reward
from mmpost.transforms.advantage import EQUAL_WITHIN
from mmpost.types import Context, Sample, Transform


class DropZeroVariance(Transform, Settings):
    """Drop groups whose replies, including an injected truth, all have the same reward: their advantages are all 0.

    Replies without reward (NaN) are ignored. Put it before `RefillBatch`, which samples replacements, and before
    transforms that need a forward pass. Logs the fraction of dropped groups as "resample/dropped".
    """

    score: str = ""
    """Compare this score instead of the reward, for example an accuracy without format credit."""
    bounds: tuple[Bound, Bound] | None = None
    """Also drop groups whose mean over the rollouts is not strictly between these two; .inf and -.inf: no bound."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            keep = self._has_signal(sample)
            context.log("resample/dropped", float(not keep))
            if keep:
                out.append(sample)
        return out

    def _has_signal(self, sample: Sample) -> bool:
        values = [finite_or_none(r.scores.get(self.score)) if self.score else reward(sample, r) for r in sample.replies]
        scored = [v for v in values if v is not None]
        if not scored or max(scored) - min(scored) <= EQUAL_WITHIN * max(abs(v) for v in scored):
            return False
        pairs = zip(values, sample.replies, strict=True)
        rollouts = [v for v, reply in pairs if v is not None and reply.origin != "truth"]
        if self.bounds is None or not rollouts:
            return True
        return self.bounds[0] < fmean(rollouts) < self.bounds[1]
