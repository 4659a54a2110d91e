"""Files that `mmpost score` must not take for predictions, and files that `mmpost predict` must not continue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpost.commands.predict import predict
from mmpost.commands.score import score
from mmpost.core.means import mean_by
from mmpost.errors import ConfigError, DataError
from mmpost.training.evaluation import intervals
from mmpost.types import Reply, Sample

QUESTIONS = [{"id": str(i), "question": "How many?", "answer": str(i)} for i in range(4)]


@pytest.fixture
def task(tmp_path: Path) -> list[str]:
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return ["task=grpo", "task.rewards={text.answer_match: 1}", f"data.test={tmp_path / 'questions.jsonl'}"]


def scored(task: list[str], tmp_path: Path, rows: list[dict[str, Any]], *more: str) -> float:
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = score([*task, f"answers={tmp_path / 'replies.jsonl'}", *more])
    (metric,) = [v for k, v in result["scores"].items() if k.endswith("answer_match")]
    return metric["value"]


@pytest.mark.parametrize("key", ["reply", "prediction", "output", "model_output"])
def test_replies_are_found_under_the_usual_keys(key: str, task: list[str], tmp_path: Path) -> None:
    rows = [{"id": row["id"], key: "1", "answer": row["answer"]} for row in QUESTIONS]
    all_correct = [{"id": row["id"], key: row["answer"], "answer": row["answer"]} for row in QUESTIONS]
    assert scored(task, tmp_path, rows) == pytest.approx(scored(task, tmp_path, all_correct) / 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (QUESTIONS, r"replies\.jsonl:1: wanted a reply under one of .*found only 'answer' beside \['question'\]"),
        ([{"id": r["id"], "answer": r["answer"]} for r in QUESTIONS], "equals the truth in each of 4 rows"),
        ([{"id": r["id"], "predicted": "1"} for r in QUESTIONS], r"jsonl:1: wanted uid and a reply under one of"),
        ([{"id": "0", "reply": "0"}, {"id": "1", "reply": None}], r"jsonl:2: wanted the reply as text.*found None"),
        ([{"id": "0", "reply": "0"}, {"id": "1", "reply": ["1"]}], r"jsonl:2: wanted the reply as text"),
        ([{"id": "0", "reply": 0}, {"id": "1", "reply": "1"}], r"jsonl:1: wanted the reply as text.*found 0"),
        ([{"reply": "0"}], r"jsonl:1: wanted uid"),
    ],
)
def test_no_score_from_nothing(rows: list[dict[str, Any]], message: str, task: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        scored(task, tmp_path, rows)


def test_answers_that_differ_from_the_truth_or_are_named_count(task: list[str], tmp_path: Path) -> None:
    wrong_once = [{"id": r["id"], "answer": "0"} for r in QUESTIONS]
    perfect = [{"id": r["id"], "answer": r["answer"]} for r in QUESTIONS]
    first, named = scored(task, tmp_path, wrong_once), scored(task, tmp_path, perfect, "key=answer")
    assert named == pytest.approx(4 * first)
    assert scored(task, tmp_path, QUESTIONS, "key=answer") == named


def test_a_group_has_its_own_number_of_samples() -> None:
    samples = [Sample(str(i), (), (Reply(()),), truth=kind) for i, kind in enumerate("aab")]

    def summary(samples: Any) -> dict[str, float]:
        values = [("all", 1.0) for _ in samples] + [(f"of/{s.truth}", 1.0) for s in samples]
        return {**mean_by(values, scale=100), "plain": 1.0}

    counts = {name: estimate["n"] for name, estimate in intervals(summary, samples).items()}
    assert counts == {"all": 3, "of/a": 2, "of/b": 1, "plain": 3}


def test_predict_continues_only_what_the_same_settings_and_data_made(task: list[str], tmp_path: Path) -> None:
    out, model = (
        f"out={tmp_path / 'out.jsonl'}",
        ["model=random-tiny", "model.device=cpu", "task.sampling.max_tokens=3"],
    )
    assert predict([*task, *model, out]) == 4
    assert predict([*task, *model, out]) == 0
    for change in ("task.sampling.max_tokens=4", "model.system=Be brief.", "seed=1"):
        with pytest.raises(ConfigError, match="choose a new file"):
            predict([*task, *model, change, out])
    questions = tmp_path / "questions.jsonl"
    questions.write_text(questions.read_text().replace("How many?", "How much?"))
    with pytest.raises(ConfigError, match="another prompt of the sample '0'"):
        predict([*task, *model, out])
