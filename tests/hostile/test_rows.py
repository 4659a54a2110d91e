"""Rows that no later step could use: each costs one row, and the error names file, row and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmpost.config.settings import DataSettings
from mmpost.data.formats.temporal_files import OPENERS
from mmpost.data.readers.dataset import open_dataset
from mmpost.data.readers.user_data import user_data
from mmpost.errors import ConfigError, DataError

GOOD = '{"query": "a", "response": "b"}'
DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000
BROKEN = {
    "deeper than the parser": (f'{{"query": "x", "response": "y", "note": {DEEP}}}', "'note'"),
    "deep": (f'{{"query": "x", "response": "y", "note": {DEEP[99_910:100_090]}}}', "'note"),
    "huge integer": (f'{{"query": "x", "response": "y", "count": {DIGITS}}}', "'count'"),
    "integer beyond floats": (f'{{"query": "x", "response": "y", "count": [1, {DIGITS[:400]}]}}', r"'count\.1'"),
    "lone surrogate": (r'{"query": "x \ud800 y", "response": "y"}', "'query'"),
    "surrogate in the id": (r'{"id": "\udc00", "query": "x", "response": "y"}', "'id'"),
    "surrogate in a key": (r'{"query": "x", "response": "y", "\ud800": 1}', "keys"),
}


@pytest.mark.parametrize(("row", "key"), BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_an_unusable_row_costs_one_row(tmp_path: Path, row: str, key: str, suffix: str) -> None:
    rows, file = [GOOD, row, GOOD], tmp_path / f"data.{suffix}"
    file.write_text("\n".join(rows) if suffix == "jsonl" else f"[{','.join(rows)}]")
    samples = open_dataset(file)
    assert [samples[i].replies[0].text for i in (0, 2)] == ["b", "b"]
    with pytest.raises(DataError, match=rf"^data\.{suffix}:2: Wanted .*{key}") as error:
        samples[1]
    assert len(str(error.value)) < 400


def test_pairs_of_surrogates_and_long_ids_are_read(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(rf'{{"id": {DIGITS[:40]}, "query": "\ud83d\ude00", "response": "y"}}')
    sample = open_dataset(tmp_path / "data.jsonl")[0]
    assert (sample.uid, sample.prompt[0].value) == ("9" * 40, "\U0001f600")


def test_deep_json_without_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(f'{{"a": {DEEP}}}')
    with pytest.raises(DataError, match=r"data\.json: Wanted at most .* in 'a'"):
        open_dataset(tmp_path / "data.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "x", "history": 5}, "'history' as a list"),
        ({"query": "x", "objects": {"ref": 5}}, r"objects\.ref"),
        ({"messages": [{"role": "user", "content": [{"type": [1]}]}]}, "part of type text"),
        ({"query": "x", "image": {"bytes": "text"}}, "'bytes' are bytes; found str"),
        ({"query": "x", "image": {"bytes": 5}}, "'bytes' are bytes; found int"),
        ({"query": "x", "image": {"base64": 5}}, "'base64' is text"),
        ({"question": "x", "problem": "y"}, "one question, found 'question' .*'problem'"),
        ({"query": "x", "imgs": ["a.png"]}, "named image or images, found .* in 'imgs'"),
        ({"query": "x", "Pictures": {"path": "a.png"}}, "named image or images, .* in 'Pictures'"),
    ],
)
def test_columns_that_mislead(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "data.jsonl").write_text(f"{GOOD}\n{json.dumps(row)}\n{GOOD}")
    samples = open_dataset(tmp_path / "data.jsonl")
    assert samples[2].replies[0].text == "b"
    with pytest.raises(DataError, match=rf"^data\.jsonl:2: .*{message}"):
        samples[1]


@pytest.mark.parametrize(
    "row",
    [
        {"query": "x", "image": "a.png", "image_path": "a.png"},
        {"query": "x", "image_id": "17", "photo": "a fine one", "images": []},
        {"question": "x", "problem": "x"},
        {"prompt": [{"role": "user", "content": "x"}], "question": "y"},
    ],
)
def test_columns_that_do_not_mislead(tmp_path: Path, row: dict[str, Any]) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    assert open_dataset(tmp_path / "data.jsonl")[0].prompt


def test_columns_that_may_hold_media_are_named_unless_the_task_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.jsonl").write_text('{"query": "x", "audio_path": "a.wav"}\n{"query": "y", "audio_path": "b.wav"}')
    for columns in ((), ("audio_path",)):
        rows = user_data(DataSettings(train=str(tmp_path / "data.jsonl")), "train", media_columns=columns)
        assert rows is not None
        assert [row.meta["audio_path"] for row in rows] == ["a.wav", "b.wav"]
        err = capsys.readouterr().err
        assert err.count("'audio_path', which is not read") == (0 if columns else 1)


def test_a_placeholder_that_stays_text_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.jsonl").write_text(f'{GOOD}\n{{"query": "<image>x"}}\n{{"query": "<image>y"}}')
    samples = open_dataset(tmp_path / "data.jsonl")
    assert [s.prompt[0].value for s in samples] == ["a", "<image>x", "<image>y"]
    err = capsys.readouterr().err
    assert err.startswith("data.jsonl:2: <image> stays text")
    assert err.count("stays text") == 1


def test_csv_and_tsv_are_tables_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbfid,question,answer,note\r\nr1,What?,"So, or\nnot","1 ""2"""\r\n\r\nr2,Why?,No,\r\n'
        b"r3,too,few\r\nr4,b\xffd,x,\r\nr5,Who?,Me,z\r\n"
    )
    samples = open_dataset(tmp_path / "a.csv")
    assert [samples[i].uid for i in (0, 1, 4)] == ["r1", "r2", "r5"]
    assert (samples[0].prompt[0].value, samples[0].truth, samples[0].meta) == (
        "What?",
        "So, or\nnot",
        {"note": '1 "2"'},
    )
    assert samples[1].meta == {}
    with pytest.raises(DataError, match=r"^a\.csv:6: Wanted 4 cells .*found 3"):
        samples[2]
    with pytest.raises(DataError, match=r"^a\.csv:7: Wanted text, .*'question'"):
        samples[3]
    (tmp_path / "a.tsv").write_text("question\tanswer\nWhat, really?\tSo\n")
    assert open_dataset(tmp_path / "a.tsv")[0].truth == "So"
    (tmp_path / "twice.csv").write_text("query,query\na,b\n")
    with pytest.raises(DataError, match=r"twice\.csv:1: .*each once"):
        open_dataset(tmp_path / "twice.csv")


