"""Parse failures of the rewards: of the policy's replies, and separately of the gold replies."""

from __future__ import annotations

from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.types import Context, Gold, Sample, Transform


class ParseRate(Transform, Settings):
    """Log the fraction of replies, and of gold replies, that the rewards cannot parse; samples are not changed.

    `reply/unparseable`: sampled replies. Training should reduce it, as such replies score low. `data/unparseable_gold`:
    an error in the data or the task; `mmpost check` lists the samples. Samples without usable truth are not counted
    there.
    """

    timer: ClassVar[str] = "score"

    gold: Gold
    """Writes the gold replies, and decides with `is_parseable` what can be parsed; without that, nothing is logged."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        is_parseable = self.gold.is_parseable
        if is_parseable is None:
            return samples
        for sample in samples:
            for reply in sample.replies:
                if reply.origin == "policy":
                    context.log("reply/unparseable", float(not is_parseable(reply.text)))
            text = gold_text(self.gold, sample)
            if text is not None:
                context.log("data/unparseable_gold", float(not is_parseable(text)))
        return samples


def gold_text(gold: Gold, sample: Sample) -> str | None:
    """The gold reply to a sample; None without usable truth. Raises DataError with the sample if `gold.text` raises."""
    try:
        return gold.text(sample)
    except Exception as e:
        raise DataError(
            f"sample {sample.uid!r}: writing its gold reply raised {type(e).__name__}: {e}; its truth is "
            f"{sample.truth!r:.200}. Fix the row, or let the task's `gold` return None for it"
        ) from e
