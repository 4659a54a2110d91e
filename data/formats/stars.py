"""The AstroM3 data set in its published form: a folder or hub name of `datasets`, one configuration, three splits.

Configurations are `{full|sub50|sub25|sub10}_{seed}`, with `_norm` where the metadata are preprocessed and standardised
already. A row has photometry (N x 3: HJD, flux, error), spectra (M x 3: wavelength, flux and a third column, which the
LAMOST files fill with the inverse variance), metadata with meta_cols and photo_cols, and a label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpost.data.media.limits import DEFAULT, Limits
from mmpost.data.media.media import Media, media
from mmpost.data.signals.modalities import TIMES, WAVES
from mmpost.data.signals.points import checked, numbers
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError, DataError
from mmpost.types import Part, Sample, Split

if TYPE_CHECKING:
    from datasets import Dataset

NAMES: Mapping[Split, str] = {"train": "train", "val": "validation", "test": "test"}
CONFIG = re.compile(r"(full|sub50|sub25|sub10)_\d+(_norm)?")
COLUMNS = ("photometry", "spectra", "metadata", "label")


def check_config(name: str) -> str:
    """`name`, where it is one of the published configurations. Raises ConfigError for others."""
    if not CONFIG.fullmatch(name):
        raise ConfigError(
            f"wanted a configuration of the data set such as full_42 or sub10_123_norm, found {name!r}: "
            "{full|sub50|sub25|sub10}_{seed}, with _norm for standardised metadata"
        )
    return name


def load(place: str, config: str, split: Split) -> Dataset:
    """One split of a folder (saved by `datasets`, or with Parquet files by configuration) or of a data set of the hub.

    Raises DataError for what is not there or does not load, with what is.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    check_config(config)
    folder = Path(place).expanduser()
    try:
        if not folder.exists():
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
                raise DataError(f"Wanted a folder or a name of the hub (owner/name), found nothing at {place}.")
            return _one(datasets.load_dataset(place, config, split=NAMES[split]), place)
        inner = folder / config if (folder / config).is_dir() else folder
        others = sorted(p.name for p in inner.iterdir() if p.is_dir() and CONFIG.fullmatch(p.name))
        if others:
            # Their splits differ: stars that one trains on are those that another tests on.
            raise DataError(f"Wanted the configuration {config} in {place}, found {', '.join(others[:10])}.")
        if (inner / "dataset_dict.json").exists():
            whole = datasets.load_from_disk(str(inner))
            if NAMES[split] not in whole:
                raise DataError(f"Wanted the split {NAMES[split]} in {inner}, found {', '.join(map(str, whole))}.")
            return _one(whole[NAMES[split]], place)
        files: list[Any] = sorted(str(f) for f in inner.rglob(f"{NAMES[split]}*.parquet"))
        if not files:
            there = ", ".join(sorted(p.name for p in inner.iterdir())[:10]) or "nothing"
            raise DataError(
                f"Wanted {NAMES[split]}*.parquet or a folder saved by `datasets` in {inner}, found {there}. "
                f"The configuration asked for is {config}."
            )
        return _one(datasets.Dataset.from_parquet(files), place)
    except (OSError, ValueError, KeyError, DatasetGenerationError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place}: wanted the data set {config}/{NAMES[split]}, which does not load ({error})."
        ) from error


def _one(found: Any, place: str) -> Dataset:
    missing = [name for name in COLUMNS if name not in found.column_names]
    if missing:
        raise DataError(
            f"{place}: wanted the columns {', '.join(COLUMNS)}; {', '.join(missing)} is missing among "
            f"{', '.join(found.column_names)}. Name a data set in AstroM3's format."
        )
    return found


class PublishedStars(Indexed):
    """One split as samples without replies: a light curve, a spectrum and a record, whichever the row has.

    The label is the truth and, by its place among `classes`, the column "label".
    """

    def __init__(
        self,
        rows: Dataset,
        classes: Sequence[str],
        kinds: Sequence[str],
        name: str = "AstroM3",
        limits: Limits = DEFAULT,
    ) -> None:
        self.rows, self.classes, self.kinds, self.name, self.limits = rows, tuple(classes), tuple(kinds), name, limits

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """The row's place, counted from 1."""
        return f"{self.name}:{index + 1}"

    @cached_property
    def labels(self) -> list[int]:
        """The class of each row, by number. Raises DataError for one that is not among the classes."""
        return [self._label(name, index) for index, name in enumerate(self.rows["label"])]

    @cached_property
    def _names(self) -> Sequence[str] | None:
        """Names of the numbers that stand for labels, where the data set has numbers."""
        return getattr(self.rows.features["label"], "names", None)

    def sample(self, index: int) -> Sample:
        row = self.rows[index]
        try:
            found = row["metadata"] or {}
            if not isinstance(found, Mapping):
                raise DataError(
                    f"Wanted metadata with meta_cols and photo_cols, found a {type(found).__name__}: numbers without "
                    "names are preprocessed already. Take the data set in its raw form (AstroM3Dataset)."
                )
            about, record = (numbers(found[k]) if found.get(k) else {} for k in ("photo_cols", "meta_cols"))
            # A light curve may not know less of itself than its record.
            made = [
                ("light_curve", row["photometry"], lambda v: self._points(v, "light_curve", about)),
                ("spectrum", row["spectra"], lambda v: self._points(v, "spectrum", {})),
                ("record", record, lambda v: media({**v, **about}, "record", limits=self.limits)),
            ]
            parts = tuple(Part(k, make(v)) for k, v, make in made if k in self.kinds and v is not None and len(v))
            if not parts:
                raise DataError(f"Wanted one of {', '.join(self.kinds)}, found none. Drop the row.")
        except DataError as error:
            raise DataError(f"{self.where(index)}: {error}") from error
        label = self._label(row["label"], index)
        name = self.classes[label]
        columns = {"label": float(label), "odd": 0.0, "wrong": 0.0}
        return Sample(self.where(index), parts, truth=name, meta={"class": name}, columns=columns)

    def _label(self, name: Any, index: int) -> int:
        if self._names is not None and isinstance(name, int) and 0 <= name < len(self._names):
            name = self._names[name]
        if name not in self.classes:
            raise DataError(f"{self.where(index)}: wanted a label among {', '.join(self.classes)}; found {name!r}.")
        return self.classes.index(name)

    def _points(self, value: Any, kind: str, about: Mapping[str, float]) -> Media:
        names = TIMES if kind == "light_curve" else WAVES
        return media(checked(value, about, names), kind, limits=self.limits)
