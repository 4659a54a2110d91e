"""Questions about pictures: written, checked by another reader, and spread over the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpost.data.media.media import media
from mmpost.errors import DataError, TrainError
from mmpost.judges.answer_cache import AnswerCache
from mmpost.judges.chat_judge import Answer
from mmpost.judges.server import Server
from mmpost.judges.tables.config import PictureModel, QuestionModels
from mmpost.judges.tables.consistency import Consistency
from mmpost.judges.tables.labels import LabelPictures
from mmpost.judges.tables.readers import ChatPictureReader, StandInReader
from mmpost.judges.tables.writers import (
    ChatWriter,
    CheckQuestions,
    DiverseQuestions,
    StandInWriter,
    WriteQuestions,
    _parsed,
    diverse,
    questions_of,
    visual_source,
    with_questions,
)
from mmpost.rewards.table import truth_table
from mmpost.tables.lookup import Lookup
from mmpost.tables.questions import Question
from mmpost.types import Part, Reply, Sample
from tests.judges.chat_server import ChatServer, serving
from tests.transforms.fakes import FakeContext

ROWS = "".join(f"<fcel>r{i}<fcel>{i}.5<fcel>{20 - i}<nl>" for i in range(1, 5))
TABLE = f"<fcel>id<fcel>x<fcel>y<nl>{ROWS}"


def sample(uid: str = "s", truth: Any = TABLE, picture: bool = True) -> Sample:
    pixels = np.zeros((28, 28, 3), np.uint8)
    image = (Part("image", media(pixels, "image")),) if picture else ()
    return Sample(uid, (*image, Part("text", "table as otsl")), truth=truth)


def answered(questions: Sequence[Question], truth: str = TABLE) -> list[bool]:
    lookup = Lookup.of(truth_table(sample(truth=truth)))  # type: ignore[arg-type]
    return [lookup.answer(q.question) == q.answer for q in questions]


def test_a_stand_in_without_errors_writes_right_answers_and_alike_each_time() -> None:
    write = WriteQuestions(writer=StandInWriter(reader=StandInReader(misread=0), n=12))
    (one,), (again,) = write([sample()], FakeContext()), write([sample()], FakeContext())
    assert len(questions_of(one)) == 12
    assert all(answered(questions_of(one)))
    assert one.replies == again.replies
    (other,) = write([sample("t")], FakeContext())
    assert questions_of(other) != questions_of(one)


def test_the_checker_drops_what_the_writer_misread_and_what_can_be_guessed() -> None:
    samples = [sample(f"s{i}") for i in range(40)]
    writer = StandInWriter(reader=StandInReader(misread=0.3, name="writer"), n=24)
    written = WriteQuestions(writer=writer)(samples, FakeContext())
    wrong = [not right for s in written for right in answered(questions_of(s))]
    checked = CheckQuestions(reader=StandInReader(misread=0.05, name="checker"))(written, FakeContext())
    left = [not right for s in checked for right in answered(questions_of(s))]
    assert sum(wrong) / len(wrong) > 0.25
    assert sum(left) / len(left) < 0.05
    assert not any(q.question.startswith("Is ") and q.answer == "yes" for s in checked for q in questions_of(s))
    assert any(q.question.startswith("Is ") for s in checked for q in questions_of(s))


def test_samples_without_a_question_left_are_dropped() -> None:
    guessed = with_questions(sample(), [Question('Is the "y" of "r1" greater than that of "r2"?', "yes")])
    context = FakeContext()
    assert CheckQuestions(reader=StandInReader(misread=0))([guessed], context) == []
    assert context.mean("questions/valid") == 0


def test_a_stand_in_needs_the_table() -> None:
    with pytest.raises(DataError, match="sample 's': by=stand_in reads the table that a picture was drawn from"):
        WriteQuestions(writer=StandInWriter())([sample(truth=None)], FakeContext())


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def client(server: ChatServer, folder: Path) -> Server:
    fast = {"read_timeout": 1.0, "total_timeout": 2.0, "backoff": 0.01, "longest_wait": 2.0, "attempts": 3}
    return Server(url=server.url, model="m", cache=str(folder / "answers.sqlite"), **fast)


PASSES = [
    'say [{"question": "x of r1?", "answer": "1.5"}, {"question": "x of r2?", "answer": 2.5}]',
    'say Gladly: [{"question": "x of r1?", "answer": "9"}, {"question": "y of r1?", "answer": "19"}] Anything else?',
    "say I cannot see a table.",
]


@pytest.mark.usefixtures("_no_proxy")
def test_a_chat_model_is_shown_the_picture_in_several_passes_and_paid_once(tmp_path: Path) -> None:
    with serving(lambda prompt, turn: PASSES[turn - 1]) as server:
        write = WriteQuestions(writer=ChatWriter(backend=client(server, tmp_path), n=2, passes=3))
        for _ in range(2):
            (written,) = write([sample()], FakeContext())
            assert questions_of(written) == [("x of r1?", "1.5"), ("x of r2?", "2.5"), ("y of r1?", "19")]
        assert len(server.requests) == 3
        image, text = server.requests[0]["messages"][0]["content"]
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        assert "Write 2 questions" in text["text"]
        assert [request["temperature"] for request in server.requests] == [0.0, 0.7, 0.7]
    assert b"base64," not in AnswerCache(tmp_path / "answers.sqlite").path.read_bytes()


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize("action", ["say no", "say []", 'say [{"question": "x?"}]', "say [1", "say " + "[" * 50_000])
def test_a_picture_without_questions_is_dropped(action: str, tmp_path: Path) -> None:
    with serving(lambda prompt, turn: action) as server:
        write = WriteQuestions(writer=ChatWriter(backend=client(server, tmp_path), passes=1))
        context = FakeContext()
        assert write([sample()], context) == []
        assert context.mean("questions/missing") == 1


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize("action", ["503", "cut"])
def test_a_failed_request_for_questions_stops_the_stage(action: str, tmp_path: Path) -> None:
    with serving(lambda prompt, turn: PASSES[0] if len(server.requests) == 1 else action) as server:
        write = WriteQuestions(writer=ChatWriter(backend=client(server, tmp_path), passes=2))
        with pytest.raises(TrainError, match="wanted questions about pictures, found 1 of 1 requests failed"):
            write([sample()], FakeContext())


def test_questions_are_found_in_prose() -> None:
    answer = Answer('About [Table 1]: [{"question": "a?", "answer": null}, {"question": "b?", "answer": "2"}] [{}]')
    assert _parsed(answer) == [("b?", "2")]


@pytest.mark.usefixtures("_no_proxy")
def test_a_chat_model_checks_with_and_without_the_picture(tmp_path: Path) -> None:
    def act(prompt: str, turn: int) -> str:
        question = prompt.rpartition("Question: ")[2]
        return {"seen?": "say <answer>4</answer>" if turn == 1 else "say <answer>not answerable</answer>"}.get(
            question, "say <answer>yes</answer>"
        )

    with serving(act) as server:
        check = CheckQuestions(reader=ChatPictureReader(backend=client(server, tmp_path)))
        asked = with_questions(sample(), [Question("seen?", "4"), Question("guessed?", "yes"), Question("no?", "no")])
        (checked,) = check([asked], FakeContext())
        assert questions_of(checked) == [("seen?", "4")]
        assert [type(r["messages"][0]["content"]) for r in server.requests].count(str) == 3


@pytest.mark.usefixtures("_no_proxy")
def test_a_check_without_answers_stops_the_stage(tmp_path: Path) -> None:
    with serving(lambda prompt, turn: "500") as server:
        check = CheckQuestions(reader=ChatPictureReader(backend=client(server, tmp_path)))
        with pytest.raises(TrainError, match="wanted answers to questions, found 2 of 2 requests failed"):
            check([with_questions(sample(), [Question("a?", "4")])], FakeContext())


def test_the_visual_source_is_what_is_attended_to_more_than_twice_as_much_as_a_token_on_average() -> None:
    planted = np.full((3, 8), 0.01, np.float32)
    planted[:, 2] = 0.5
    planted[1, 5] = 0.9
    assert np.flatnonzero(visual_source(planted, 2.0)).tolist() == [2, 5]
    assert not visual_source(np.full((2, 4), 0.1, np.float32), 2.0).any()


def test_diverse_questions_lie_in_different_places() -> None:
    sources = list(
        np.array(
            [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]], bool
        )
    )
    assert diverse(sources, 5, 0.5) == [1, 2, 4]  # the largest, one apart, then IoU 1/4; the others 2/3
    assert diverse(sources, 5, 1.0) == [1, 2, 4, 0, 3]
    assert diverse(sources, 2, 0.5) == [1, 2]
    assert diverse([np.zeros(4, bool)] * 3, 3, 0.5) == [0]  # nothing is known of where they lie
    assert diverse([], 3, 0.5) == []


class Looking(FakeContext):
    """A context whose model looks at the visual token that the question's number names."""

    def attention(self, samples: Sequence[Sample], layers: float = 1 / 3) -> list[list[torch.Tensor]]:
        maps = []
        for one in samples:
            picture, question = one.prompt
            assert picture.modality == "image"
            rows = torch.full((2, 6), 0.01)
            rows[0, int(question.value)] = 0.9
            rows[1, 0] = 5.0  # the end of the turn, which is no part of the answer
            maps.append([rows])
        return maps


