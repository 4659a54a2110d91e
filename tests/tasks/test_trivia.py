"""TRivia: its stages, of which none sees markup of unlabelled pictures; own data, resuming, arms of its study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import same_weights

import mmpost
from mmpost.config import run_config
from mmpost.core.sample_io import pack
from mmpost.data.worlds.tables.pictures import TablePictures
from mmpost.errors import ConfigError, DataError
from mmpost.judges.tables.judge import TableQuestions
from mmpost.rewards.table import teds, truth_table
from mmpost.runs.configured_task import make_task
from mmpost.tables.lookup import Lookup
from mmpost.tasks.trivia import (
    Trivia,
    WithExactQuestions,
    WithWrittenQuestions,
    random_indices,
    selected_pictures,
)
from mmpost.types import Part, Reply, Sample, SampleRecord
from tests.judges.chat_server import serving

SMALL: dict[str, Any] = {
    "prompts_per_step": 2,
    "num_generations": 2,
    "sft_prompts_per_step": 2,
    "scenes": 6,
    "bench_scenes": 2,
    "generation_batch_size": 3,
    "sampling": {"max_tokens": 8},
    "pictures": {"low": 0.0, "readings": 2},
    "illegal": {"refill": True},  # a model with random weights never ends a table
}
RUN: dict[str, Any] = {
    "model": "random-tiny-tables",
    "optim": {"lr": 1e-3},
    "rewards": {"length": f"{Path(__file__)}:letters"},  # otherwise all replies of such a model score the same
    "eval": {"before": False, "after": False},
    "log": {"progress": False, "tensorboard": False, "probe_every": 0},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 2,
}


def letters(sample: Sample, reply: Reply) -> float:
    """A reward that differs between random replies."""
    return float(len(reply.text))


def small(**more: Any) -> dict[str, Any]:
    return {"name": "trivia", **SMALL, **more}


def lines(run: Path, stage: str) -> list[dict[str, Any]]:
    first, *rest = (run / "manifests" / f"{stage}.jsonl").read_text().splitlines()
    assert json.loads(first)["made"]["stage"] == stage
    return [json.loads(line) for line in rest]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**RUN, task=small(), out=str(out))
    return out


def test_readings_then_questions_then_learning(finished: Path) -> None:
    readings, questions = lines(finished, "readings"), lines(finished, "questions")
    assert len(readings) == 6
    assert all("consistency" in line["columns"] for line in readings)
    assert not any(line["replies"] for line in readings)
    pairs = [json.loads(reply["parts"][0]["value"]) for line in questions for reply in line.get("replies", ())]
    assert pairs
    assert all(set(pair) == {"question", "answer"} for pair in pairs)
    summary = json.loads((finished / "summary.json").read_text())
    assert [" ".join(note.split()[:4]) for note in summary["notes"]] == [
        "questions are written by",
        "questions are checked by",
        "questions are answered by",
    ]
    assert "misreads 5 % of the cells" in summary["notes"][0]


def test_a_resumed_run_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy, symlinks=True)
    for name in ("last", "step-2"):
        path = copy / "checkpoints" / name
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    (copy / "summary.json").unlink()
    first = tmp_path / "first" / "checkpoints"
    shutil.copytree(copy / "checkpoints" / "step-1", first / "last")
    mmpost.train(resume=str(copy / "checkpoints" / "step-1"), steps=2)
    assert same_weights(finished, copy)
    assert not same_weights(finished, first.parent)


@pytest.mark.parametrize("learn_from", ["questions", "label_reward"])
def test_the_learning_stage_has_no_label_of_the_data(learn_from: str) -> None:
    task = Trivia(learn_from=learn_from, **{**SMALL, "pictures": {"by": "all"}})  # type: ignore[arg-type]
    *_, teaching, learning = task.stages()
    assert learning.reads_from is not None

    class Recorded:
        records = [SampleRecord("a", 0)]

        def samples(self) -> list[Sample]:
            truth = "<fcel>secret<nl>"
            text = "<fcel>model<nl>" if learn_from == "label_reward" else '{"question": "q?", "answer": "1"}'
            return [Sample("a", (), (Reply((Part("text", text, "assistant"),)),), truth)]

    (sample,) = learning.reads_from.build(teaching.source, Recorded())  # type: ignore[arg-type]
    assert "secret" not in json.dumps(pack([sample])) + repr(sample)
    pairs = [{"question": "q?", "answer": "1"}]
    assert sample.truth == ({"qa_pairs": pairs} if learn_from == "questions" else "<fcel>model<nl>")
    assert (truth_table(sample) is None) == (learn_from == "questions")


@pytest.mark.parametrize(
    "more",
    [
        {"learn_from": "labels", "pictures": {"by": "random", "n": 4}},
        {"learn_from": "label_reward", "illegal": None, "form": "html"},
        {"learn_from": "label_reward", "labeller": {"misread": 0.3}},
        {"warmup_fraction": 0.5, "sft_fraction": 0.5},
        {"sft_fraction": 0.5, "questions": {"checker": None, "diverse": None}, "form": "html"},
    ],
)
def test_what_it_is_compared_with_runs(more: dict[str, Any], tmp_path: Path) -> None:
    rewards = {} if more.get("learn_from") == "labels" or more.get("warmup_fraction") else RUN["rewards"]
    run = {**RUN, "rewards": rewards, "eval": {"before": False, "max_samples": 2}}
    mmpost.train(**run, task=small(**more), out=str(tmp_path / "run"))
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    evaluated = json.loads((tmp_path / "run" / "summary.json").read_text())["eval_after"]
    assert {"tables/teds", "tables/qa", "labelled/s_teds", "tables/complete"} <= set(evaluated)


def test_a_selection_measures_what_an_earlier_stage_wrote(tmp_path: Path) -> None:
    task = small(learn_from="label_reward", labeller={"misread": 1.0}, pictures={"by": "all"})
    run = {**RUN, "steps": 1, "select": {"by": "rif", "right": 0.0, "k": 4}}
    mmpost.train(**run, task=task, out=str(tmp_path / "run"))
    labels = [reply["parts"][0]["value"] for line in lines(tmp_path / "run", "labels") for reply in line["replies"]]
    assert all(len(line["replies"]) == 4 for line in lines(tmp_path / "run", "select"))
    (step,) = (tmp_path / "run" / "samples").glob("*.jsonl")
    trained = [json.loads(line) for line in step.read_text().splitlines()]
    assert trained
    assert all(line["truth"] in labels for line in trained)


def test_a_policy_that_reads_no_table_has_no_labels(tmp_path: Path) -> None:
    task = small(learn_from="labels", labeller="policy", pictures={"by": "all"})
    with pytest.raises(DataError, match=r"labels\.jsonl: wanted samples for the next stage, found none of 6"):
        mmpost.train(**{**RUN, "rewards": {}}, task=task, out=str(tmp_path / "run"))


def test_labels_of_the_stages_before() -> None:
    otsl = Trivia(warmup_fraction=0.2, sft_fraction=0.3)
    assert [stage.name for stage in otsl.stages()] == ["warmup", "sft", "readings", "questions", "learn"]
    assert [stage.fraction for stage in otsl.stages() if stage.objective is not None] == pytest.approx([0.2, 0.3, 0.5])
    sample = TablePictures("train", 1)[0]
    assert otsl.target_text(sample) == sample.truth
    html = Trivia(form="html").target_text(sample)
    assert html is not None
    assert teds(sample, Reply((Part("text", html, "assistant"),))) == 1
    labelled = Sample("s", (), truth={"html": html})
    assert otsl.target_text(labelled) == str(sample.truth).replace("<nl>", "<nl>\n").strip()
    assert Trivia(line_breaks=False).target_text(labelled) == sample.truth
    assert otsl.target_text(Sample("s", ())) is otsl.target_text(Sample("s", (), truth="I see no table")) is None
    assert otsl.target_text(Sample("s", (), truth=f"<TABLE>{html[7:]}")) == otsl.target_text(labelled)
    with pytest.raises(DataError, match="sample 's': wanted a table in HTML or valid OTSL as the truth"):
        otsl.target_text(Sample("s", (), truth="<fcel>a<nl><fcel>b<fcel>cut"))


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.7, 0.3), (0.9, 0.1)])
def test_labelled_stages_alone_read_no_unlabelled_pictures(fractions: tuple[float, float]) -> None:
    task = Trivia(warmup_fraction=fractions[0], sft_fraction=fractions[1])
    assert [stage.name for stage in task.stages()] == ["warmup", "sft"]
    assert task.notes() == ()


def test_the_instruction_names_the_markup() -> None:
    (stage, *_) = Trivia(form="html", sft_fraction=0.5).stages()
    assert stage.source[0].prompt[-1].value == "table as html"


def test_evaluations_ask_exact_questions() -> None:
    source = TablePictures("test", 3, look="paper")
    for plain, sample in zip(source, WithExactQuestions(source), strict=True):
        table = truth_table(plain)
        assert table is not None
        lookup = Lookup.of(table)
        assert len(sample.meta["qa_pairs"]) == 8
        assert all(lookup.answer(pair["question"]) == pair["answer"] for pair in sample.meta["qa_pairs"])
        right = Reply((Part("text", str(plain.truth), "assistant"),))
        assert TableQuestions()(sample, right) == 1


def test_random_pictures_are_a_set_that_grows() -> None:
    assert random_indices(10, 10, 0) == list(range(10))
    assert set(random_indices(10, 3, 0)) < set(random_indices(10, 6, 0)) != set(random_indices(10, 6, 1))


class Records:
    def __init__(self, *records: SampleRecord) -> None:
        self.records = records

    def samples(self) -> list[Sample]:
        return []


def test_a_selection_without_a_picture_says_why() -> None:
    records: Any = Records(SampleRecord("a", 0, {"consistency": 0.25, "kept": 0.0}))
    with pytest.raises(
        DataError, match=r"found none of 1, of which the most consistent has 0\.25; lower pictures\.low"
    ):
        selected_pictures([], records)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Rows as TRivia's training files have them, with questions."""
    rows = []
    for i, sample in enumerate(TablePictures("train", 3, look="paper")):
        (tmp_path / f"{i}.png").write_bytes(sample.prompt[0].value.bytes())
        table = truth_table(sample)
        assert table is not None
        name = Lookup.of(table).rows[0]
        pairs = [{"question": "How many rows are there?", "answer": len(Lookup.of(table).rows)}]
        messages = [
            {"role": "user", "content": "<image>table as otsl"},
            {"role": "assistant", "content": "<table></table>"},
        ]
        rows.append({"messages": messages, "images": [f"{i}.png"], "qa_pairs": pairs, "first": name})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_rows_with_their_own_questions(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    labelled = [json.loads(line) for line in own.read_text().splitlines()]
    for row, sample in zip(labelled, TablePictures("train", 3, look="paper"), strict=True):
        row["messages"][1]["content"] = sample.truth
        row["qa_pairs"] = [{"question": "Who wrote it?", "answer": "Fisher"}]  # no reader of the table knows
    test = own.with_name("test.jsonl")
    test.write_text("\n".join(map(json.dumps, labelled)))
    with serving(lambda prompt, turn: "say <answer>3</answer>") as server:
        answers = {
            "by": "server",
            "f1": "char_bag",
            "server": {"url": server.url, "model": "m", "cache": str(own.with_name("answers.sqlite"))},
        }
        mmpost.train(
            **{**RUN, "eval": {"before": False, "max_samples": 2}},
            task=small(questions=None, pictures={"by": "all"}, answers=answers),
            data={"train": str(own), "test": str(test), "root": str(own.parent)},
            out=str(tmp_path / "run"),
        )
        assert all("How many rows are there?" in str(request) for request in server.requests)
    run, _ = run_config.load([{"task": {"name": "trivia"}, "data": {"test": str(test), "root": str(own.parent)}}])
    sample = make_task(run).benches("test")[0].source[0]
    right = Reply((Part("text", str(sample.truth), "assistant"),))
    assert TableQuestions()(sample, right) == 1


@pytest.mark.parametrize("pairs", [None, [], "a?", [{"question": "a?"}]])
def test_a_row_without_questions_is_named(pairs: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = [json.loads(line) for line in own.read_text().splitlines()]
    rows[1]["qa_pairs"] = pairs
    own.write_text("\n".join(map(json.dumps, rows)))
    data = {"train": str(own), "root": str(own.parent)}
    with serving(lambda prompt, turn: "say <answer>3</answer>") as server:
        answers = {
            "by": "server",
            "server": {"url": server.url, "model": "m", "cache": str(own.with_name("answers.sqlite"))},
        }
        task = small(questions=None, pictures={"by": "all"}, answers=answers)
        with pytest.raises(DataError, match=r"rows\.jsonl:2.*wanted (qa_pairs|questions|a question)"):
            mmpost.train(**RUN, task=task, data=data, out=str(own.parent / "run"))


def test_unlabelled_rows_are_refused_by_the_stand_in(own: Path) -> None:
    data = {"train": str(own), "root": str(own.parent)}
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*by=stand_in reads the table.*choose by=server or by=local"):
        mmpost.train(**RUN, task=small(pictures={"by": "all"}), data=data, out=str(own.parent / "run"))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"pictures": {"by": "random", "n": 0}}, "by=random: wanted the number of pictures to keep"),
        ({"answers": {"by": "local"}}, "by=local: wanted the section local with model"),
        ({"warmup_fraction": 0.6, "sft_fraction": 0.6}, "wanted at most 1 in all"),
        ({"labelled": "tables.jsonl"}, "labelled=tables.jsonl: wanted steps that learn from it"),
        ({"questions": None}, "answers.by=exact answers only the questions of the stand-in"),
    ],
)
def test_settings_that_do_not_fit(task: dict[str, Any], message: str) -> None:
    run, _ = run_config.load([{"task": {"name": "trivia", **task}}])
    with pytest.raises(ConfigError, match=message):
        make_task(run)


def test_asked_pictures_keep_what_else_they_have() -> None:
    reply = Reply((Part("text", '{"question": "q?", "answer": "1"}', "assistant"),))
    sample = Sample("s", (Part("text", "table"),), (reply,), "t", {"look": "paper"})
    (one,) = WithWrittenQuestions([sample])
    assert one.meta == {"look": "paper", "qa_pairs": [{"question": "q?", "answer": "1"}]}
