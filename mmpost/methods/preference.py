"""What tasks that learn from preferences share: their settings, the stage that these make, and the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator

from mmpost.objectives.preference import Preference
from mmpost.transforms.logprobs import ReferenceLogprobs, ScoreLogprobs
from mmpost.transforms.pairs import EncodePairs, Mismatched
from mmpost.types import Bench, Gold, ReadsFrom, Sample, Source, Stage, Task, Transform


class PreferenceTask(Task):
    """A task that learns which replies are better (DPO and its relatives, KTO)."""

    prompts_per_step: int = Field(default=16, ge=1)
    """Samples (pairs) per step, over all ranks."""
    loss: Preference = Preference()
    """The loss and its options."""
    ref_model_sync_steps: int = Field(default=0, ge=0)
    """Steps between moves of the reference towards the policy (TR-DPO: 512); 0: it stays where the stage began."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0, le=1)
    """The policy's share in the reference after such a move."""

    @model_validator(mode="after")
    def _follows(self) -> PreferenceTask:
        if self.ref_model_sync_steps and not self.loss.reference:
            raise ValueError(
                f"ref_model_sync_steps moves the reference, and loss.loss_type={self.loss.loss_type} has none; "
                "drop one of them"
            )
        return self

    def preference_stage(
        self,
        name: str,
        source: Source,
        before: Sequence[Transform] = (),
        reads: ReadsFrom | None = None,
        share: float = 1.0,
        gold: tuple[Gold, ...] = (),
        **more: Any,
    ) -> Stage:
        """Replies that are chosen or rejected, reference log-probs where the loss compares with one, and the loss.

        The replies of `source` (or of what the stage `reads`) are judged by their columns `chosen` or `label`, or by
        what the transforms `before` write. `more`: other fields of the stage (optim, reference, edits, order, ...).
        """
        steps = (*before, *self._transforms())
        more["reference_sync"] = (
            (self.ref_model_sync_steps, self.ref_model_mixup_alpha) if self.ref_model_sync_steps else None
        )
        return Stage(
            name, source, self.loss, self.prompts_per_step, steps, reads_from=reads, fraction=share, gold=gold, **more
        )

    def _transforms(self) -> Iterator[Transform]:
        yield EncodePairs(unpaired=not self.loss.paired)
        if self.loss.mismatched:
            yield Mismatched()
        if self.loss.reference:
            yield ReferenceLogprobs()


def pair_bench(name: str, source: Source, before: Sequence[Transform] = ()) -> Bench:
    """How the policy orders the replies of samples that have good and bad ones."""
    return Bench(name, source, (*before, EncodePairs(unpaired=True), ScoreLogprobs()), ordered)


def ordered(samples: Sequence[Sample]) -> Mapping[str, float]:
    """Percent of pairs with the chosen reply the likelier one, as a whole and per token; log-probs and lengths of both.

    Chosen and rejected log-probs apart: a loss may widen the margin while both fall.
    """
    found: dict[str, list[float]] = {}
    for sample in samples:
        sides: dict[str, list[tuple[float, float]]] = {"chosen": [], "rejected": []}
        for reply in sample.replies:
            side = "chosen" if float(reply.columns["chosen"]) > 0.5 else "rejected"  # type: ignore[arg-type]
            sides[side].append((-reply.scores["nll"], reply.scores["tokens"]))
        for side, rows in sides.items():
            found.setdefault(f"logp/{side}", []).extend(logp for logp, _ in rows)
            found.setdefault(f"length/{side}", []).extend(n for _, n in rows)
        for logp, n in sides["chosen"]:
            for other, m in sides["rejected"]:
                found.setdefault("accuracy", []).append(100.0 * (logp > other))
                found.setdefault("accuracy_per_token", []).append(100.0 * (logp / max(n, 1) > other / max(m, 1)))
                found.setdefault("margin", []).append(logp - other)
    return {name: fmean(values) for name, values in found.items() if values}
