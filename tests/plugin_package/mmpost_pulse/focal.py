"""The focal loss of a classifier."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

import mmpost as mp


class FocalLoss(mp.Objective):
    """-(1 - p)^gamma log p of each sample's class (Lin et al. 2017, arXiv 1708.02002); a mean over samples."""

    unit: ClassVar[Literal["reply", "group", "batch"]] = "group"

    gamma: float = 2.0
    """How strongly samples that are classified well are down-weighted; 0: cross-entropy."""

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"classes"})

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({"label"})

    def counts(self, batch: mp.Batch) -> Mapping[str, float]:
        return {"focal": float(batch.samples)}

    def __call__(self, outputs: mp.Outputs, batch: mp.Batch) -> mp.Loss:
        assert outputs.classes is not None
        label = batch.sample("label").long()
        logp = outputs.classes.log_softmax(-1).gather(1, label[:, None]).squeeze(1)
        hits = (outputs.classes.argmax(1) == label).float().sum()
        loss = -((1 - logp.exp()) ** self.gamma * logp).sum()
        return mp.Loss({"focal": loss}, {"accuracy": (hits, torch.tensor(float(batch.samples)))})