def test_questions_about_one_place_are_kept_once() -> None:
    asked = with_questions(sample(), [Question(place, "x") for place in "113351"])
    (kept,) = DiverseQuestions(n=5)([asked], Looking())
    assert [q.question for q in questions_of(kept)] == ["1", "3", "5"]
    assert DiverseQuestions(n=5)([with_questions(sample(), [])], Looking()) == []


def test_settings_become_the_three_steps() -> None:
    names = [type(step).__name__ for step in QuestionModels().transforms()]
    assert names == ["WriteQuestions", "CheckQuestions", "DiverseQuestions"]
    assert len(QuestionModels(checker=None, diverse=None).transforms()) == 1
    written, checked = QuestionModels(writer=PictureModel(misread=0.2, overlooked=0.1)).notes()
    assert "misreads 20 % of the cells and overlooks 10 %" in written
    assert checked.startswith("questions are checked by")
    with pytest.raises(ValueError, match="by=local: wanted the section local with model"):
        PictureModel(by="local")


def test_consistency_is_the_mean_teds_of_two_readings() -> None:
    a = "<fcel>a<fcel>b<nl><fcel>c<fcel>d<nl>"
    texts = [a, a.replace("d", "x"), "<fcel>a<fcel>b<nl>"]
    replies = tuple(Reply((Part("text", text, "assistant"),), "policy") for text in texts)
    (measured,) = Consistency()([Sample("s", (), replies)], FakeContext())
    assert measured.columns["consistency"] == pytest.approx(0.611111, abs=1e-6)
    assert not measured.replies
    nothing = tuple(Reply((Part("text", text, "assistant"),), "policy") for text in ("no", "table", "<ecel>" * 6000))
    assert Consistency()([Sample("s", (), nothing)], FakeContext())[0].columns["consistency"] == 0


