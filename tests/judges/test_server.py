"""The client against a real server that misbehaves: nothing lost, nothing scored silently, nothing paid for twice."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from mmpost.errors import ConfigError, TrainError
from mmpost.judges.chat_judge import ChatJudge
from mmpost.judges.grade import Grade
from mmpost.judges.radiology.green import Green
from mmpost.judges.server import Server, _parse_retry_after
from mmpost.judges.transform import JudgeScore
from mmpost.types import Part, Reply, Sample
from tests.judges import killed_judge
from tests.judges.chat_server import GOOD, ChatServer, serving
from tests.transforms.fakes import FakeContext

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def client(server: ChatServer, folder: Path, **more: Any) -> Server:
    quick = {"read_timeout": 1.0, "total_timeout": 2.0, "backoff": 0.01, "longest_wait": 2.0, "attempts": 4}
    return Server(url=server.url, model="m", cache=str(folder / "answers.sqlite"), **{**quick, **more})


def grades(server: ChatServer, folder: Path, **more: Any) -> ChatJudge:
    return ChatJudge(prompt=Grade(prompt="{candidate}"), backend=client(server, folder, **more))


def pairs(n: int) -> list[tuple[str, str]]:
    return [("r", f"q{i}") for i in range(n)]


FAULTS = ("drop", "hang 1.5", "429 0.05", "503", "500", "cut", "short", "drip 60", "529")


def test_a_server_with_every_fault_answers_all_in_the_end(tmp_path: Path) -> None:
    def behave(question: str, turn: int) -> str:
        fault = FAULTS[int(question[1:]) % len(FAULTS)]
        return fault if turn == 1 else f"say Score: {int(question[1:]) % 11}"

    with serving(behave) as server:
        verdicts = grades(server, tmp_path, attempts=10).judge(pairs(27))
    assert [v.score for v in verdicts] == [i % 11 / 10 for i in range(27)]
    assert min(server.asked.values()) == 2  # more where this machine is so busy that the client gave up
    assert len(server.answered) == 27


def test_what_never_answers_is_failed_and_what_never_fits_unparseable(tmp_path: Path) -> None:
    told = {
        "q0": "say Score: 7",
        "q1": "500",
        "q2": "say A fine report, I would say.",
        "q3": "cut",
        "q4": "say Score: 70",
    }
    with serving(lambda question, turn: told[question]) as server:
        judge = grades(server, tmp_path)
        verdicts = judge.judge(pairs(5))
        assert [v.problem for v in verdicts] == ["", "failed", "unparseable", "failed", "unparseable"]
        assert [v.score for v in verdicts] == [0.7, None, None, None, None]
        assert "HTTP 500" in verdicts[1].raw_reply
        assert "wanted a chat completion" in verdicts[3].raw_reply
        assert server.asked == {"q0": 1, "q1": 4, "q2": 2, "q3": 4, "q4": 2}
        again = judge.judge(pairs(5))
        assert [v.problem for v in again] == [v.problem for v in verdicts]
        assert server.asked == {"q0": 1, "q1": 8, "q2": 2, "q3": 8, "q4": 2}


def test_an_answer_that_does_not_fit_is_asked_for_again_at_another_temperature(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say hm" if turn < 3 else "say Score: 5") as server:
        judge = grades(server, tmp_path, temperature=0.0, reask_temperature=0.9).model_copy(update={"reasks": 2})
        assert [v.score for v in judge.judge(pairs(2))] == [0.5, 0.5]
        assert [v.score for v in judge.judge(pairs(2))] == [0.5, 0.5]
        assert sorted(b["temperature"] for b in server.heard) == [0.0, 0.0, 0.9, 0.9, 0.9, 0.9]
        assert "draw" not in server.heard[0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 301])
def test_what_no_further_attempt_would_change_is_not_tried_again(code: int, tmp_path: Path) -> None:
    told: dict[str, str] = {"q9": str(code)}
    with serving(lambda question, turn: told.get(question, "say Score: 1")) as server:
        judge = grades(server, tmp_path, concurrency=4)
        with pytest.raises(ConfigError, match=rf"judge 'm' at {server.url}: wanted an answer, found HTTP {code}"):
            judge.judge(pairs(40))
        assert server.asked["q9"] == 1
        assert sum(server.asked.values()) < 40
        told.clear()
        assert len(judge.judge(pairs(40))) == 40
        assert all(n == 1 for question, n in server.asked.items() if question != "q9")


def test_retry_after_is_waited_for_by_all_and_too_long_is_a_failure(tmp_path: Path) -> None:
    with serving(lambda question, turn: "429 0.4" if question == "q0" and turn == 1 else "say Score: 1") as server:
        judge = grades(server, tmp_path, concurrency=1)
        assert all(v.score == 0.1 for v in judge.judge(pairs(4)))
        assert server.times[1] - server.times[0] >= 0.4
    with serving(lambda question, turn: "503 99") as server:
        start = time.monotonic()
        (verdict,) = grades(server, tmp_path).judge([("r", "late")])
        assert verdict.problem == "failed"
        assert server.asked["late"] == 1
        assert time.monotonic() - start < 1.5


def test_retry_after_may_be_a_date() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 25 < _parse_retry_after(format_datetime(when, usegmt=True)) <= 30
    assert _parse_retry_after("7") == 7.0
    assert _parse_retry_after("") == _parse_retry_after("soon") == _parse_retry_after("-3") == 0.0


def test_a_server_that_is_not_there_fails_each_question(tmp_path: Path) -> None:
    with serving(lambda question, turn: "drop") as server:
        pass
    judge = grades(server, tmp_path, attempts=2)
    assert {v.problem for v in judge.judge(pairs(3))} == {"failed"}
    sample = Sample("s", (), (Reply((Part("text", "a"),)),), truth="r")
    with pytest.raises(TrainError, match="wanted scores of 1 replies, found answers to none"):
        JudgeScore(judge=judge)([sample], FakeContext())


def test_no_more_at_once_than_allowed_and_equal_questions_once(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say Score: 2") as server:
        verdicts = grades(server, tmp_path, concurrency=3).judge([*pairs(12), *pairs(12)])
    assert len(verdicts) == 24
    assert {v.score for v in verdicts} == {0.2}
    assert 1 < server.most_at_once <= 3
    assert sum(server.asked.values()) == 12


def test_the_cache_knows_prompt_model_and_sampling_but_not_the_address(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say Score: 2") as server:
        grades(server, tmp_path).judge(pairs(2))
        for changed in ({"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}, {"extra": {"top_p": 0.5}}):
            base = client(server, tmp_path)
            ChatJudge(prompt=Grade(prompt="{candidate}"), backend=base.model_copy(update=changed)).judge(pairs(1))
        assert server.asked == {"q0": 5, "q1": 1}
    with serving(lambda question, turn: "500") as other:
        assert [v.score for v in grades(other, tmp_path).judge(pairs(2))] == [0.2, 0.2]
        assert not other.asked


def test_the_key_goes_to_the_server_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    with serving(lambda question, turn: "500" if question == "q1" else "say Score: 2") as server:
        judge = grades(server, tmp_path, key_variable="MY_KEY")
        verdicts = judge.judge(pairs(2))
        assert set(server.keys) == {"Bearer sk-very-secret"}
    with (
        serving(lambda question, turn: "401") as server,
        pytest.raises(ConfigError, match=r"HTTP 401 no, your header was Bearer \*\*\*") as raised,
    ):
        grades(server, tmp_path, key_variable="MY_KEY").judge([("r", "new")])
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    told = f"{verdicts}{raised.value}{judge!r}{judge.model_dump_json()}{caplog.text}"
    assert "Bearer ***" in verdicts[1].raw_reply
    assert "sk-very-secret" not in told
    assert b"sk-very-secret" not in kept
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="environment variable MY_KEY, found it empty"):
        grades(server, tmp_path, key_variable="MY_KEY").judge([("r", "newer")])


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    for url in ("host/v1", "http://me:secret@host/v1", "http://host/v1?key=secret"):
        with pytest.raises(ValueError, match="an address"):
            Server(url=url, model="m")
    assert Server(url="http://h/v1/chat/completions", model="m").url == "http://h/v1"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another path"):
        Server(url="http://h/v1", model="m", cache=str(tmp_path / "file" / "answers.sqlite")).answers([], 0)


def test_green_over_http(tmp_path: Path) -> None:
    answers = {1: "say The reports agree well.", 2: f"say {GOOD}"}
    with serving(lambda question, turn: answers[turn]) as server:
        judge = ChatJudge(prompt=Green(), backend=client(server, tmp_path))
        (verdict,) = judge.judge([("Small effusion.", "Nodule.")])
        assert verdict.score == pytest.approx(0.6)
        assert "small effusion." in server.heard[0]["messages"][0]["content"]
        short = judge.model_copy(update={"length_control": True})
        (verdict,) = short.judge([("Small effusion.", "Nodule.")])
        assert verdict.score == pytest.approx(0.6)
        (verdict,) = short.judge([("Small effusion.", "Large right nodule.")])
        assert verdict.score == pytest.approx(0.4)


@pytest.mark.parametrize("end", ["length", "content_filter", "stop"])
def test_an_answer_that_was_cut_off_is_not_read(end: str, tmp_path: Path) -> None:
    with serving(lambda question, turn: f"end {end}") as server:
        judge = ChatJudge(prompt=Green(), backend=client(server, tmp_path), reasks=0)
        (verdict,) = judge.judge([("Small effusion.", "Nodule.")])
    assert (verdict.score, verdict.problem) == ((pytest.approx(0.6), "") if end == "stop" else (None, "unparseable"))


def test_what_goes_on_record_stops_at_one_reply_without_an_answer(tmp_path: Path) -> None:
    replies = tuple(Reply((Part("text", f"q{i}", "assistant"),)) for i in range(3))
    sample = Sample("s", (), replies, truth="r")
    with serving(lambda question, turn: "500" if question == "q1" else "say Score: 3") as server:
        judge = grades(server, tmp_path)
        (judged,) = JudgeScore(judge=judge)([sample], FakeContext())
        assert ["judge" in r.scores for r in judged.replies] == [True, False, True]
        with pytest.raises(TrainError, match=r"scores of 3 replies, found answers to 2 .* cached"):
            JudgeScore(judge=judge, complete=True)([sample], FakeContext())


def test_inside_an_event_loop(tmp_path: Path) -> None:
    async def notebook() -> list[float | None]:
        return [v.score for v in grades(server, tmp_path).judge(pairs(2))]

    with serving(lambda question, turn: "say Score: 3") as server:
        assert asyncio.run(notebook()) == [0.3, 0.3]


def test_a_killed_run_pays_for_no_answer_twice(tmp_path: Path) -> None:
    cache, n = tmp_path / "answers.sqlite", 60
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    paid: dict[str, int] = {}

    def kept() -> list[str]:
        if not cache.exists():
            return []
        with closing(sqlite3.connect(cache)) as db:
            there = db.execute("SELECT name FROM sqlite_master").fetchall()
            rows = db.execute("SELECT question FROM answers").fetchall() if there else []
        return [json.loads(row[0])["messages"][-1]["content"] for row in rows]

    def begun(process: subprocess.Popen[bytes], least: int) -> bool:
        assert process.poll() is None, "it ended before it was killed"
        return len(kept()) >= least

    with serving(lambda question, turn: "slow Score: 4") as server:
        for _ in range(2):
            command = [sys.executable, "-m", "tests.judges.killed_judge", server.url, str(cache), str(n)]
            process = subprocess.Popen(command, cwd=ROOT, env=environment)
            _until(functools.partial(begun, process, len(paid) + 10))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert all(server.asked[question] == times for question, times in paid.items())
            paid = {question: server.asked[question] for question in kept()}
        assert 20 <= len(paid) < n
        verdicts = killed_judge.judge(server.url, str(cache)).judge(killed_judge.pairs(n))
        assert all(server.asked[question] == times for question, times in paid.items())
    assert [v.score for v in verdicts] == [0.4] * n
    # What was under way at a kill never arrived: at most what runs at once, each time.
    assert sum(server.asked.values()) <= n + 2 * killed_judge.CONCURRENCY


def _until(done: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
