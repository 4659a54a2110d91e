"""Supervised fine-tuning: maximum likelihood of the replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from mmpost.types import Batch, Loss, Objective, Outputs


class Likelihood(Objective):
    """Cross-entropy (negative log-likelihood) of the trained tokens, `mask` [tok].

    Term: "nll", over all trained tokens of the step or, with reduce=reply, over its replies.
    """

    reduce: Literal["token", "reply"] = "token"
    """Mean over trained tokens, or over replies of the mean over their tokens; empty replies do not count."""

    def counts(self, batch: Batch) -> Mapping[str, float]:
        mask = batch.tok("mask")
        if self.reduce == "token":
            return {"nll": float(mask.sum())}
        return {"nll": float((batch.sum(mask) > 0).sum())}

    def zero_gradient_mask(self, batch: Batch) -> Bool[Tensor, " reply"]:
        return batch.sum(batch.tok("mask")) == 0

    def __call__(self, outputs: Outputs, batch: Batch) -> Loss:
        assert outputs.logp is not None
        mask = batch.tok("mask").to(outputs.logp)
        # masked_fill, not a product: what was not computed may be inf or NaN.
        nll = -outputs.logp.masked_fill(mask == 0, 0.0)
        weight = mask if self.reduce == "token" else batch.reply_mean(mask)
        return Loss(
            terms={"nll": (nll * weight).sum()},
            metrics={"nll/token": ((nll * mask).sum().detach(), mask.sum())},
        )
