"""User data: mixed by weights, split by id, asked by one prompt, read from folders of images; and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mmpost.config.settings import DataSettings, parse_weight
from mmpost.data.readers.dataset import open_dataset
from mmpost.data.readers.user_data import user_data
from mmpost.data.sources.mix import Mix
from mmpost.errors import ConfigError, DataError
from mmpost.types import Part, Sample


def source(name: str, n: int) -> list[Sample]:
    return [Sample(f"{name}{i}", (Part("text", "?"),)) for i in range(n)]


def write(path: Path, n: int, **more: str) -> str:
    path.write_text("".join(json.dumps({"id": f"{path.stem}-{i}", "query": "?", **more}) + "\n" for i in range(n)))
    return str(path)


def test_a_mix_without_weights_has_each_sample_once() -> None:
    mix = Mix([source("a", 6), source("b", 2)])
    assert sorted(s.uid for s in mix) == [f"1/a{i}" for i in range(6)] + ["2/b0", "2/b1"]
    assert mix[-1] == mix[7] == mix[4:][3]


def test_a_mix_has_the_shares_asked_for_everywhere() -> None:
    mix = Mix([source("a", 70), source("b", 30), source("c", 100)], [0.5, 0.3, 0.2])
    assert len(mix) == 200
    for start in range(0, 200, 20):
        counts = Counter(s.uid[0] for s in mix[start : start + 20])
        assert all(abs(counts[name] - 20 * share) <= 1 for name, share in (("1", 0.5), ("2", 0.3), ("3", 0.2)))
    uids = [s.uid for s in mix]
    assert len(set(uids)) == 200
    assert sum(uid.endswith("~1") for uid in uids) == 100 - 70 + 60 - 30
    assert [s.uid for s in Mix([source("a", 70), source("b", 30), source("c", 100)], [5, 3, 2])] == uids


def test_unfit_weights_are_refused() -> None:
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(DataError, match="a weight of at least 0 for each of 2"):
            Mix([source("a", 1), source("b", 1)], weights)
    with pytest.raises(DataError, match="found none in number 2"):
        Mix([source("a", 1), []], [0.5, 0.5])
    with pytest.raises(IndexError):
        Mix([source("a", 1)])[1]


def test_a_weight_stands_behind_the_last_star() -> None:
    assert parse_weight("a.jsonl*0.7") == ("a.jsonl", 0.7)
    assert parse_weight("parts/*.parquet*2") == ("parts/*.parquet", 2.0)
    assert parse_weight("parts/*.parquet") == ("parts/*.parquet", None)


def test_several_files_with_weights(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 10)
    found = user_data(DataSettings(train=(f"{a}*0.75", f"{b}*0.25")), "train")
    assert found is not None
    assert Counter(s.uid.partition("-")[0] for s in found) == {"1/a": 15, "2/b": 5}
    with pytest.raises(ConfigError, match=r"data\.train: give a weight to each source or to none"):
        user_data(DataSettings(train=(f"{a}*0.75", b)), "train")
    assert user_data(DataSettings(train=a), "val") is None


def test_one_file_is_split_and_a_row_stays_where_it_is(tmp_path: Path) -> None:
    many, few = write(tmp_path / "x.jsonl", 2000), tmp_path / "sub"
    few.mkdir()

    def parts(file: str) -> dict[str, set[str]]:
        data = DataSettings(train=file, split=(0.8, 0.1, 0.1))
        return {name: {s.uid for s in user_data(data, name) or ()} for name in ("train", "val", "test")}

    found = parts(many)
    assert sum(map(len, found.values())) == 2000 == len(set.union(*found.values()))
    assert len(found["train"]) == pytest.approx(1600, abs=60)
    assert len(found["val"]) == pytest.approx(200, abs=45)
    fewer = parts(write(few / "x.jsonl", 100))
    assert all(fewer[name] <= found[name] for name in found)


def test_turns_of_one_conversation_stay_together(tmp_path: Path) -> None:
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user", "assistant")]
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(50)))
    data = DataSettings(train=str(file), split=(0.5, 0.25, 0.25))
    train, val = ({s.uid.partition("#")[0] for s in user_data(data, name) or ()} for name in ("train", "val"))
    assert len(user_data(data, "train") or ()) == 2 * len(train)
    assert train
    assert not train & val


def test_contradicting_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave out data\.val and data\.test"):
        user_data(DataSettings(train="x", test="y", split=(0.8, 0.1, 0.1)), "train")
    with pytest.raises(ConfigError, match=r"set data\.train=FILE"):
        user_data(DataSettings(split=(0.8, 0.1, 0.1)), "train")
    few = write(tmp_path / "few.jsonl", 2)
    with pytest.raises(DataError, match=r"few\.jsonl: data\.split wants 0\.0001 of it for test, found no row of 2"):
        user_data(DataSettings(train=few, split=(0.9999, 0.0, 0.0001)), "test")
    assert user_data(DataSettings(train=few, split=(0.9999, 0.0, 0.0001)), "val") is None
    with pytest.raises(ValueError, match="add up to 1"):
        DataSettings(train="x", split=(0.8, 0.1, 0.2))


def test_a_folder_of_images_is_labelled_by_its_folders(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "cat/2.png", "dog/1.jpg", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    rows = open_dataset(tmp_path, prompt="What is it?")
    assert [(s.uid, s.truth) for s in rows] == [
        ("cat/1.jpg", "cat"),
        ("cat/2.png", "cat"),
        ("dog/1.jpg", "dog"),
        ("loose.png", None),
    ]
    assert [p.modality for p in rows[0].prompt] == ["image", "text"]
    assert rows[0].prompt[0].value.open().size == (8, 8)
    assert rows[0].prompt[1].value == "What is it?"
    with pytest.raises(DataError, match=r"cat/1\.jpg|data\.prompt"):
        open_dataset(tmp_path)[0]
    asked = user_data(DataSettings(test=str(tmp_path), prompt="Mine?"), "test", prompt="The task's?")
    assert asked is not None
    assert asked[0].prompt[1].value == "Mine?"


def test_rows_with_a_question_keep_it(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"query": "own"}\n{"solution": "7"}\n')
    assert [s.prompt[0].value for s in open_dataset(file, prompt="other")] == ["own", "other"]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "large.jsonl", 20_000, response="x" * 200)
    size = Path(file).stat().st_size
    tracemalloc.start()
    data = DataSettings(train=(f"{file}*0.5", f"{file}*0.5"))
    rows = user_data(data, "train")
    held, _ = tracemalloc.get_traced_memory()
    assert rows is not None
    assert rows[23_456].replies[0].text == "x" * 200
    tracemalloc.stop()
    assert len(rows) == 40_000
    assert size > 4 * 2**20
    assert held < size / 2  # two readers and the mix over 40,000 samples
