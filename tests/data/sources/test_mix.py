"""User data: weighted mixtures, splits by id, data.prompt, folders of images, and memory use."""

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


def make_samples(name: str, n: int) -> list[Sample]:
    return [Sample(f"{name}{i}", (Part("text", "?"),)) for i in range(n)]


def write_rows(path: Path, n: int, **fields: str) -> str:
    path.write_text("".join(json.dumps({"id": f"{path.stem}-{i}", "query": "?", **fields}) + "\n" for i in range(n)))
    return str(path)


def test_a_mix_without_weights_has_each_sample_once() -> None:
    mix = Mix([make_samples("a", 6), make_samples("b", 2)])
    assert sorted(s.uid for s in mix) == [f"1/a{i}" for i in range(6)] + ["2/b0", "2/b1"]
    assert mix[-1] == mix[7] == mix[4:][3]


def test_a_mix_has_the_requested_fractions_in_every_window() -> None:
    mix = Mix([make_samples("a", 70), make_samples("b", 30), make_samples("c", 100)], [0.5, 0.3, 0.2])
    assert len(mix) == 200
    for start in range(0, 200, 20):
        counts = Counter(s.uid[0] for s in mix[start : start + 20])
        assert all(abs(counts[name] - 20 * fraction) <= 1 for name, fraction in (("1", 0.5), ("2", 0.3), ("3", 0.2)))
    uids = [s.uid for s in mix]
    assert len(set(uids)) == 200
    assert sum(uid.endswith("~1") for uid in uids) == 100 - 70 + 60 - 30
    assert [
        s.uid for s in Mix([make_samples("a", 70), make_samples("b", 30), make_samples("c", 100)], [5, 3, 2])
    ] == uids


def test_invalid_weights_are_refused() -> None:
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(DataError, match="a weight of at least 0 for each of 2"):
            Mix([make_samples("a", 1), make_samples("b", 1)], weights)
    with pytest.raises(DataError, match="found none in number 2"):
        Mix([make_samples("a", 1), []], [0.5, 0.5])
    with pytest.raises(IndexError):
        Mix([make_samples("a", 1)])[1]


def test_the_weight_follows_the_last_asterisk() -> None:
    assert parse_weight("a.jsonl*0.7") == ("a.jsonl", 0.7)
    assert parse_weight("parts/*.parquet*2") == ("parts/*.parquet", 2.0)
    assert parse_weight("parts/*.parquet") == ("parts/*.parquet", None)


def test_several_files_with_weights(tmp_path: Path) -> None:
    a, b = write_rows(tmp_path / "a.jsonl", 10), write_rows(tmp_path / "b.jsonl", 10)
    mixed = user_data(DataSettings(train=(f"{a}*0.75", f"{b}*0.25")), "train")
    assert mixed is not None
    assert Counter(s.uid.partition("-")[0] for s in mixed) == {"1/a": 15, "2/b": 5}
    with pytest.raises(ConfigError, match=r"data\.train: give a weight to each source or to none"):
        user_data(DataSettings(train=(f"{a}*0.75", b)), "train")
    assert user_data(DataSettings(train=a), "val") is None


def test_rows_keep_their_split_when_a_file_changes(tmp_path: Path) -> None:
    large_file, folder = write_rows(tmp_path / "x.jsonl", 2000), tmp_path / "sub"
    folder.mkdir()

    def uids_of_splits(file: str) -> dict[str, set[str]]:
        data = DataSettings(train=file, split=(0.8, 0.1, 0.1))
        return {name: {s.uid for s in user_data(data, name) or ()} for name in ("train", "val", "test")}

    splits = uids_of_splits(large_file)
    assert sum(map(len, splits.values())) == 2000 == len(set.union(*splits.values()))
    assert len(splits["train"]) == pytest.approx(1600, abs=60)
    assert len(splits["val"]) == pytest.approx(200, abs=45)
    small_splits = uids_of_splits(write_rows(folder / "x.jsonl", 100))
    assert all(small_splits[name] <= splits[name] for name in splits)


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
    few = write_rows(tmp_path / "few.jsonl", 2)
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
    samples = user_data(DataSettings(test=str(tmp_path), prompt="Mine?"), "test", prompt="The task's?")
    assert samples is not None
    assert samples[0].prompt[1].value == "Mine?"


def test_rows_with_a_question_keep_it(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"query": "own"}\n{"solution": "7"}\n')
    assert [s.prompt[0].value for s in open_dataset(file, prompt="other")] == ["own", "other"]


@pytest.mark.slow
def test_a_large_file_is_not_loaded_into_memory(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "large.jsonl", 20_000, response="x" * 200)
    size = Path(file).stat().st_size
    tracemalloc.start()
    data = DataSettings(train=(f"{file}*0.5", f"{file}*0.5"))
    rows = user_data(data, "train")
    memory, _ = tracemalloc.get_traced_memory()
    assert rows is not None
    assert rows[23_456].replies[0].text == "x" * 200
    tracemalloc.stop()
    assert len(rows) == 40_000
    assert size > 4 * 2**20
    assert memory < size / 2  # two readers and the mix over 40,000 samples
