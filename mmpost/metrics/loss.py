"""The loss as a metric of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmpost.core.means import mean_by
from mmpost.metrics.embeddings import with_scores
from mmpost.types import Context, Objective, Sample, Transform


@dataclass(frozen=True)
class ObjectiveLoss(Transform):
    """Writes the score "loss": that of an optimizer step on the batch of samples that the sample is part of.

    Batches consist of consecutive samples; the last one may be smaller, and counts by its size in a mean over samples.
    """

    objective: Objective
    batch_size: int
    """Samples per batch, over all ranks: the loss of contrastive learning grows with it."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        sizes = context.gather([float(len(samples))])
        local_size = max(1, self.batch_size // len(sizes))
        scored = []
        # Every rank computes the same number of losses, since each is one of all ranks.
        for start in range(0, int(max(sizes)), local_size):
            batch = samples[start : start + local_size]
            loss = context.loss(batch, self.objective)
            scored += [with_scores(sample, {"loss": loss}) for sample in batch]
        return scored


def mean_loss(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean of the score "loss", as "loss"; empty without any."""
    scores = [reply.scores for sample in samples for reply in sample.replies]
    return mean_by(("loss", score["loss"]) for score in scores if "loss" in score)
