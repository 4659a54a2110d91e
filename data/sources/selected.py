"""Subsets of a source that selectors kept, dropped, or a random subset of the same size to compare with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mmpost.config.settings import DataSettings
from mmpost.data.sources.base import Subset
from mmpost.errors import ConfigError
from mmpost.types import SampleRecord, Source


def select_subset(source: Source, entries: Sequence[SampleRecord], data: DataSettings, seed: int) -> Subset:
    """The subset of `source` that `data.subset` and `data.max_samples` ask for, in the order of `entries`.

    Each entry names a sample by its index in the source; its column "kept" holds the decision of the selector. Entries
    with a `drop_reason` are never part of a subset. Random choices depend only on `seed` and the uids. Raises
    ConfigError if the subset would be empty.
    """
    usable = [e for e in entries if not e.drop_reason]
    kept = [e for e in usable if e.columns.get("kept", 1.0) > 0]
    dropped = [e for e in usable if not e.columns.get("kept", 1.0) > 0]
    pool = {"kept": kept, "dropped": dropped, "random": usable}[data.subset]
    # A random subset has as many samples as the kept one: it is the baseline of the same size.
    size = len(kept) if data.subset == "random" else len(pool)
    size = min(size, data.max_samples or size)
    if not size:
        raise ConfigError(
            f"data.subset={data.subset} leaves nothing to train on: of {len(entries)} samples {len(kept)} are kept and "
            f"{len(entries) - len(usable)} cannot be used; select with other bounds"
        )
    uids = {e.uid for e in shuffled_by_uid(pool, seed)[:size]} if size < len(pool) else None
    return Subset(source, [e.index for e in pool if uids is None or e.uid in uids])


def shuffled_by_uid(entries: Sequence[SampleRecord], seed: int) -> list[SampleRecord]:
    """The entries in a pseudo-random order that depends only on `seed` and the uids.

    Unlike a shuffle by position, adding or removing entries does not change the relative order of the others.
    """
    return sorted(entries, key=lambda e: hashlib.sha256(f"{seed}/{e.uid}".encode()).digest())
