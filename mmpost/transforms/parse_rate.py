"""What the rewards cannot read, counted: replies, and apart from them gold."""

from __future__ import annotations

from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.types import Context, Gold, Sample, Transform


class ParseRate(Transform, Settings):
    """Log the share of the policy's replies that cannot be read, and of the samples whose gold cannot; changes nothing.

    `reply/unparseable` is the policy's to mend, and such a reply has its low score already; `data/unparseable_gold` is
    the data's, and `mmpost check` names the samples. Samples without usable truth count in neither.
    """

    timer: ClassVar[str] = "score"

    gold: Gold
    """What a right reply is, and whether a text can be read (`parses`); without that, nothing is counted."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        parses = self.gold.is_parseable
        if parses is None:
            return samples
        for sample in samples:
            for reply in sample.replies:
                if reply.origin == "policy":
                    context.log("reply/unparseable", float(not parses(reply.text)))
            text = gold_text(self.gold, sample)
            if text is not None:
                context.log("data/unparseable_gold", float(not parses(text)))
        return samples


def gold_text(gold: Gold, sample: Sample) -> str | None:
    """The right reply to a sample; None without usable truth. Raises DataError for one that cannot be written."""
    try:
        return gold.text(sample)
    except Exception as e:
        raise DataError(
            f"sample {sample.uid!r}: writing its gold reply raised {type(e).__name__}: {e}; its truth is "
            f"{sample.truth!r:.200}. Mend the row, or let the task's `gold` return None for it"
        ) from e
