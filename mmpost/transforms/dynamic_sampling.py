"""Which groups are worth an update."""

from __future__ import annotations

from statistics import fmean

from mmpost.config.settings import Settings
from mmpost.transforms.advantage import SAME
from mmpost.transforms.columns import finite_or_none, reward
from mmpost.types import Context, Sample, Transform


class DropZeroVariance(Transform, Settings):
    """Drop groups whose scorable replies all have the same reward, an injected truth's included (dynamic sampling).

    Such a group has no gradient. Put it before `RefillBatch`, which refills the batch, and before what costs a forward.
    """

    score: str = ""
    """Look at this score of each reply instead of its reward, an accuracy without format credit for example."""
    bounds: tuple[float, float] | None = None
    """Also drop groups whose mean over the rollouts does not lie strictly between these."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        kept = []
        for sample in samples:
            keep = self._useful(sample)
            context.log("select/dropped", float(not keep))
            if keep:
                kept.append(sample)
        return kept

    def _useful(self, sample: Sample) -> bool:
        values = [finite_or_none(r.scores.get(self.score)) if self.score else reward(sample, r) for r in sample.replies]
        scored = [v for v in values if v is not None]
        if not scored or max(scored) - min(scored) <= SAME * max(abs(v) for v in scored):
            return False
        pairs = zip(values, sample.replies, strict=True)
        rollouts = [v for v, reply in pairs if v is not None and reply.origin != "truth"]
        if self.bounds is None or not rollouts:
            return True
        return self.bounds[0] < fmean(rollouts) < self.bounds[1]
