"""The user's own data, as the `data` section names it: one source or several with weights, whole or split."""

from __future__ import annotations

from typing import Literal

from mmpost.config.settings import DataSettings, parse_weight
from mmpost.data.media.limits import Limits
from mmpost.data.readers.dataset import Rows, read
from mmpost.data.sources.base import Subset
from mmpost.data.sources.mix import Mix
from mmpost.errors import ConfigError, DataError
from mmpost.types import Split

Own = Rows | Subset | Mix
"""What `own` makes; each has `where(index)`, the place of a sample as messages name it."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def own(data: DataSettings, split: Split, loss: Literal["all", "last"] | None = None, prompt: str = "") -> Own | None:
    """The samples of `data.train`, `data.val` or `data.test`; None where the user names none for this split.

    With `data.split`, all three are parts of `data.train`. `loss` overrides `data.train_on_turns`; `prompt` asks
    rows without a question, unless `data.prompt` does. Raises ConfigError for settings that contradict one another,
    DataError for what cannot be read.
    """
    named = _names(data.train if data.split else getattr(data, split))
    if data.split:
        _check(data)
    if not named or (data.split and not data.split[SPLITS.index(split)]):
        return None
    pairs = [parse_weight(name) for name in named]
    weights = [weight for _, weight in pairs if weight is not None]
    if weights and len(weights) < len(pairs):
        raise ConfigError(f"data.{split}: give a weight to each source or to none (FILE*0.5), found {list(named)}")
    sources: list[Rows | Subset] = []
    for path, _ in pairs:
        rows = read(path, data.root, loss or data.train_on_turns, data.prompt or prompt, Limits.of(data))
        sources.append(_part(rows, data.split, split) if data.split else rows)
    return sources[0] if len(sources) == 1 else Mix(sources, weights or None)


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else value


def _check(data: DataSettings) -> None:
    if data.val or data.test:
        raise ConfigError(
            "data.split makes val and test from data.train: leave data.val and data.test out, or data.split"
        )
    if not data.train:
        raise ConfigError("data.split splits your own data: say data.train=FILE")


def _part(rows: Rows, shares: tuple[float, float, float], split: Split) -> Subset:
    place = SPLITS.index(split)
    part = rows.between(sum(shares[:place]), 1.0 if place == 2 else sum(shares[: place + 1]))
    if not part:
        raise DataError(
            f"{rows.table.name}: data.split wants {shares[place]:g} of it for {split}, found no row of {len(rows)} "
            "samples there; give it a larger share, or more rows"
        )
    return part
