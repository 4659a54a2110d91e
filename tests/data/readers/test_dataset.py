"""Opening datasets: JSON, JSON Lines, Parquet and folders of `datasets`; malformed files."""

import json
import time
from weakref import finalize

import datasets.config
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import ASSISTANT, PROMPT, USER, png, roles_and_values, write_rows
from PIL import Image

from mmpost.data.readers.dataset import open_dataset
from mmpost.errors import DataError


@pytest.fixture(autouse=True)
def _cache_of_datasets(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))


def test_broken_lines_raise_on_access(folder):
    path = folder / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": "a"}\n\n{"query": \r\n{"query": "\xff"}\n   \n{"query": "b"}')
    samples = open_dataset(path)
    assert [samples[0].uid, samples[3].uid] == ["data.jsonl:1", "data.jsonl:6"]
    for index, number in ((1, 3), (2, 4)):
        with pytest.raises(DataError, match=rf"data\.jsonl:{number}: .*JSON object"):
            samples[index]


def test_media_paths_are_relative_to_the_root_and_stay_inside(folder):
    data = folder / "notes"
    data.mkdir()
    path = write_rows(data, {"query": "x", "image": "a.png"}, {"query": "x", "image": "../a.png"})
    assert open_dataset(path, root=folder)[0].prompt[0].value.open().width == 10
    with pytest.raises(DataError, match=r"data\.jsonl:2: .*inside the folder"):
        open_dataset(path, root=folder)[1]
    assert open_dataset(path)[1].prompt[0].value.open().width == 10
    with pytest.raises(DataError, match=r"notes/a\.png.*data\.root"):
        open_dataset(path)[0].prompt[0].value.open()


def test_files_that_are_not_datasets_are_refused(folder):
    (folder / "one.json").write_text('{"query": "x"}')
    (folder / "bad.json").write_text("[1, 2")
    (folder / "bad.parquet").write_bytes(b"nothing")
    (folder / "data.xml").write_text("a")
    (folder / "empty").mkdir()
    for name, message in {
        "one.json": "wanted a JSON list of rows",
        "bad.json": "not JSON",
        "bad.parquet": "bad.parquet: wanted Parquet",
        "data.xml": r"\.jsonl, \.json, \.parquet",
        "empty": "Parquet files or a folder saved by `datasets`, found nothing",
        "absent.jsonl": r"found nothing at .*absent\.jsonl",
        "x*.parquet": "none that fit",
    }.items():
        with pytest.raises(DataError, match=message):
            open_dataset(folder / name)


def test_json_lines_with_the_wrong_extension(folder):
    assert [
        s.prompt[0].value for s in open_dataset(write_rows(folder, {"query": "a"}, {"query": "b"}, name="x.json"))
    ] == [
        "a",
        "b",
    ]


def table():
    """Rows as on the Hub: images as bytes, turns as structs."""
    return pa.table(
        {
            "id": ["p", "q", "r"],
            "messages": [
                [USER, ASSISTANT],
                [{"role": "user", "content": "<image>?"}, ASSISTANT, USER, ASSISTANT],
                [USER],
            ],
            "images": [[], [{"bytes": png(21), "path": "q.png"}], [{"bytes": None, "path": "a.png"}]],
            "answer": [None, None, "42"],
        }
    )


def check_table(samples):
    assert [s.uid for s in samples] == ["p", "q#1", "q#2", "r"]
    assert roles_and_values(samples[0].prompt) == PROMPT
    assert roles_and_values(samples[2].prompt)[:2] == [("user", 21), ("user", "?")]
    assert samples[2].prompt[0].value.name == "q.png"
    assert roles_and_values(samples[3].prompt) == [("user", 10), *PROMPT]
    assert samples[3].truth == "42"


