"""The reward of TRivia: questions answered from what was recognised, exactly, by a stub, and by a faulty server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmpost.errors import DataError, TrainError
from mmpost.judges.chat_judge import Answer
from mmpost.judges.server import Server
from mmpost.judges.tables.config import AnswerModel
from mmpost.judges.tables.judge import TableQuestions
from mmpost.judges.tables.readers import INSTRUCTION, ChatReader, MarkupReader
from mmpost.judges.transform import JudgeScore
from mmpost.tables.lookup import write_questions
from mmpost.tables.otsl import read_otsl
from mmpost.types import Part, Reply, Sample
from tests.judges.chat_server import ChatServer, serving
from tests.transforms.fakes import FakeContext

PAIRS = [{"question": name, "answer": number} for name, number in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))]
TABLE = "".join(f"<fcel>{pair['question']}<fcel>{pair['answer']}<nl>\n" for pair in PAIRS)


class CellAfter(MarkupReader):
    """A stub that finds the cell after the one that the question names, and notes what it is asked."""

    asked: list[tuple[str, str]] = []

    def answers(self, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        self.asked.extend(asked)
        found = (table.partition(f"<td>{question}</td><td>")[2].partition("</td>")[0] for table, question in asked)
        return [Answer(text or "The table says: Not Answerable.") for text in found]


def sample(*texts: str, pairs: Any = PAIRS) -> Sample:
    replies = tuple(Reply((Part("text", text, "assistant"),), "policy") for text in texts)
    return Sample("s", (Part("text", "table"),), replies, meta={"qa_pairs": pairs})


def scores(*texts: str, pairs: Any = PAIRS, **options: Any) -> list[float | None]:
    judge = TableQuestions(reader=CellAfter(), **options)
    asked = sample(*texts, pairs=pairs)
    return [verdict.score for verdict in judge.judge([judge.pair(asked, reply) for reply in asked.replies])]


def test_the_score_is_the_mean_over_questions() -> None:
    missing = TABLE.replace("<fcel>b<fcel>2<nl>\n", "")
    html = "<table><tr><th>a</th><td> 1 </td></tr></table>"
    assert scores(TABLE, missing, html, "no table") == [1, 0.75, 0.25, 0]
    assert scores(TABLE, pairs=[]) == [0]
    assert scores(TABLE.replace("1", "1 or 12"), pairs=PAIRS[:1]) == [0]
    swapped = [{"question": "a", "answer": "12"}]
    assert scores(TABLE.replace("1", "21"), pairs=swapped) == [0]
    assert scores(TABLE.replace("1", "21"), pairs=swapped, f1="char_bag") == [1]


def test_a_reply_that_was_cut_off_scores_0_unasked() -> None:
    reader = CellAfter(asked=[])
    judge, asked = TableQuestions(reader=reader), sample(TABLE.removesuffix("<nl>\n"), TABLE)
    verdicts = judge.judge([judge.pair(asked, reply) for reply in asked.replies])
    assert [verdict.score for verdict in verdicts] == [0, 1]
    assert len(reader.asked) == len(PAIRS)


def test_samples_without_questions_have_no_score_and_others_than_pairs_are_refused() -> None:
    plain = Sample("s", (Part("text", "table"),), (Reply((Part("text", TABLE, "assistant"),)),))
    assert TableQuestions()(plain, plain.replies[0]) is None
    with pytest.raises(DataError, match=r"wanted questions .* found 'a\?' in 'qa_pairs'"):
        TableQuestions()(sample(TABLE, pairs="a?"), sample(TABLE).replies[0])


def test_the_exact_reader_answers_what_is_written_about_a_table() -> None:
    import random

    text = "<fcel>id<fcel>x<fcel>y<nl><fcel>a<fcel>1<fcel>5<nl><fcel>b<fcel>2<fcel>4<nl>"
    pairs = [q._asdict() for q in write_questions(read_otsl(text).table, 100, random.Random(0))]
    right, wrong = text, text.replace("<fcel>5", "<fcel>7")
    judge = AnswerModel().judge()
    verdicts = judge.judge([judge.pair(sample(t, pairs=pairs), sample(t).replies[0]) for t in (right, wrong, "<nl>")])
    assert verdicts[0].score == 1
    assert 0.3 < (verdicts[1].score or 0) < 1
    assert verdicts[2].score == 0
    assert [v.counts["answerable"] for v in (verdicts[0], verdicts[2])] == [1, 0]


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def chat_judge(server: ChatServer, folder: Path) -> TableQuestions:
    fast = {"read_timeout": 1.0, "total_timeout": 2.0, "backoff": 0.01, "longest_wait": 2.0, "attempts": 4}
    backend = Server(url=server.url, model="m", cache=str(folder / "answers.sqlite"), **fast)
    return TableQuestions(reader=ChatReader(backend=backend))


def question_in(prompt: str) -> str:
    assert prompt.startswith(INSTRUCTION)
    assert "<table>" in prompt
    return prompt.rpartition("Question: ")[2]


FAULTS = {"a": "429 0.05", "b": "drop", "c": "cut", "d": "hang 1.5"}


@pytest.mark.usefixtures("_no_proxy")
def test_a_server_that_fails_at_first_scores_alike_and_is_paid_once(tmp_path: Path) -> None:
    said = {"a": "<answer>1</answer>", "b": "I see it.\n<answer> 2 </answer> Sure.", "c": "3", "d": "The number is 4"}

    def act(prompt: str, turn: int) -> str:
        question = question_in(prompt)
        return FAULTS[question] if turn == 1 else f"say {said[question]}"

    with serving(act) as server:
        judge = chat_judge(server, tmp_path)
        pair = judge.pair(sample(TABLE), sample(TABLE).replies[0])
        # Prose in place of a number is a wrong answer.
        assert [v.score for v in judge.judge([pair, pair])] == [0.75, 0.75]
        assert judge.judge([pair])[0].score == 0.75
        assert set(server.answer_counts.values()) == {1}
        assert len(server.answer_counts) == 4


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize("fault", ["say ", "end length", "say <answer></answer>"])
def test_an_empty_answer_is_a_wrong_one(fault: str, tmp_path: Path) -> None:
    with serving(lambda prompt, turn: fault if question_in(prompt) == "a" else "say <answer>2</answer>") as server:
        judged = JudgeScore(judge=chat_judge(server, tmp_path), name="qa")
        context = FakeContext()
        (done,) = judged([sample(TABLE)], context)
        assert done.replies[0].scores["qa"] == 0.25  # of a, b, c, d only b is 2
        assert context.mean("qa/empty") == 0.25


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize(
    ("fault", "problem"), [("500", "failed"), ("cut", "failed"), ("say ", "unparseable"), ("end length", "unparseable")]
)
def test_a_reply_without_answers_has_no_score(fault: str, problem: str, tmp_path: Path) -> None:
    def act(prompt: str, turn: int) -> str:
        is_faulty = question_in(prompt) == "c" or problem == "unparseable"
        return fault if is_faulty and "<td>lost</td>" in prompt else "say <answer>1</answer>"

    with serving(act) as server:
        judged = JudgeScore(judge=chat_judge(server, tmp_path), name="qa")
        context = FakeContext()
        (done,) = judged([sample(TABLE, TABLE + "<fcel>lost<fcel>x<nl>")], context)
        assert [reply.scores.get("qa") for reply in done.replies] == [0.25, None]
        assert context.mean(f"judge/{problem}") == 0.5


@pytest.mark.usefixtures("_no_proxy")
def test_a_server_that_is_down_stops_the_run(tmp_path: Path) -> None:
    with serving(lambda prompt, turn: "503") as server, pytest.raises(TrainError, match="found answers to none"):
        JudgeScore(judge=chat_judge(server, tmp_path))([sample(TABLE, TABLE)], FakeContext())


def test_settings_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="by=server: wanted the section server with url and model"):
        AnswerModel(by="server")
    assert json.loads(AnswerModel().model_dump_json())["by"] == "exact"
