"""Synthetic stars in the released format of the AstroM3 dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from mmpost.data.signals.preprocess import META, PHOTO
from mmpost.data.worlds.stars.catalogue import Stars


def rows(n: int) -> list[dict[str, Any]]:
    """Rows of the first `n` training stars."""
    records = []
    for sample in (Stars("train", 64)[i] for i in range(n)):
        curve, spectrum, record = (p.value.open() for p in sample.prompt)
        metadata = {"meta_cols": {k: record[k] for k in META}, "photo_cols": {k: record[k] for k in PHOTO}}
        points = {"photometry": curve.table.tolist(), "spectra": spectrum.table.tolist()}
        records.append({**points, "metadata": metadata, "label": sample.truth})
    return records


def save(folder: Path, n: int) -> str:
    """Save three equal splits with `datasets`."""
    data = datasets.Dataset.from_list(rows(n))
    datasets.DatasetDict({"train": data, "validation": data, "test": data}).save_to_disk(str(folder))
    return str(folder)
