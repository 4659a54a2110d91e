"""The AstroM3 dataset as published: a folder or Hub name for `datasets`, with configurations and three splits.

Configurations are `{full|sub50|sub25|sub10}_{seed}`, with the suffix `_norm` where the metadata are already
preprocessed and standardized. A row has photometry (N x 3: HJD, flux, error), spectra (M x 3: wavelength, flux, and a
third column that holds the inverse variance in LAMOST files), metadata with meta_cols and photo_cols, and a label.
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
from mmpost.data.signals.points import check_points, numbers
from mmpost.data.sources.base import Indexed
from mmpost.errors import ConfigError, DataError
from mmpost.types import Part, Sample, Split

if TYPE_CHECKING:
    from datasets import Dataset

NAMES: Mapping[Split, str] = {"train": "train", "val": "validation", "test": "test"}
CONFIG = re.compile(r"(full|sub50|sub25|sub10)_\d+(_norm)?")
COLUMNS = ("photometry", "spectra", "metadata", "label")


def check_config(name: str) -> str:
    """Return `name` if it is a published configuration, else raise ConfigError."""
    if not CONFIG.fullmatch(name):
        raise ConfigError(
            f"wanted a configuration of the dataset such as full_42 or sub10_123_norm, found {name!r}: "
            "{full|sub50|sub25|sub10}_{seed}, with _norm for standardized metadata"
        )
    return name


def load(place: str, config: str, split: Split) -> Dataset:
    """Load one split of a local folder (saved by `datasets`, or Parquet files by configuration) or of a Hub dataset.

    Raises DataError, with the alternatives, for a configuration or split that is missing or does not load.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    check_config(config)
    folder = Path(place).expanduser()
    try:
        if not folder.exists():
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
                raise DataError(f"Wanted a folder or the name of a Hub dataset (owner/name), found nothing at {place}.")
            return _checked(datasets.load_dataset(place, config, split=NAMES[split]), place)
        inner = folder / config if (folder / config).is_dir() else folder
        others = sorted(p.name for p in inner.iterdir() if p.is_dir() and CONFIG.fullmatch(p.name))
        if others:
            # Splits differ between configurations: training stars of one are test stars of another.
            raise DataError(f"Wanted the configuration {config} in {place}, found {', '.join(others[:10])}.")
        if (inner / "dataset_dict.json").exists():
            splits = datasets.load_from_disk(str(inner))
            if NAMES[split] not in splits:
                raise DataError(f"Wanted the split {NAMES[split]} in {inner}, found {', '.join(map(str, splits))}.")
            return _checked(splits[NAMES[split]], place)
        files: list[Any] = sorted(str(f) for f in inner.rglob(f"{NAMES[split]}*.parquet"))
        if not files:
            present = ", ".join(sorted(p.name for p in inner.iterdir())[:10]) or "nothing"
            raise DataError(
                f"Wanted {NAMES[split]}*.parquet or a folder saved by `datasets` in {inner}, found {present}. "
                f"The requested configuration is {config}."
            )
        return _checked(datasets.Dataset.from_parquet(files), place)
    except (OSError, ValueError, KeyError, DatasetGenerationError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place}: wanted the dataset {config}/{NAMES[split]}, which does not load ({error})."
        ) from error


def _checked(dataset: Any, place: str) -> Dataset:
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        raise DataError(
            f"{place}: wanted the columns {', '.join(COLUMNS)}; {', '.join(missing)} is missing among "
            f"{', '.join(dataset.column_names)}. Name a dataset in AstroM3's format."
        )
    return dataset


class PublishedStars(Indexed):
    """One split as samples without replies, whose parts are the light curve, spectrum and record, as far as present.

    The label is the truth and, as its index in `classes`, the column "label".
    """

    def __init__(
        self,
        rows: Dataset,
        classes: Sequence[str],
        modalities: Sequence[str],
        name: str = "AstroM3",
        limits: Limits = DEFAULT,
    ) -> None:
        self.rows, self.name, self.limits = rows, name, limits
        self.classes, self.modalities = tuple(classes), tuple(modalities)

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Name and number of a row, counted from 1, for messages."""
        return f"{self.name}:{index + 1}"

    @cached_property
    def labels(self) -> list[int]:
        """The class of each row by number. Raises DataError for a label that is not a class."""
        return [self._label(name, index) for index, name in enumerate(self.rows["label"])]

    @cached_property
    def _names(self) -> Sequence[str] | None:
        """Names of the labels, where the dataset stores them as numbers."""
        return getattr(self.rows.features["label"], "names", None)

    def sample(self, index: int) -> Sample:
        row = self.rows[index]
        try:
            metadata = row["metadata"] or {}
            if not isinstance(metadata, Mapping):
                raise DataError(
                    f"Wanted metadata with meta_cols and photo_cols, found a {type(metadata).__name__}: numbers "
                    "without names are preprocessed already. Use the dataset in its raw form (AstroM3Dataset)."
                )
            about, record = (numbers(metadata[k]) if metadata.get(k) else {} for k in ("photo_cols", "meta_cols"))
            # photo_cols go into both: the light-curve encoder uses them, and the record has all 38 numbers.
            candidates = [
                ("light_curve", row["photometry"], lambda v: self._points(v, "light_curve", about)),
                ("spectrum", row["spectra"], lambda v: self._points(v, "spectrum", {})),
                ("record", record, lambda v: media({**v, **about}, "record", limits=self.limits)),
            ]
            parts = tuple(
                Part(k, make(v)) for k, v, make in candidates if k in self.modalities and v is not None and len(v)
            )
            if not parts:
                raise DataError(f"Wanted one of {', '.join(self.modalities)}, found none. Drop the row.")
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

    def _points(self, value: Any, modality: str, about: Mapping[str, float]) -> Media:
        names = TIMES if modality == "light_curve" else WAVES
        return media(check_points(value, about, names), modality, limits=self.limits)
