"""Supervised training of a classification head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmpost.errors import DataError
from mmpost.types import Batch, Loss, Objective, Outputs


class Classify(Objective):
    """Cross-entropy of the head's logits [sample, class] on each sample's class; term "nll", a mean over samples.

    Samples with an unknown class (NaN or negative), or with none of `modalities`, are left out.
    """

    unit: ClassVar[Literal["reply", "group", "batch"]] = "group"

    label: str = "label"
    """The sample column that holds the class index, from 0."""
    modalities: tuple[str, ...] = ()
    """The head's input modalities; a sample with none of them would be all zeros. Empty: every sample counts."""
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Label smoothing: fraction of the target that is spread uniformly over all classes."""

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"classes"})

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({self.label})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {"nll": float(self._known(batch).sum())}

    def _known(self, batch: Batch) -> Bool[Tensor, " sample"]:
        known = batch.sample(self.label) >= 0  # NaN compares false
        return (
            known & torch.stack([batch.has(modality) for modality in self.modalities]).any(0)
            if self.modalities
            else known
        )

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """Raises DataError for a class index beyond the head's classes."""
        assert outputs.classes is not None
        known = self._known(batch)
        logits = outputs.classes[known]
        target: Int[Tensor, " sample"] = batch.sample(self.label)[known].long()
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise DataError(
                f"column {self.label!r}: wanted class indices from 0 to {logits.shape[1] - 1}, as the head has "
                f"{logits.shape[1]} classes, found {int(target.max())}; give the head more classes"
            )
        nll = cross_entropy(logits, target, reduction="sum", label_smoothing=self.smoothing)
        hits = (logits.detach().argmax(1) == target).float().sum()
        size = float(len(target))
        return Loss({"nll": nll}, {"nll/sample": (nll.detach(), size), "accuracy": (hits, size)})
