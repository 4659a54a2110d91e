"""`mmpost score bench=NAME`: official files of small benchmarks, predictions of all forms, errors with their place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

from mmpost.benchmarks.benchmark import PACKAGE, benchmark
from mmpost.benchmarks.scoring import evaluate
from mmpost.commands.score import score
from mmpost.config import registry
from mmpost.errors import ConfigError, DataError, PluginError
from tests.benchmarks.official_scores import NAMES as WRITTEN
from tests.benchmarks.small_benches import small, write_questions

NAMES = sorted(registry.modules(PACKAGE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_questions(name, tmp_path / name)
    return tmp_path


def lines(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def samples_of(name: str, folder: Path) -> list[Any]:
    bench = benchmark(name)
    return list(bench.rows(bench.paths(folder, name)))


def test_every_benchmark_has_small_questions_here() -> None:
    assert NAMES == WRITTEN


@pytest.mark.parametrize("name", NAMES)
def test_gold_scores_the_maximum_and_nothing_scores_nothing(name: str, folder: Path) -> None:
    bench, samples = benchmark(name), samples_of(name, folder)
    gold = evaluate(bench, samples, {s.uid: small(name).gold(s) for s in samples}, name)
    headline = next(iter(gold.strict))
    assert gold.official[headline]["value"] == gold.strict[headline]["value"] == 1
    assert gold.missing == gold.unparsed == 0
    empty = evaluate(bench, samples, {s.uid: "" for s in samples}, name)
    assert empty.strict[headline]["value"] == 0
    assert empty.unparsed == len(samples)


@pytest.mark.parametrize("name", NAMES)
def test_neither_order_nor_shards_of_predictions_matter(name: str, folder: Path) -> None:
    bench, samples = benchmark(name), samples_of(name, folder)
    replies = {s.uid: random.Random(s.uid).choice([small(name).gold(s), "", "no", "B", "nothing"]) for s in samples}
    whole = evaluate(bench, samples, replies, name)
    shuffled = random.Random(0).sample(sorted(replies), len(replies))
    for shards in (1, 2, 4):
        merged = {uid: replies[uid] for shard in range(shards) for uid in shuffled[shard::shards]}
        assert evaluate(bench, samples, merged, name) == whole


@pytest.mark.parametrize("name", NAMES)
def test_fuzzed_replies_have_scores(name: str, folder: Path) -> None:
    bench, samples = benchmark(name), samples_of(name, folder)
    rng = random.Random(name)
    pieces = [
        *"()[]{}<>.,:;!?-_ \n\t\x00ABCDabcd0123456789%$\\",
        "yes",
        "No",
        "answer",
        "<answer>",
        "</answer>",
        "é",
        "1e999",
    ]
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        sample = rng.choice(samples)
        for rule in (bench.official, bench.strict):
            assert 0 <= rule.score(sample, rule.read(sample, text)) <= 1


def test_the_command_prints_and_writes_both_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = samples_of("pope", folder)
    rows = [{"uid": s.uid, "reply": "" if s.truth == "yes" else "No."} for s in samples]
    file = lines(folder / "p.jsonl", rows)
    arguments = ["bench=pope", f"predictions={file}", f"data.benches={folder}", f"out={folder / 's.json'}"]
    result = score(arguments)
    assert json.loads((folder / "s.json").read_text()) == result
    assert result["official"]["accuracy/random"]["value"] == 1
    assert result["strict"]["accuracy/random"]["value"] == 0.5
    assert result["unparsed"] == len(result["differing"]) == len(samples) // 2
    assert "unverified, sha256" in result["release"]
    printed = capsys.readouterr().out
    assert "official" in printed
    assert "scored differently: random/" in printed


FORMS: dict[str, Any] = {
    "rows": lambda p: json.dumps([{"id": uid, "model_output": text} for uid, text in p.items()]),
    "object": lambda p: json.dumps({uid: {"response": text} for uid, text in p.items()}),
    "texts by id": lambda p: json.dumps(p),
    "own keys": lambda p: json.dumps([{"nr": uid, "said": text, "answer": "truth"} for uid, text in p.items()]),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_predictions(form: str, folder: Path) -> None:
    samples = samples_of("mmau", folder)
    file = folder / "p.json"
    file.write_text(FORMS[form]({s.uid: s.truth for s in samples}))
    keys = ["key=said", "id=nr"] if form == "own keys" else []
    result = score(["bench=mmau", f"predictions={file}", f"data.benches={folder}", *keys])
    assert result["official"]["accuracy"]["value"] == 1
    assert result["missing"] == 0


def test_a_folder_of_predictions(folder: Path) -> None:
    samples = samples_of("mmau", folder)
    for number, sample in enumerate(samples):
        (folder / "replies" / str(number)).mkdir(parents=True)
        lines(folder / "replies" / str(number) / "output.jsonl", [{"id": sample.uid, "response": sample.truth}])
    result = score(["bench=mmau", f"predictions={folder / 'replies'}", f"data.benches={folder}"])
    assert (result["official"]["accuracy"]["value"], result["missing"]) == (1, 0)


def test_the_official_rule_of_mmau_leaves_out_what_has_no_prediction(folder: Path) -> None:
    first, *_, last = samples_of("mmau", folder)
    file = lines(folder / "p.jsonl", [{"id": first.uid, "reply": first.truth}, {"id": last.uid, "reply": None}])
    result = score(["bench=mmau", f"predictions={file}", f"data.benches={folder}"])
    assert (result["official"]["accuracy"]["value"], result["official"]["accuracy"]["n"]) == (1, 1)
    assert (result["strict"]["accuracy"]["value"], result["strict"]["accuracy"]["n"]) == (0.25, 4)
    assert result["missing"] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "0", "question": "q", "answer": "a"}],
            r"p\.jsonl:1: wanted the reply under one of .*name it: key=NAME",
        ),
        ([{"reply": "a"}], r"p\.jsonl:1: wanted the id under one of .*name it: id=NAME"),
        ([{"id": "0", "reply": 1}], r"p\.jsonl:1: wanted a reply as text in 'reply', found 1"),
        ([{"id": "0", "reply": "a"}, {"id": "0", "reply": "b"}], r"p\.jsonl:2: wanted one reply to '0'"),
        ([{"id": "0", "reply": "a"}, {"id": "1"}], r"p\.jsonl:2: wanted a reply in 'reply', found the keys \['id'\]"),
        ([{"id": "0", "reply": None}], "wanted rows with replies, found none in 'reply'"),
        ([{"id": "zzz", "reply": "a"}], r"found 1 to others, such as \['zzz'\]; its ids look like '0'"),
    ],
)
def test_predictions_that_cannot_be_used(rows: list[dict[str, Any]], message: str, folder: Path) -> None:
    file = lines(folder / "p.jsonl", rows)
    with pytest.raises(DataError, match=message):
        score(["bench=mmau", f"predictions={file}", f"data.benches={folder}"])


def test_arguments_that_cannot_be_used(folder: Path) -> None:
    file = lines(folder / "p.jsonl", [{"id": "0", "reply": "a"}])
    with pytest.raises(PluginError, match="no benchmark named 'pop': did you mean pope"):
        score(["bench=pop", f"predictions={file}", f"data.benches={folder}"])
    with pytest.raises(ConfigError, match="add predictions=FILE"):
        score(["bench=mmau"])
    with pytest.raises(ConfigError, match=r"set data\.benches=FOLDER"):
        score(["bench=mmau", f"predictions={file}"])
    with pytest.raises(ConfigError, match="found 'missing'; remove it"):
        score(["bench=mmau", f"predictions={file}", f"data.benches={folder}", "missing=wrong"])
    with pytest.raises(DataError, match=r"wanted its official file mmau-test-mini\.json in .*Apache-2\.0"):
        score(["bench=mmau", f"predictions={file}", f"data.benches={folder / 'pope'}"])


@pytest.mark.parametrize("name", NAMES)
def test_damaged_official_files_are_named(name: str, folder: Path) -> None:
    bench = benchmark(name)
    path = bench.paths(folder, name)[0]
    if path.suffix == ".parquet":
        parquet.write_table(Table.from_pylist([{"a": 1}]), path)
    else:
        path.write_text({".tsv": "a\n1\n", ".jsonl": '{"a": 1}'}.get(path.suffix, '[{"a": 1}]'))
    with pytest.raises(DataError, match=rf"{path.name}.*wanted .*found None"):
        list(bench.rows(bench.paths(folder, name)))