def test_parquet_files_patterns_and_folders(folder):
    (folder / "data").mkdir()
    pq.write_table(table(), folder / "one.parquet")
    check_table(open_dataset(folder / "one.parquet"))
    pq.write_table(table().slice(0, 1), folder / "data" / "train-00000-of-00002.parquet")
    pq.write_table(table().slice(1), folder / "data" / "train-00001-of-00002.parquet")
    check_table(open_dataset(folder / "data", root=folder))
    pq.write_table(table(), folder / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"one split, found test, train.*test\*\.parquet"):
        open_dataset(folder / "data")
    check_table(open_dataset(folder / "data" / "train*.parquet", root=folder))


def test_parquet_without_a_known_column(folder):
    pq.write_table(pa.table({"foo": [1], "image": [b""]}), folder / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: .*messages.*Found the columns foo, image"):
        open_dataset(folder / "x.parquet")


def test_parquet_files_with_different_columns(folder):
    (folder / "mixed").mkdir()
    pq.write_table(pa.table({"query": ["a"]}), folder / "mixed" / "a.parquet")
    pq.write_table(pa.table({"query": [1], "more": ["b"]}), folder / "mixed" / "b.parquet")
    with pytest.raises(DataError, match=r"mixed: wanted Parquet files with the same columns"):
        open_dataset(folder / "mixed")


def test_folders_saved_by_datasets(folder):
    features = datasets.Features(
        {"problem": datasets.Value("string"), "image": datasets.Image(), "solution": datasets.Value("string")}
    )
    rows = [{"problem": "Where?", "image": Image.new("RGB", (33, 5)), "solution": "there"}, {"problem": "Who?"}]
    dataset = datasets.Dataset.from_list([{"image": None, "solution": None, **row} for row in rows], features=features)
    dataset.save_to_disk(folder / "saved")
    datasets.DatasetDict({"train": dataset}).save_to_disk(folder / "dict")
    for name in ("saved", "dict", "dict/train"):
        samples = open_dataset(folder / name)
        assert roles_and_values(samples[0].prompt) == [("user", 33), ("user", "Where?")]
        assert (samples[0].truth, samples[1].truth) == ("there", None)
        assert roles_and_values(samples[1].prompt) == [("user", "Who?")]
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(folder / "both")
    with pytest.raises(DataError, match="splits test, train"):
        open_dataset(folder / "both")
    with pytest.raises(DataError, match="does not load"):
        (folder / "dict" / "train" / "state.json").write_text("{}")
        open_dataset(folder / "dict" / "train")


@pytest.mark.slow
def test_a_hundred_thousand_rows_open_quickly(folder):
    line = json.dumps({"id": 1, "messages": [USER, ASSISTANT], "images": ["a.png"]}).replace('"id": 1', '"id": %d')
    (folder / "big.jsonl").write_text("\n".join(line % i for i in range(100_000)))
    start = time.process_time()
    samples = open_dataset(folder / "big.jsonl")
    assert len(samples) == 100_000
    assert time.process_time() - start < 20, "CPU seconds"
    assert samples[77_777].uid == "77777"
    assert roles_and_values(samples[-1].prompt) == [("user", 10), *PROMPT]


def test_an_open_source_is_reused_until_its_files_change(folder):
    path = write_rows(folder, {"query": "a", "response": "b"})
    first = open_dataset(path)
    assert open_dataset(str(path)) is first
    assert open_dataset(path, loss="last") is not first
    assert open_dataset(path, prompt="what?") is not first
    assert open_dataset(path, root=folder) is not first
    write_rows(folder, {"query": "a", "response": "b"}, {"query": "c", "response": "d"})
    reopened = open_dataset(path)
    assert (len(first), len(reopened)) == (1, 2)
    finalized = []
    finalize(reopened, finalized.append, "gone")
    del reopened
    assert finalized == ["gone"]


def test_a_folder_is_reopened_when_a_file_is_added(folder):
    first = open_dataset(folder, prompt="what?")
    assert open_dataset(folder, prompt="what?") is first
    Image.new("RGB", (9, 5)).save(folder / "d.png")
    assert [len(first), len(open_dataset(folder, prompt="what?"))] == [3, 4]
