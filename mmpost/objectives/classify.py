"""Cross-entropy of a classification head on a class number of each sample."""

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
    """Mean over samples of the cross-entropy on their class.

    A sample without a known class (NaN, below 0), or with none of `kinds`, is left out.
    """

    unit: ClassVar[Literal["reply", "group", "batch"]] = "group"

    label: str = "label"
    """The column of samples with the class, a whole number from 0."""
    modalities: tuple[str, ...] = ()
    """What the head reads; of a sample with none of them it would see zeros. Empty: all samples count."""
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target that is spread evenly over all classes."""

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"classes"})

    @property
    def required_columns(self) -> frozenset[str]:
        return frozenset({self.label})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {"nll": float(self._known(batch).sum())}

    def _known(self, batch: Batch) -> Bool[Tensor, " sample"]:
        known = batch.sample(self.label) >= 0
        return known & torch.stack([batch.has(kind) for kind in self.modalities]).any(0) if self.modalities else known

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        """Raises DataError for a class that the head does not have."""
        assert outputs.classes is not None
        known = self._known(batch)
        logits = outputs.classes[known]
        target: Int[Tensor, " sample"] = batch.sample(self.label)[known].long()
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise DataError(
                f"column {self.label!r}: wanted classes from 0 to {logits.shape[1] - 1}, as many as the head has, "
                f"found {int(target.max())}; give the head more classes"
            )
        nll = cross_entropy(logits, target, reduction="sum", label_smoothing=self.smoothing)
        hits = (logits.detach().argmax(1) == target).float().sum()
        size = float(len(target))
        return Loss({"nll": nll}, {"nll/sample": (nll.detach(), size), "accuracy": (hits, size)})
