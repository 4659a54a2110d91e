"""Pictures of tables: determinism, splits without common rows, valid OTSL, and where cells lie."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
from PIL import Image

import mmpost.data.formats.tables  # noqa: F401  # registers how cells are drawn
from mmpost.core.annotations import marks
from mmpost.data.worlds.tables import drawing
from mmpost.data.worlds.tables.drawing import LOOKS, PITCH, random_style, render
from mmpost.data.worlds.tables.measurements import MAX_CHARACTERS, NAMES, measurements, rows
from mmpost.data.worlds.tables.pictures import MAX_SQUARES, SmallTables, TablePictures
from mmpost.errors import ConfigError
from mmpost.rewards.table import s_teds, teds
from mmpost.tables.otsl import otsl_problems, read_otsl, write_otsl
from mmpost.tables.table import Table
from mmpost.types import Part, Reply, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def texts(table: Table) -> list[tuple[str, int, int]]:
    return [(cell.text, cell.rowspan, cell.colspan) for row in table.rows for cell in row]


def picture(source: TablePictures, index: int) -> Image.Image:
    return source[index].prompt[0].value.open()


@pytest.mark.parametrize("source", [SmallTables, TablePictures])
def test_an_index_always_gives_the_same_sample(source: type[TablePictures]) -> None:
    a, b = (source("train", n=24, seed=3, look="paper") for _ in range(2))
    assert list(a) == [b[i] for i in reversed(range(24))][::-1]
    assert len({s.uid for s in a}) == 24
    assert [s.truth for s in a] != [s.truth for s in source("train", n=24, seed=4, look="paper")]


def test_looks_show_the_same_tables() -> None:
    office, paper = (TablePictures("test", n=12, seed=1, look=look) for look in LOOKS)
    assert [s.truth for s in office] == [s.truth for s in paper]
    assert not {s.uid for s in office} & {s.uid for s in paper}
    assert not {s.prompt[0].value for s in office} & {s.prompt[0].value for s in paper}


def test_looks_share_no_font_and_no_ruling() -> None:
    fonts, rulings = (
        {look: set(chain(*of[field]) if field == 0 else of[field]) for look, of in LOOKS.items()} for field in (0, 1)
    )
    assert not fonts["office"] & fonts["paper"]
    assert not rulings["office"] & rulings["paper"]


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_row(name: str) -> None:
    parts = [rows(name, split) for split in SPLITS]
    data = measurements(name)
    count = len(data.texts[data.features[0].name])
    assert sorted(chain(*parts)) == list(range(count))
    assert all(len(part) >= 2 for part in parts)
    assert abs(len(parts[0]) / count - 0.8) < 0.01


def test_tables_show_rows_of_their_split() -> None:
    """Each row of a body that shows two features is one of the data set's rows of the split."""
    for split in SPLITS:
        source = TablePictures(split, n=60, seed=5)
        for table in map(source.table, range(60)):
            head = len(table.sections[0].rows)
            grid = [[position.cell.text for position in row] for row in table.grid()]
            names = grid[head - 1]
            name = next(name for name in NAMES if names[-1] in measurements(name).texts)
            features = measurements(name).texts
            shown = [c for c, label in enumerate(names) if label in features]
            for row in grid[head:]:
                assert any(all(features[names[c]][r] == row[c] for c in shown) for r in rows(name, split)), row


def test_contents_are_tables_with_spans() -> None:
    source = TablePictures("train", n=400, seed=2)
    tables = [source.table(i) for i in range(400)]
    for table in tables:
        grid = table.grid()
        head, body = (section.rows for section in table.sections)
        assert 1 <= len(head) <= 2 <= len(body) <= 4
        assert 2 <= len(grid[0]) <= 4
        assert all(len(cell.text) <= MAX_CHARACTERS for row in table.rows for cell in row)
        labels = [cell.text for row in head for cell in row]
        assert len(set(labels)) == len(labels)
        names = [row[0].cell.text for row in grid[len(head) :]]
        assert len(set(names)) == len(names)
    assert len({write_otsl(table, line_breaks=False).text for table in tables}) > 390
    shares = {
        "headers over columns": sum(any(c.colspan > 1 for row in t.rows for c in row) for t in tables),
        "classes over rows": sum(any(c.rowspan > 1 for c in chain(*t.sections[1].rows)) for t in tables),
        "empty corners": sum(not t.rows[0][0].text for t in tables),
    }
    assert all(0.1 < share / len(tables) < 0.35 for share in shares.values()), shares


@pytest.mark.parametrize("source", [TablePictures("train", n=200, seed=1), SmallTables("train", n=50, seed=1)])
def test_the_truth_is_valid_otsl_of_the_table(source: TablePictures) -> None:
    for i in range(len(source)):
        truth = write_otsl(source.table(i), line_breaks=False).text
        assert not otsl_problems(truth)
        assert texts(read_otsl(truth).table) == texts(source.table(i))
    sample = source[0]
    reply = Reply((Part("text", sample.truth),))
    assert teds(sample, reply) == s_teds(sample, reply) == 1


@pytest.mark.parametrize("look", LOOKS)
def test_sides_are_whole_visual_tokens(look: str) -> None:
    for source in (TablePictures("test", n=40, seed=6, look=look), SmallTables("test", n=10, seed=6, look=look)):
        for i in range(len(source)):
            width, height = picture(source, i).size
            assert width % PITCH == height % PITCH == 0
            assert width * height // PITCH**2 <= MAX_SQUARES


@pytest.mark.parametrize("look", LOOKS)
def test_boxes_hold_the_texts_of_their_cells(look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture without texts has the same lines and shades: what differs is ink, and lies where cells have texts."""
    source = TablePictures("val", n=12, seed=7, look=look)
    for i in range(12):
        table, style = source.table(i), random_style(look, source.rng(i, "style"))
        full, boxes = render(table, style, source.rng(i, "draw"))
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "_text", lambda *arguments: None)
            blank, _ = render(table, style, source.rng(i, "draw"))
        ink = np.abs(np.asarray(full, int) - np.asarray(blank, int)).max(axis=2) > 60
        cells = [cell for row in table.rows for cell in row]
        for cell, (x1, y1, x2, y2) in zip(cells, boxes, strict=True):
            assert 0 <= x1 < x2 <= full.width
            assert 0 <= y1 < y2 <= full.height
            inside = ink[y1:y2, x1:x2]
            drawn = [inside[:, left : left + PITCH].sum() > 2 for left in range(-x1 % PITCH, x2 - x1, PITCH)]
            assert sum(drawn) == len(cell.text), (cell.text, drawn)
            ink[y1:y2, x1:x2] = False
        # Slanted characters reach a few pixels beyond their square.
        assert ink.sum() < 0.02 * full.width * full.height


def test_cells_are_plain_data_that_reports_draw() -> None:
    for sample in TablePictures("val", n=8, look="paper"):
        assert json.loads(json.dumps(dict(sample.meta))) == dict(sample.meta)
        table = read_otsl(str(sample.truth)).table
        texts = [position.cell.text for row in table.grid() for position in row if not position.down | position.right]
        drawn = marks(sample, None)
        assert len(drawn) == len(sample.meta["cells"]) == sum(map(bool, texts))
        assert all(0 <= at <= 1 for mark in drawn for at in mark.at)
        first = next(cell for cell in sample.meta["cells"])
        assert table.grid()[first["row"] - 1][first["column"] - 1].cell.colspan == first["colspan"]


def test_unknown_looks_are_refused() -> None:
    with pytest.raises(ConfigError, match="office, paper; found handwritten"):
        TablePictures(look="handwritten")
