"""`mmpost eval bench=NAME`: replies are sampled once, kept under what they depend on, and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import on_two_ranks
from PIL import Image

import mmpost
from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.ledger import Depends, Entry, Ledger
from mmpost.benchmarks.questions import subset
from mmpost.commands.diff import diff
from mmpost.commands.evaluate import evaluate
from mmpost.errors import ConfigError, DataError, PluginError
from mmpost.listeners.files import eval_samples
from mmpost.report.page import write_report
from tests.benchmarks.small_benches import write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    write_questions("pope", folder / "pope")
    for sample in benchmark("pope").rows(benchmark("pope").paths(folder, "pope")):
        Image.new("RGB", (56, 56), len(sample.meta["image"])).save(folder / "pope" / sample.meta["image"])
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> str:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "yes"}]
    (tmp_path / "t.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 8)
    return f"data.train={tmp_path / 't.jsonl'}"


def run(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    """The result; of other ranks than the first, nothing."""
    arguments = ["bench=pope", "model=random-tiny", f"data.benches={folder}", f"out={out}", "blind=false"]
    return evaluate([*arguments, "sampling.max_tokens=4", *more]).get("pope", {})


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
    written = [json.loads(file.read_text()) for file in tmp_path.glob("random-tiny-*/pope.json")]
    assert sorted(result["model"]["max_pixels"] or 0 for result in written).count(784) == 1
    assert len(written) == 3


def test_the_blind_score_and_the_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(folder, tmp_path, "blind=true")
    assert "without media" in capsys.readouterr().out
    assert result["blind"].keys() == result["official"].keys()
    assert len(replies(tmp_path)) == 24
    (place,) = tmp_path.glob("random-tiny-*")
    page = write_report(str(place)).read_text()
    assert '"columns":[["official",{"pope/f1":' in page
    assert page.count('"uid":"adversarial/') == 4
    shown = json.loads(page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert len(shown["images"]) == 3  # of as many different pictures
    assert {"official", "strict"} <= set(shown["scores"])


def test_benchmarks_during_training(folder: Path, rows: str, tmp_path: Path) -> None:
    arguments = [
        *("task=sft", "model=random-tiny", rows, f"data.benches={folder}", "steps=3"),
        *("optim.lr=0.01", "log.progress=false", "log.tensorboard=false", "checkpoint.every=2"),
        "eval.benches.pope={samples: 8, every: 2, max_tokens: 3}",
    ]
    summary = mmpost.train(*arguments, f"out={tmp_path / 'run'}")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["eval/pope/f1" in line for line in lines] == [False, True, False]
    assert "eval/pope/gain" in lines[1]
    assert "pope/gain" not in summary["eval_before"]
    assert {"value", "low", "high", "n"} == set(summary["eval_after"]["pope/gain"])
    steps = [tmp_path / "run" / "benches" / f"step-{step:06d}" for step in (0, 2, 3)]
    files = [json.loads((step / "pope.json").read_text()) for step in steps]
    assert [file["questions"] for file in files] == [8, 8, 8]
    mean = [sum(score for score, _, _ in file["scores"].values()) / 8 for file in files]
    assert summary["eval_after"]["pope/gain"]["value"] == pytest.approx(mean[2] - mean[0])
    assert len(diff([str(steps[0]), str(steps[1])])) == 1
    assert len(replies(tmp_path / "run" / "benches")) == 24


def test_a_resumed_run_evaluates_benchmarks_as_an_uninterrupted_one(folder: Path, rows: str, tmp_path: Path) -> None:
    arguments = [
        *("task=sft", "model=random-tiny", rows, f"data.benches={folder}"),
        *("optim.lr=0.01", "log.progress=false", "log.tensorboard=false", "checkpoint.every=2"),
        "eval.benches.pope={every: 2, max_tokens: 3}",
    ]
    whole = mmpost.train(*arguments, "steps=4", "optim.schedule=constant", f"out={tmp_path / 'whole'}")
    mmpost.train(*arguments, "steps=2", "optim.schedule=constant", f"out={tmp_path / 'part'}")
    resumed = mmpost.train(f"resume={tmp_path / 'part'}", "steps=4")
    for when in ("eval_before", "eval_after"):
        assert resumed[when] == whole[when]


def test_what_benchmarks_in_training_need(rows: str, tmp_path: Path) -> None:
    arguments = ["task=sft", "model=random-tiny", rows, f"out={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"set data\.benches=FOLDER"):
        mmpost.train(*arguments, "eval.benches={pope: {}}")
    with pytest.raises(PluginError, match="did you mean pope"):
        mmpost.train(*arguments, "eval.benches={pop: {}}", f"data.benches={tmp_path}")


def test_an_evaluation_of_a_task_keeps_its_replies_and_has_a_page(tmp_path: Path) -> None:
    out = tmp_path / "eval"
    scores = evaluate(["task=visurf", "model=random-tiny", "eval.max_samples=2", f"out={out}"])["scores"]
    kept = eval_samples(out / "eval" / "eval.jsonl")
    assert {f"{bench}/" for bench in kept} == {name.partition("/")[0] + "/" for name in scores}
    assert all(len(samples) == 2 for samples in kept.values())
    assert '"columns":[["test",{' in write_report(str(out)).read_text()


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
