"""`mmpost eval bench=NAME`: replies are sampled once, kept under what they depend on, and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import on_two_ranks
from PIL import Image

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.ledger import Depends, Entry, Ledger
from mmpost.benchmarks.scoring import subset
from mmpost.commands.evaluate import evaluate
from mmpost.errors import ConfigError, DataError
from tests.benchmarks.small_benches import write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    write_questions("pope", folder / "pope")
    for sample in benchmark("pope").rows(benchmark("pope").paths(folder, "pope")):
        Image.new("RGB", (56, 56), len(sample.meta["image"])).save(folder / "pope" / sample.meta["image"])
    return folder


def run(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    """The result; of other ranks than the first, nothing."""
    arguments = ["bench=pope", "model=random-tiny", f"data.benches={folder}", f"out={out}", "sampling.max_tokens=4"]
    return evaluate([*arguments, *more]).get("pope", {})


def replies(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in (out / "replies").glob("*.jsonl") for line in file.read_text().splitlines()]


def test_replies_are_sampled_once_and_kept_by_their_settings(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(folder, tmp_path)
    printed = capsys.readouterr().out
    assert "12 questions, 0 without a reply" in printed
    assert first["truncated"] == 12
    kept = replies(tmp_path)
    assert len(kept) == len({row["key"] for row in kept}) == 12
    assert run(folder, tmp_path) == first
    assert replies(tmp_path) == kept
    run(folder, tmp_path, "sampling.max_tokens=5")
    assert len(replies(tmp_path)) == 24
    run(folder, tmp_path, "model.max_pixels=784")
    assert len(replies(tmp_path)) == 36
    (written,) = tmp_path.glob("pope-*.json")
    assert json.loads(written.read_text())["settings"]["max_pixels"] == 784


def test_boxes_are_scored_in_the_frame_of_the_model(tmp_path: Path) -> None:
    write_questions("refcoco", tmp_path / "refcoco")
    for sample in benchmark("refcoco").rows(benchmark("refcoco").paths(tmp_path, "refcoco")):
        Image.new("RGB", (64, 48)).save(tmp_path / "refcoco" / sample.meta["image"])
    arguments = ["bench=refcoco", f"data.benches={tmp_path}", f"out={tmp_path / 'out'}", "sampling.max_tokens=4"]
    assert evaluate([*arguments, "model=random-tiny"])["refcoco"]["strict"]["acc@0.5"]["n"] == 6


@pytest.mark.parametrize("cut", [0, 1, 57])
def test_a_killed_evaluation_goes_on_where_it_was(cut: int, folder: Path, tmp_path: Path) -> None:
    whole = run(folder, tmp_path / "whole")
    done = replies(tmp_path / "whole")
    (file,) = (tmp_path / "whole" / "replies").glob("*.jsonl")
    part = tmp_path / "part" / "replies" / file.name
    part.parent.mkdir(parents=True)
    lines = file.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:5]) + lines[5][:cut])
    assert run(folder, tmp_path / "part") == whole
    assert sorted(row["key"] for row in replies(tmp_path / "part")) == sorted(row["key"] for row in done)


def test_a_part_of_a_benchmark_is_whole_clusters(folder: Path) -> None:
    bench = benchmark("pope")
    samples = list(bench.rows(bench.paths(folder, "pope")))
    part = subset(bench, samples, 3)
    assert len(part) == 4
    assert part == [sample for sample in samples if sample.meta["image"] in {s.meta["image"] for s in part}]
    assert subset(bench, samples, 0) == subset(bench, samples, 99) == samples


def test_a_key_depends_on_everything() -> None:
    plain = Depends("w", {"temperature": 0}, 0, "local")
    changes = [{"weights": "v"}, {"sampling": {"temperature": 1}}, {"seed": 1}, {"engine": "vllm"}]
    keys = {plain._replace(**change).key("u", "p") for change in ({}, *changes)}
    assert len(keys | {plain.key("u", "q"), plain.key("v", "p")}) == 7


def test_damage_in_the_ledger_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "pope")
    assert ledger.entries() == {}
    ledger.append(0, [Entry(key="a", uid="1", reply="yes")])
    ledger.append(3, [Entry(key="b", uid="2", reply="no\nor \u2028 not")])
    assert {key: entry.reply for key, entry in ledger.entries().items()} == {"a": "yes", "b": "no\nor \u2028 not"}
    (tmp_path / "pope.rank-0.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(DataError, match=r"pope\.rank-0\.jsonl:1: wanted a reply of the ledger"):
        ledger.entries()


def test_what_cannot_be_evaluated(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set data\.benches=FOLDER"):
        evaluate(["bench=pope", "model=random-tiny"])
    with pytest.raises(DataError, match=r"POPE|coco_pope_random\.json"):
        evaluate(["bench=pope", "model=random-tiny", f"data.benches={tmp_path}", f"out={tmp_path / 'o'}"])
    with pytest.raises(ConfigError, match="sampling"):
        run(folder, tmp_path / "o", "sampling.temprature=1")


def test_two_ranks_keep_and_score_the_same(folder: Path, tmp_path: Path) -> None:
    alone = run(folder, tmp_path / "one")
    assert on_two_ranks(lambda: run(folder, tmp_path / "two"), tmp_path) == alone
    assert len(list((tmp_path / "two" / "replies").glob("*.jsonl"))) == 2
    key = ["key", "uid", "reply"]
    rows = [sorted([[row[name] for name in key] for row in replies(tmp_path / out)]) for out in ("one", "two")]
    assert rows[0] == rows[1]
