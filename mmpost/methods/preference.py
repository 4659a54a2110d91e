"""The base class of tasks that learn from preferences, and the evaluation that goes with them."""

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
    """Samples (usually one pair each) per optimizer step, over all ranks."""
    loss: Preference = Preference()
    """The loss and its options."""
    ref_model_sync_steps: int = Field(default=0, ge=0)
    """Steps between updates of the reference model towards the policy (TR-DPO: 512); 0 keeps it fixed."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0, le=1)
    """Weight of the policy in such an update: reference = alpha policy + (1 - alpha) reference."""

    @model_validator(mode="after")
    def _has_reference_to_sync(self) -> PreferenceTask:
        if self.ref_model_sync_steps and not self.loss.reference:
            raise ValueError(
                f"ref_model_sync_steps updates the reference model, and loss.loss_type={self.loss.loss_type} has none; "
                "drop one of them"
            )
        return self

    def preference_stage(
        self,
        name: str,
        source: Source,
        before: Sequence[Transform] = (),
        reads_from: ReadsFrom | None = None,
        fraction: float = 1.0,
        gold: tuple[Gold, ...] = (),
        **stage_fields: Any,
    ) -> Stage:
        """A training stage: encode the labeled replies, add the log-probs of the reference, minimize the loss.

        `source`: samples whose replies are labeled by their column `chosen` or `label`.
        `before`: transforms that run first, for samples that still lack replies or labels (WritePairs, BuildPairs).
        `reads_from`: train on the output of this data-generation stage instead.
        `fraction`: weight of the stage when the run's steps are divided among its stages.
        `gold`: correct replies, for `mmpost check`.
        `stage_fields`: other fields of the stage (optim, reference, edits, order, ...).
        """
        if self.ref_model_sync_steps:
            stage_fields["reference_sync"] = (self.ref_model_sync_steps, self.ref_model_mixup_alpha)
        return Stage(
            name,
            source,
            self.loss,
            self.prompts_per_step,
            (*before, *self._transforms()),
            reads_from=reads_from,
            fraction=fraction,
            gold=gold,
            **stage_fields,
        )

    def _transforms(self) -> Iterator[Transform]:
        yield EncodePairs(unpaired=not self.loss.paired)
        # KTO's reference point is the mean log-ratio of replies to other prompts. Their reference log-probs are needed
        # as well, hence the order.
        if self.loss.mismatched:
            yield Mismatched()
        if self.loss.reference:
            yield ReferenceLogprobs()


def pair_bench(name: str, source: Source, before: Sequence[Transform] = ()) -> Bench:
    """An evaluation of how the policy ranks the chosen and rejected replies of `source`: see `pair_metrics`."""
    return Bench(name, source, (*before, EncodePairs(unpaired=True), ScoreLogprobs()), pair_metrics)


def pair_metrics(samples: Sequence[Sample]) -> Mapping[str, float]:
    """Means over the pairs of `samples`, whose replies need the column `chosen` and the scores of ScoreLogprobs.

    accuracy and accuracy_per_token: percent of pairs whose chosen reply has the higher log-prob, summed or averaged
    over tokens. margin: log-prob of the chosen reply minus that of the rejected one, in nats. logp/ and length/ (in
    tokens) of chosen and rejected replies are reported separately, since a loss may widen the margin while both
    log-probs fall. A metric without values is left out.
    """
    values: dict[str, list[float]] = {}
    for sample in samples:
        sides: dict[str, list[tuple[float, float]]] = {"chosen": [], "rejected": []}
        for reply in sample.replies:
            side = "chosen" if float(reply.columns["chosen"]) > 0.5 else "rejected"  # type: ignore[arg-type]
            sides[side].append((-reply.scores["nll"], reply.scores["tokens"]))
        for side, rows in sides.items():
            values.setdefault(f"logp/{side}", []).extend(logp for logp, _ in rows)
            values.setdefault(f"length/{side}", []).extend(tokens for _, tokens in rows)
        for logp_w, n_w in sides["chosen"]:
            for logp_l, n_l in sides["rejected"]:
                per_token = logp_w / max(n_w, 1) > logp_l / max(n_l, 1)
                values.setdefault("accuracy", []).append(100.0 * (logp_w > logp_l))
                values.setdefault("accuracy_per_token", []).append(100.0 * per_token)
                values.setdefault("margin", []).append(logp_w - logp_l)
    return {name: fmean(numbers) for name, numbers in values.items() if numbers}