def test_labels_of_the_stand_in_have_its_errors() -> None:
    (exact,) = LabelPictures(model=PictureModel(misread=0))([sample()], FakeContext())
    assert exact.replies[0].text.replace("\n", "") == TABLE
    (wrong,) = LabelPictures(model=PictureModel(misread=1), form="html")([sample()], FakeContext())
    assert wrong.replies[0].text.startswith("<table>")
    assert "<td>1.5</td>" not in wrong.replies[0].text


@pytest.mark.usefixtures("_no_proxy")
def test_labels_of_a_chat_model(tmp_path: Path) -> None:
    said = {"a": "say ```html\n<table><tr><td>1</td></tr></table>```", "b": "say I see no table", "c": "500"}
    with serving(lambda prompt, turn: said[which[0]]) as server:
        model = PictureModel(by="server", server=client(server, tmp_path))
        label = LabelPictures(model=model)
        which = ["a"]
        (done,) = label([sample()], FakeContext())
        assert done.replies[0].text == "<fcel>1<nl>"
        which = ["b"]
        pixels = media(np.ones((28, 28, 3), np.uint8), "image")
        other = Sample("t", (Part("image", pixels), Part("text", "table")))
        context = FakeContext()
        assert label([other], context) == []
        assert context.mean("labels/missing") == 1
        which = ["c"]
        third = Sample("u", (Part("image", media(np.full((28, 28, 3), 7, np.uint8), "image")),))
        with pytest.raises(TrainError, match="wanted labels of pictures, found 1 of 1 requests failed"):
            label([third], FakeContext())


def test_a_reading_becomes_a_valid_label() -> None:
    texts = ["<fcel>a<nl><fcel>b<fcel>cut", "<answer><fcel>a<nl></answer>", "<TABLE><tr><td>1</td></tr>", "none", ""]
    samples = [Sample(text, (), (Reply((Part("text", text, "assistant"),)),)) for text in texts]
    context = FakeContext()
    label = LabelPictures(model=None, line_breaks=False)
    labels = [s.replies[0].text for s in label(samples, context)]
    assert labels == ["<fcel>a<ecel><nl><fcel>b<fcel>cut<nl>", "<fcel>a<nl>", "<fcel>1<nl>"]
    assert context.mean("labels/missing") == 0.4


def test_questions_survive_as_json() -> None:
    question = Question('What is the "größe" of "a\\b"?', "12 µm")
    assert questions_of(with_questions(sample(), [question])) == [question]
    assert json.loads(with_questions(sample(), [question]).replies[0].text)["answer"] == "12 µm"
