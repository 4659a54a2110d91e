"""Annotated, questioned and unlabelled images of tables in the released files of their datasets."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmpost.config.settings import DataSettings
from mmpost.core.annotations import Mark, marks
from mmpost.data.formats.tables import Tables, table_data
from mmpost.errors import DataError
from mmpost.rewards.table import teds
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Reply, Sample
from tests.tables.real_tables import document, real_tables

PROMPT = "Read the table."
STRUCTURE = ["<tr>", "<td", ' colspan="2"', ">", "</td>", "</tr>", "<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>"]
HTML = '<html><body><table><tr><td colspan="2"><b>A</b></td></tr><tr><td>&lt;1</td><td></td></tr></table></body></html>'


def cells(*boxes: Any) -> list[dict[str, Any]]:
    """The cells of HTML: a bold "A" over two columns, "<1", and an empty one."""
    tokens = [["<b>", "A", "</b>"], ["<", "1"], []]
    return [{"tokens": t, **({} if b is None else {"bbox": b})} for t, b in zip(tokens, boxes, strict=True)]


def row(**columns: Any) -> dict[str, Any]:
    annotation = {"structure": {"tokens": STRUCTURE}, "cells": cells([10, 5, 30, 15], [0, 20, 20, 35], None)}
    return {"filename": "a.png", "split": "train", "imgid": 7, "html": annotation, **columns}


def image(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "white").save(path)


def read(path: Path, *rows: Any, split: Any = "train", **options: Any) -> Tables:
    if rows:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    tables = table_data(DataSettings(**{split: str(path)}, **options), split, PROMPT)
    assert tables is not None
    return tables


def places(sample: Sample) -> list[tuple[int, ...]]:
    return [(c["row"], c["column"], c["rowspan"], c["colspan"]) for c in sample.meta["cells"]]


def boxes(sample: Sample) -> list[list[float]]:
    return [c["box"] for c in sample.meta["cells"]]


def test_real_tables_of_pubtabnet(real: Any) -> None:
    file = real("pubtabnet/*.jsonl")[0]
    tables, lines = read(file), [json.loads(line) for line in file.read_text().splitlines()]
    expected = real_tables()
    assert [t.truth["html"] for t in tables] == expected
    assert len(tables) == 20
    for sample, line in zip(tables, lines, strict=True):
        assert [p.modality for p in sample.prompt] == ["image", "text"]
        assert sample.meta["imgid"] == line["imgid"]
        size = sample.prompt[0].value.header()
        annotated = [c for c in line["html"]["cells"] if "bbox" in c]
        # In one cell of these tables there is a space only, which has no box.
        assert len(boxes(sample)) == len(annotated) == sum(bool("".join(c.split())) for c in texts(line))
        for box, cell in zip(boxes(sample), annotated, strict=True):
            assert 0 <= box[0] < box[2] <= 1
            assert 0 <= box[1] < box[3] <= 1
            pixels = [v * size[side] for v, side in zip(box, ("width", "height") * 2, strict=True)]
            assert pixels == pytest.approx(cell["bbox"], abs=0.01)
        assert len({p[:2] for p in places(sample)}) == len(places(sample))
        reply = Reply((Part("text", sample.truth["html"], "assistant"),))
        assert teds(sample, reply) == 1


def texts(line: dict[str, Any]) -> list[str]:
    return ["".join(t for t in cell["tokens"] if len(t) == 1) for cell in line["html"]["cells"]]


def test_pubtabnet(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (sample,) = read(tmp_path / "t.jsonl", row())
    assert sample.truth == {"html": HTML}
    assert document(row()["html"]) == HTML
    assert [p.value for p in sample.prompt if p.modality == "text"] == [PROMPT]
    assert places(sample) == [(1, 1, 1, 2), (2, 1, 1, 1)]
    assert boxes(sample) == [[0.1, 0.1, 0.3, 0.3], [0, 0.4, 0.2, 0.7]]
    assert {"filename": "a.png", "split": "train", "imgid": 7}.items() <= sample.meta.items()
    assert "html" not in sample.meta


def test_cells_below_a_rowspan_and_rows_that_are_too_short(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    tokens = ["<tr>", "<td", ' rowspan="2"', ">", "</td>", "<td>", "</td>", "<td>", "</td>", "</tr>"]
    tokens += ["<tr>", "<td>", "</td>", "</tr>"]
    html = {
        "structure": {"tokens": tokens},
        "cells": [{"tokens": ["x"], "bbox": [i, 0, i + 1, 1]} for i in range(4)],
    }
    (sample,) = read(tmp_path / "t.jsonl", row(html=html))
    assert places(sample) == [(1, 1, 2, 1), (1, 2, 1, 1), (1, 3, 1, 1), (2, 2, 1, 1)]
    assert sample.truth["html"].count("<td") == 4, "the annotation is not repaired"


def test_images_in_the_folder_of_their_split(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.png", 10, 10)
    (sample,) = read(tmp_path / "t.jsonl", row())
    assert sample.prompt[0].value.source == tmp_path / "train" / "a.png"


def test_a_file_with_several_splits_gives_the_requested_one(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    rows = [row(imgid=1), row(imgid=2, split="val"), row(imgid=3), {"image": "a.png"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [s.meta.get("imgid") for s in read(tmp_path / "t.jsonl")] == [1, 3, None]
    assert [s.meta.get("imgid") for s in read(tmp_path / "t.jsonl", split="val")] == [2, None]
    with pytest.raises(DataError, match=r"wanted rows whose split is test, found train, val; .*data\.split"):
        read(tmp_path / "t.jsonl", split="test")
    assert len(read(tmp_path / "one.jsonl", row(), row(), split="test")) == 2
    parts = DataSettings(train=str(tmp_path / "t.jsonl"), split=(1.0, 0.0, 0.0))
    tables = table_data(parts, "train", PROMPT)
    assert tables is not None
    assert len(tables) == 4


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"html": {"structure": {}, "cells": []}}, r"tokens.*found None in 'html\.structure\.tokens'"),
    ({"html": {"structure": {"tokens": STRUCTURE}, "cells": 3}}, r"list of cells, found 3 in 'html\.cells'"),
    (
        {"html": {"structure": {"tokens": STRUCTURE}, "cells": cells(None, None, None)[:2]}},
        r"'html\.structure\.tokens', 3, found 2",
    ),
    (
        {"html": {"structure": {"tokens": STRUCTURE}, "cells": cells([1, 2, 3], None, None)}},
        r"box .*'html\.cells\[0\]\.bbox'",
    ),
    (
        {"html": {"structure": {"tokens": STRUCTURE}, "cells": cells([9, 2, 3, 4], None, None)}},
        r"'html\.cells\[0\]\.bbox'",
    ),
    ({"html": {"structure": {"tokens": STRUCTURE}, "cells": [{"tokens": "ab"}] * 3}}, r"'html\.cells\[0\]\.tokens'"),
    ({"html": {"structure": {"tokens": STRUCTURE}, "cells": [7] * 3}}, r"cell with its tokens.*'html\.cells\[0\]'"),
    ({"html": "no table"}, r"table in HTML, found 'no table' in 'html'"),
    ({"html": 3}, r"tokens.*found 3 in 'html'"),
    ({"filename": None}, r"name of an image.*'filename'"),
    ({"filename": "b.png"}, r"found nothing at .*b\.png"),
]


@pytest.mark.parametrize(("columns", "message"), BROKEN)
def test_a_broken_row_is_named_with_its_key(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    image(tmp_path / "a.png")
    tables = read(tmp_path / "t.jsonl", row(), row(**columns))
    assert tables[0].truth == {"html": HTML}
    with pytest.raises(DataError, match=rf"t\.jsonl:2.*{message}"):
        tables[1]


def test_a_broken_row_that_is_skipped_costs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "a.png")
    tables = read(tmp_path / "t.jsonl", row(imgid=1), row(html=3), row(imgid=3))
    model: Any = SimpleNamespace(validate=lambda sample: None)
    context = TrainingContext(model, model, 0, skip_errors=True)
    assert [s.meta["imgid"] for s in context.fetch(tables, range(3))] == [1, 3]
    assert "t.jsonl:2" in capsys.readouterr().err


def fintabnet(**columns: Any) -> dict[str, Any]:
    annotation = {"structure": {"tokens": STRUCTURE}, "cells": cells([60, 640, 80, 650], [50, 600, 60, 620], None)}
    name = "A/2005/page_9.pdf"
    return {
        "filename": name,
        "split": "train",
        "table_id": 12,
        "bbox": [50, 600, 150, 650],
        "html": annotation,
    } | columns


def test_fintabnet_boxes_are_turned_from_points_on_the_page_to_the_image_of_the_table(tmp_path: Path) -> None:
    image(tmp_path / "A" / "2005" / "page_9.png", 200, 100)
    (sample,) = read(tmp_path / "t.jsonl", fintabnet())
    assert sample.truth == {"html": HTML}
    assert boxes(sample) == [[0.1, 0, 0.3, 0.2], [0, 0.6, 0.1, 1]]
    (bare,) = read(tmp_path / "u.jsonl", fintabnet(bbox=None))
    assert (bare.meta["cells"], bare.truth) == ([], {"html": HTML})


def test_fintabnet_images_named_by_table_go_before_those_named_by_page(tmp_path: Path) -> None:
    image(tmp_path / "pdf" / "A" / "2005" / "page_9.png", 200, 100)
    image(tmp_path / "A.2005.page_9.pdf_12.png", 200, 100)
    one, other = read(tmp_path / "t.jsonl", fintabnet(), fintabnet(table_id=13))
    assert [s.prompt[0].value.source.name for s in (one, other)] == ["A.2005.page_9.pdf_12.png", "page_9.png"]


def test_fintabnet_refuses_the_image_of_a_page(tmp_path: Path) -> None:
    image(tmp_path / "A" / "2005" / "page_9.png", 612, 792)
    with pytest.raises(DataError, match=r"t\.jsonl:1.*table alone.*100 x 50 points, in 'bbox', found .*612 x 792"):
        read(tmp_path / "t.jsonl", fintabnet())[0]


@pytest.mark.parametrize("empty", [None, [], [0, 0, 0, 0]])
def test_the_otsl_sets_of_docling(tmp_path: Path, empty: Any) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50)).save(buffer, "PNG")
    annotated = [{"bbox": None, **c} for c in cells([10, 5, 30, 15], [0, 20, 20, 35], empty)]
    record = {
        "filename": "A.2005.page_9.pdf_12.png",
        "split": "train",
        "imgid": 12,
        "dataset": "ftn",
        "cells": [annotated],
        "otsl": ["fcel", "lcel", "nl", "fcel", "ecel", "nl"],
        "html": STRUCTURE,
        "html_restored": STRUCTURE,
        "cols": 2,
        "rows": 2,
        "image": {"bytes": buffer.getvalue(), "path": None},
    }
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "train-0.parquet")
    (sample,) = read(tmp_path / "train-0.parquet")
    assert sample.truth == {"html": HTML}
    assert boxes(sample) == [[0.1, 0.1, 0.3, 0.3], [0, 0.4, 0.2, 0.7]]
    assert sample.meta["dataset"] == "ftn"
    assert not {"html", "otsl", "html_restored"} & sample.meta.keys()


TABLE = "<table><tr><td>1</td></tr></table>"


def page(*elements: Any, **columns: Any) -> dict[str, Any]:
    info = {"image_path": "p.png", "width": 200, "height": 100, "page_attribute": {"language": "en"}}
    return {"layout_dets": list(elements), "page_info": info, "extra": {}, **columns}


def table(**keys: Any) -> dict[str, Any]:
    poly = [20.0, 10.0, 60.0, 10.0, 60.0, 30.0, 20.0, 30.0]
    return {"category_type": "table", "poly": poly, "ignore": False, "anno_id": 3, "html": TABLE, "latex": "x", **keys}


def test_omnidocbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.new("RGB", (400, 200), "white")  # twice the size that it was annotated in
    picture.paste("black", (40, 20, 120, 60))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "p.png")
    text = {"category_type": "text_block", "poly": [0] * 8, "text": "t"}
    tables = read(
        tmp_path / "o.json", page(text, table(attribute={"line": "full_line"}), table(html=""), table()), page()
    )
    assert [s.uid for s in tables] == ["p.png#1", "p.png#3"]
    first = tables[0]
    assert [p.modality for p in first.prompt] == ["image", "text"]
    crop = first.prompt[0].value.open()
    assert (crop.size, crop.getextrema()) == ((80, 40), ((0, 0),) * 3)
    assert first.truth == {"html": TABLE}
    assert first.meta["page_box"] == [0.1, 0.1, 0.3, 0.3]
    assert first.meta["attribute"] == {"line": "full_line"}
    assert first.meta["page_attribute"] == {"language": "en"}
    assert "p.png [40, 20, 120, 60]" in first.prompt[0].value.describe()
    assert "o.json: left out 1 tables" in capsys.readouterr().err


def test_a_broken_page_or_table_costs_only_itself(tmp_path: Path) -> None:
    image(tmp_path / "p.png", 200, 100)
    info = page()["page_info"]
    outside = table(poly=[300, 0, 400, 0, 400, 50, 300, 50])
    pages = [
        page(table(poly=[1, 2, 3]), table(), outside, 7),
        {"layout_dets": [], "page_info": {}},
        {"layout_dets": 3, "page_info": info},
        page(table(html=3)),
    ]
    tables = read(tmp_path / "o.json", *pages)
    assert tables[1].truth == {"html": TABLE}
    for index, message in (
        (0, r"o\.json:1.*8 numbers.*'layout_dets\[0\]\.poly'"),
        (2, r"o\.json:1.*page of 200 x 100.*'layout_dets\[2\]\.poly'"),
        (3, r"o\.json:1.*'layout_dets\[3\]'"),
        (4, r"o\.json:2.*'page_info\.image_path'"),
        (5, r"o\.json:3.*found 3 in 'layout_dets'"),
        (6, r"o\.json:4.*tokens.*found 3 in 'html'"),
    ):
        with pytest.raises(DataError, match=message):
            tables[index]


def test_a_list_of_other_rows_in_json_needs_no_opener(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (sample,) = read(tmp_path / "rows.json", {"image": "a.png", "solution": TABLE})
    assert sample.truth == TABLE


def test_images_without_labels(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "images" / "more" / "b.png")
    samples = list(read(tmp_path / "images"))
    assert [(s.uid, s.truth) for s in samples] == [("a.png", None), ("more/b.png", None)]
    assert [[p.modality for p in s.prompt] for s in samples] == [["image", "text"]] * 2
    (line,) = read(tmp_path / "t.jsonl", {"image": "images/a.png"})
    assert (line.truth, line.prompt[-1].value) == (None, PROMPT)
    (own,) = read(tmp_path / "u.jsonl", {"image": "images/a.png"}, prompt="As OTSL.")
    assert own.prompt[-1].value == "As OTSL."
    with pytest.raises(DataError, match=r"t\.jsonl:1.*wanted an image of a table, found none.*'image'"):
        read(tmp_path / "t.jsonl", {"question": "What?"})[0]


def test_a_column_of_html_is_a_label(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (sample,) = read(tmp_path / "t.jsonl", {"image": "a.png", "html": TABLE})
    assert sample.truth == {"html": TABLE}


def trivia(pairs: Any, label: str = "<table></table>") -> dict[str, Any]:
    messages = [{"role": "user", "content": "Give OTSL.\n<image>"}, {"role": "assistant", "content": label}]
    return {"messages": messages, "qa_pairs": pairs, "images": ["a.png"]}


def test_questions_of_trivias_rows_reach_meta(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    pairs = [{"question": "How many?", "answer": "3 %"}, {"question": "When?", "answer": 2004}]
    rows = [trivia(pairs), trivia([], TABLE)]
    for name in ("t.jsonl", "t.json"):
        questioned, labelled = read(tmp_path / name, *rows)
        assert questioned.meta["qa_pairs"] == [pairs[0], {"question": "When?", "answer": "2004"}]
        assert (questioned.truth, questioned.replies) == (None, ())
        assert [(p.modality, p.role) for p in questioned.prompt] == [("text", "user"), ("image", "user")]
        assert (labelled.truth, labelled.meta["qa_pairs"]) == (TABLE, [])
    pq.write_table(pa.Table.from_pylist([trivia(pairs[:1])]), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")[0].meta["qa_pairs"] == pairs[:1]


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        ("How many?", r"'qa_pairs'"),
        ({"question": "How many?", "answer": "3"}, r"'qa_pairs'"),
        (["How many?"], r"'qa_pairs\[0\]'"),
        ([{"question": "a", "answer": "b"}, {"question": "How many?"}], r"'qa_pairs\[1\]\.answer'"),
        ([{"question": " ", "answer": "3"}], r"'qa_pairs\[0\]\.question'"),
        ([{"question": 3, "answer": "3"}], r"'qa_pairs\[0\]\.question'"),
        ([{"question": "a", "answer": True}], r"'qa_pairs\[0\]\.answer'"),
        ([{"question": "a", "answer": ["3"]}], r"'qa_pairs\[0\]\.answer'"),
    ],
)
def test_malformed_questions_are_refused(tmp_path: Path, pairs: Any, key: str) -> None:
    image(tmp_path / "a.png")
    tables = read(tmp_path / "t.jsonl", trivia([]), trivia(pairs))
    with pytest.raises(DataError, match=rf"t\.jsonl:2.*wanted questions \[.*in {key}; correct the row"):
        tables[1]


def test_boxes_of_cells_are_drawn_as_those_of_the_truth(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (sample,) = read(tmp_path / "t.jsonl", row())
    expected = [Mark("box", (0.1, 0.1, 0.3, 0.3), label="r1 c1"), Mark("box", (0.0, 0.4, 0.2, 0.7), label="r2 c1")]
    assert marks(sample, None) == expected
    assert marks(sample, Reply(())) == []


@pytest.mark.parametrize("value", [3, "text", [1], [{"row": 1}], [{"row": 1, "column": 2, "box": ["a", 0, 1, 1]}]])
def test_other_columns_named_cells_are_not_drawn(value: Any) -> None:
    assert marks(Sample("a", (), meta={"cells": value}), None) == []
