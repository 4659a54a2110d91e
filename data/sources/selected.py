"""Some samples of a source, as verdicts by uid and a few settings say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mmpost.config.settings import DataSettings
from mmpost.data.sources.base import Subset
from mmpost.errors import ConfigError
from mmpost.types import SampleRecord, Source


def chosen(source: Source, entries: Sequence[SampleRecord], data: DataSettings, seed: int) -> Subset:
    """The samples of `source` that `data.subset` and `data.max_samples` ask for, in the order of `entries`.

    `entries` say where in the source each sample stands, and in their column "kept" whether to keep it; one that was
    lost is never chosen. What is drawn at random follows from the seed and the uids. Raises ConfigError where nothing
    is left.
    """
    there = [e for e in entries if not e.drop_reason]
    kept = [e for e in there if e.columns.get("kept", 1.0) > 0]
    dropped = [e for e in there if not e.columns.get("kept", 1.0) > 0]
    pool = {"kept": kept, "dropped": dropped, "random": there}[data.subset]
    number = len(kept) if data.subset == "random" else len(pool)
    number = min(number, data.max_samples or number)
    if not number:
        raise ConfigError(
            f"data.subset={data.subset} leaves nothing to train on: of {len(entries)} samples {len(kept)} are kept and "
            f"{len(entries) - len(there)} cannot be used; select with other bounds"
        )
    drawn = {e.uid for e in drawn_by(pool, seed)[:number]} if number < len(pool) else None
    return Subset(source, [e.index for e in pool if drawn is None or e.uid in drawn])


def drawn_by(entries: Sequence[SampleRecord], seed: int) -> list[SampleRecord]:
    """The entries in an order that follows from the seed and each one's uid: a first part of it is a fair draw."""
    return sorted(entries, key=lambda e: hashlib.sha256(f"{seed}/{e.uid}".encode()).digest())
