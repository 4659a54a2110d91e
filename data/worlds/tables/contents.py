"""What tables say: a few rows and features of a data set, with headers and groups."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from mmpost.data.worlds.tables.measurements import NAMES, Feature, Measurements, measurements, rows
from mmpost.tables.table import Cell, Section, Table
from mmpost.types import Split

MAX_COLUMNS = 4
MAX_ROWS = 4
"""Most rows of a table's body."""

GROUPED = 0.4
"""Fraction of tables that have a header above the features of a group."""
CLASSED = 0.5
"""Fraction of tables that show the class of each row, of those from data sets with classes."""
EMPTY_CORNER = 0.2
"""Fraction of tables whose first header is empty."""

CORNERS = ("No", "ID", "Nr")
LETTERS = "ABCDEFGHKMPRSTX"
"""Initials of row names; I and O look like digits."""


def make_table(rng: random.Random, split: Split) -> Table:
    """A table with 2 to 4 columns and 2 to 4 rows below one or two rows of headers.

    The first column has distinct names of rows. The second may have their classes, one cell for neighbors of the same
    class. The others are features of a data set. No two headers are equal, and no text has more than four characters.
    """
    name = _data_set(rng)
    data, available = measurements(name), rows(name, split)
    classed = bool(data.classes) and rng.random() < CLASSED
    chosen = rng.sample(available, min(rng.randint(2, MAX_ROWS), len(available)))
    if classed:
        chosen.sort(key=lambda row: data.classes[row])
    names = _row_names(rng, data, chosen, classed)
    features = _features(rng, data, rng.randint(1, MAX_COLUMNS - 1 - classed))
    first = "" if rng.random() < EMPTY_CORNER else rng.choice(CORNERS)
    outer = [_header(first), *([_header(data.class_name)] if classed else [])]
    head = _head(outer, features, grouped=rng.random() < GROUPED)
    body = _body(data, chosen, names, features, classed)
    return Table((Section("thead", head), Section("tbody", body)))


def make_small_table(rng: random.Random, split: Split) -> Table:
    """One to three cells in one row, or one or two in each of two or three, without spans: what is easy to read."""
    name = _data_set(rng)
    data = measurements(name)
    chosen = rng.sample(rows(name, split), min(rng.randint(1, 3), len(rows(name, split))))
    features = _features(rng, data, rng.randint(1, 3 if len(chosen) == 1 else 2))
    columns = [[data.texts[feature.name][row] for row in chosen] for feature in features]
    corner = rng.choice(CORNERS)
    if rng.random() < 0.5:
        columns[0] = _row_names(rng, data, chosen, classed=rng.random() < 0.8)
    else:
        corner = features[0].name
    if rng.random() < 0.4:
        for column, text in zip(columns, (corner, *(feature.name for feature in features[1:])), strict=True):
            column[0] = text
    return Table((Section("tbody", tuple(tuple(map(_cell, row)) for row in zip(*columns, strict=True))),))


def _data_set(rng: random.Random) -> str:
    """The name of a data set, in proportion to the number of features: those with few repeat soon."""
    return rng.choices(NAMES, [len(measurements(name).features) for name in NAMES])[0]


def _cell(text: str, rowspan: int = 1) -> Cell:
    return Cell(tuple(text), rowspan)


def _header(text: str, rowspan: int = 1, colspan: int = 1) -> Cell:
    return Cell(tuple(text), rowspan, colspan, header=True)


def _row_names(rng: random.Random, data: Measurements, chosen: Sequence[int], classed: bool) -> list[str]:
    """Distinct names: classes where these differ and are not shown anyway, numbers in the data set, or codes."""
    classes = [data.classes[row] for row in chosen] if data.classes else []
    if not classed and classes and len(set(classes)) == len(classes):
        return classes
    if rng.random() < 0.4:
        return [str(row + 1) for row in chosen]
    letter = rng.choice(LETTERS)
    return [f"{letter}{number}" for number in rng.sample(range(1, 10), len(chosen))]


def _features(rng: random.Random, data: Measurements, count: int) -> list[Feature]:
    """`count` features in the order of the data set; half of the time from one group, if it has as many."""
    candidates = data.features
    if rng.random() < 0.5:
        group = rng.choice(sorted({feature.group for feature in candidates}))
        alike = [feature for feature in candidates if feature.group == group]
        candidates = alike if len(alike) >= count else candidates
    return [candidates[number] for number in sorted(rng.sample(range(len(candidates)), count))]


def _head(outer: Sequence[Cell], features: Sequence[Feature], grouped: bool) -> tuple[tuple[Cell, ...], ...]:
    """The rows of headers: `outer` first, then features; two rows if they are to be grouped and two share a group."""
    runs = [(group, list(run)) for group, run in groupby(features, key=lambda feature: feature.group)]
    if not grouped or not any(group and len(run) > 1 for group, run in runs):
        return ((*outer, *(_header(feature.name) for feature in features)),)
    upper = [Cell(cell.tokens, 2, header=True) for cell in outer]
    lower = []
    for group, run in runs:
        if group and len(run) > 1:
            upper.append(_header(group, colspan=len(run)))
            lower += [_header(feature.name) for feature in run]
        else:
            upper += [_header(feature.name, rowspan=2) for feature in run]
    return tuple(upper), tuple(lower)


def _body(
    data: Measurements, chosen: Sequence[int], names: Sequence[str], features: Sequence[Feature], classed: bool
) -> tuple[tuple[Cell, ...], ...]:
    body = []
    for row, name in zip(chosen, names, strict=True):
        cells = [_cell(name)]
        if classed:
            same = [other for other in chosen if data.classes[other] == data.classes[row]]
            if row == same[0]:
                cells.append(_cell(data.classes[row], rowspan=len(same)))
        body.append((*cells, *(_cell(data.texts[feature.name][row]) for feature in features)))
    return tuple(body)