def test_released_files_are_read_for_the_task_that_names_them(tmp_path: Path) -> None:
    """The readers of one task neither take the files of others, nor do they refuse plain rows."""
    (tmp_path / "a.csv").write_text("video,problem,solution\nclip.mp4,Why?,So\n")
    (tmp_path / "a.txt").write_text("AO8RW 0.0 1.5##a person opens a door.\n")
    for openers in ({}, OPENERS):
        assert open_dataset(tmp_path / "a.csv", openers=openers)[0].truth == "So"
    assert open_dataset(tmp_path / "a.txt", openers=OPENERS)[0].uid == "AO8RW#1"
    with pytest.raises(DataError, match=r"ends in \.jsonl, .*\.csv, \.tsv.*a\.txt"):
        open_dataset(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"AO8RW 0.0 1.5##a person \xae opens a door.\n"),
        ("a.csv", b"video_id,qid,question,answer,a0,a1\nv,1,\xae,x,x,y\n"),
        ("a.json", b'{"v": {"duration": 1, "timestamps": 2, "sentences": 3}}'),
    ],
)
def test_damaged_released_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: wanted the file as it was released, .*copy it again"):
        open_dataset(tmp_path / name, openers=OPENERS)


@pytest.mark.parametrize("name", ["a.jsonl", "blank.jsonl", "a.json", "a.csv", "header.csv", "a.parquet"])
def test_empty_data_are_refused_with_the_file(tmp_path: Path, name: str) -> None:
    text = {"blank.jsonl": "\n \n", "a.json": "[]", "header.csv": "query,response\n"}
    (tmp_path / name).write_text(text.get(name, ""))
    if name == "a.parquet":
        pq.write_table(pa.table({"query": pa.array([], pa.string())}), tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: wanted rows, found"):
        user_data(DataSettings(train=str(tmp_path / name)), "train")


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "-.5"])
def test_weights_of_a_mix_are_positive_numbers(tmp_path: Path, weight: str) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    for sources in ((f"{tmp_path}/a.jsonl*{weight}", f"{tmp_path}/a.jsonl*1"), f"{tmp_path}/a.jsonl*{weight}"):
        with pytest.raises(ConfigError, match=r"data\.train: wanted positive numbers as weights"):
            user_data(DataSettings(train=sources), "train")


def test_bytes_where_text_belongs_name_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": [b"What?"], "answer": ["So"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:1: Wanted a list of turns, found bytes: .* in 'question'"):
        open_dataset(tmp_path / "a.parquet")[0]
