"""How much several readings of a picture agree (TRivia, arXiv 2512.01248)."""

from __future__ import annotations

from dataclasses import replace

from mmpost.config.settings import Settings
from mmpost.rewards.text import answer_or_text
from mmpost.tables.questions import recognised_table
from mmpost.tables.teds import consistency
from mmpost.types import Context, Sample, Transform


class Consistency(Transform, Settings):
    """Writes the sample column "consistency": the mean TEDS of two sampled replies, 0 to 1; drops the replies.

    TEDS is in normal form; a reply without a table agrees with no other, and a negative mean counts 0.
    """

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        measured = []
        for sample in samples:
            tables = [
                recognised_table(answer_or_text(reply.text)) for reply in sample.replies if reply.origin == "policy"
            ]
            value = max(0.0, consistency(tables, normalized=True))
            context.log("readings/consistency", value)
            measured.append(replace(sample, replies=(), columns={**sample.columns, "consistency": value}))
        return measured
