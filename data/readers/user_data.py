"""The data of the user, as the `data` section names them: one or several weighted sources, optionally split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mmpost.config.settings import DataSettings, parse_weight
from mmpost.data.media.limits import Limits
from mmpost.data.readers.dataset import Rows, open_dataset
from mmpost.data.readers.tables import Opener
from mmpost.data.sources.base import Subset
from mmpost.data.sources.mix import Mix
from mmpost.errors import ConfigError, DataError
from mmpost.types import Split

UserData = Rows | Subset | Mix
"""The result of `user_data`; `where(index)` gives the file and row of a sample for messages."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def user_data(
    data: DataSettings,
    split: Split,
    loss: Literal["all", "last"] | None = None,
    prompt: str = "",
    openers: Mapping[str, Opener] | None = None,
    media_columns: Sequence[str] = (),
) -> UserData | None:
    """Open `data.train`, `data.val` or `data.test`; None if the user sets none for this split.

    With `data.split`, all three splits are disjoint parts of `data.train`. `loss` overrides `data.train_on_turns`;
    `prompt` is the question of rows without one, unless `data.prompt` is set. `openers` read the released files of the
    task's datasets, by suffix; `media_columns` are further columns whose media the task reads itself. Raises
    ConfigError for contradictory settings, DataError for data that cannot be read.
    """
    names = _as_tuple(data.train if data.split else getattr(data, split))
    if data.split:
        _check(data)
    if not names or (data.split and not data.split[SPLITS.index(split)]):
        return None
    pairs = [_weighted(name, split) for name in names]
    weights = [weight for _, weight in pairs if weight is not None]
    if weights and len(weights) < len(pairs):
        raise ConfigError(f"data.{split}: give a weight to each source or to none (FILE*0.5), found {list(names)}")
    sources: list[Rows | Subset] = []
    for path, _ in pairs:
        rows = open_dataset(
            path,
            data.root,
            loss or data.train_on_turns,
            data.prompt or prompt,
            Limits.of(data),
            openers,
            tuple(media_columns),
        )
        sources.append(_part(rows, data.split, split) if data.split else rows)
    return sources[0] if len(sources) == 1 else Mix(sources, weights or None)


def _weighted(name: str, split: Split) -> tuple[str, float | None]:
    """A source and its weight, if it has one. Raises ConfigError for a weight that is not a positive number."""
    path, weight = parse_weight(name)
    if weight is None and "*" in name:
        start, _, last = name.rpartition("*")
        try:
            path, weight = start, float(last)
        except ValueError:
            return name, None  # a pattern of files
    if weight is not None and not 0 < weight < math.inf:
        raise ConfigError(
            f"data.{split}: wanted positive numbers as weights, such as FILE*0.5, found {name[:200]!r}; correct the "
            "weight, or leave the source out"
        )
    return path, weight


def _as_tuple(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else value


def _check(data: DataSettings) -> None:
    if data.val or data.test:
        raise ConfigError(
            "data.split takes val and test from data.train: leave out data.val and data.test, or data.split"
        )
    if not data.train:
        raise ConfigError("data.split splits your own data: set data.train=FILE")


def _part(rows: Rows, fractions: tuple[float, float, float], split: Split) -> Subset:
    number = SPLITS.index(split)
    part = rows.between(sum(fractions[:number]), 1.0 if number == 2 else sum(fractions[: number + 1]))
    if not part:
        raise DataError(
            f"{rows.table.name}: data.split wants {fractions[number]:g} of it for {split}, found no row of {len(rows)} "
            "samples there; give it a larger fraction, or more rows"
        )
    return part
