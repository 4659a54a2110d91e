"""The judge client against a faulty HTTP server: no reply lost or silently scored, no answer requested twice."""

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


def fast_client(server: ChatServer, folder: Path, **options: Any) -> Server:
    fast = {"read_timeout": 1.0, "total_timeout": 2.0, "backoff": 0.01, "longest_wait": 2.0, "attempts": 4}
    return Server(url=server.url, model="m", cache=str(folder / "answers.sqlite"), **{**fast, **options})


def grade_judge(server: ChatServer, folder: Path, **options: Any) -> ChatJudge:
    return ChatJudge(prompt=Grade(prompt="{candidate}"), backend=fast_client(server, folder, **options))


def pairs(n: int) -> list[tuple[str, str]]:
    return [("r", f"q{i}") for i in range(n)]


FAULTS = ("drop", "hang 1.5", "429 0.05", "503", "500", "cut", "short", "drip 60", "529")


def test_retries_get_every_answer_from_a_faulty_server(tmp_path: Path) -> None:
    def act(question: str, turn: int) -> str:
        fault = FAULTS[int(question[1:]) % len(FAULTS)]
        return fault if turn == 1 else f"say Score: {int(question[1:]) % 11}"

    with serving(act) as server:
        verdicts = grade_judge(server, tmp_path, attempts=10).judge(pairs(27))
    assert [v.score for v in verdicts] == [i % 11 / 10 for i in range(27)]
    assert min(server.request_counts.values()) == 2  # more on a slow machine, where the client times out
    assert len(server.answer_counts) == 27


def test_missing_answers_are_failed_and_malformed_ones_unparseable(tmp_path: Path) -> None:
    actions = {
        "q0": "say Score: 7",
        "q1": "500",
        "q2": "say A fine report, I would say.",
        "q3": "cut",
        "q4": "say Score: 70",
    }
    with serving(lambda question, turn: actions[question]) as server:
        judge = grade_judge(server, tmp_path)
        verdicts = judge.judge(pairs(5))
        assert [v.problem for v in verdicts] == ["", "failed", "unparseable", "failed", "unparseable"]
        assert [v.score for v in verdicts] == [0.7, None, None, None, None]
        assert "HTTP 500" in verdicts[1].raw_reply
        assert "wanted a chat completion" in verdicts[3].raw_reply
        assert server.request_counts == {"q0": 1, "q1": 4, "q2": 2, "q3": 4, "q4": 2}
        second = judge.judge(pairs(5))
        assert [v.problem for v in second] == [v.problem for v in verdicts]
        assert server.request_counts == {"q0": 1, "q1": 8, "q2": 2, "q3": 8, "q4": 2}


def test_an_unparseable_answer_is_requested_again_at_another_temperature(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say hm" if turn < 3 else "say Score: 5") as server:
        judge = grade_judge(server, tmp_path, temperature=0.0, reask_temperature=0.9).model_copy(update={"reasks": 2})
        assert [v.score for v in judge.judge(pairs(2))] == [0.5, 0.5]
        assert [v.score for v in judge.judge(pairs(2))] == [0.5, 0.5]
        assert sorted(b["temperature"] for b in server.requests) == [0.0, 0.0, 0.9, 0.9, 0.9, 0.9]
        assert "draw" not in server.requests[0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 301])
def test_permanent_http_errors_are_not_retried(code: int, tmp_path: Path) -> None:
    actions: dict[str, str] = {"q9": str(code)}
    with serving(lambda question, turn: actions.get(question, "say Score: 1")) as server:
        judge = grade_judge(server, tmp_path, concurrency=4)
        with pytest.raises(ConfigError, match=rf"judge 'm' at {server.url}: wanted an answer, found HTTP {code}"):
            judge.judge(pairs(40))
        assert server.request_counts["q9"] == 1
        assert sum(server.request_counts.values()) < 40
        actions.clear()
        assert len(judge.judge(pairs(40))) == 40
        assert all(n == 1 for question, n in server.request_counts.items() if question != "q9")


def test_retry_after_delays_all_requests_and_fails_beyond_the_limit(tmp_path: Path) -> None:
    with serving(lambda question, turn: "429 0.4" if question == "q0" and turn == 1 else "say Score: 1") as server:
        judge = grade_judge(server, tmp_path, concurrency=1)
        assert all(v.score == 0.1 for v in judge.judge(pairs(4)))
        assert server.times[1] - server.times[0] >= 0.4
    with serving(lambda question, turn: "503 99") as server:
        start = time.monotonic()
        (verdict,) = grade_judge(server, tmp_path).judge([("r", "late")])
        assert verdict.problem == "failed"
        assert server.request_counts["late"] == 1
        assert time.monotonic() - start < 90, "it did not wait the 99 seconds"


def test_retry_after_may_be_a_date() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 25 < _parse_retry_after(format_datetime(when, usegmt=True)) <= 30
    assert _parse_retry_after("7") == 7.0
    assert _parse_retry_after("") == _parse_retry_after("soon") == _parse_retry_after("-3") == 0.0


def test_an_unreachable_server_fails_each_question(tmp_path: Path) -> None:
    with serving(lambda question, turn: "drop") as server:
        pass
    judge = grade_judge(server, tmp_path, attempts=2)
    assert {v.problem for v in judge.judge(pairs(3))} == {"failed"}
    sample = Sample("s", (), (Reply((Part("text", "a"),)),), truth="r")
    with pytest.raises(TrainError, match="wanted scores of 1 replies, found answers to none"):
        JudgeScore(judge=judge)([sample], FakeContext())


def test_concurrency_is_limited_and_duplicate_questions_are_sent_once(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say Score: 2") as server:
        verdicts = grade_judge(server, tmp_path, concurrency=3).judge([*pairs(12), *pairs(12)])
    assert len(verdicts) == 24
    assert {v.score for v in verdicts} == {0.2}
    assert 1 < server.max_concurrent <= 3
    assert sum(server.request_counts.values()) == 12


def test_the_cache_key_has_prompt_model_and_sampling_but_not_the_url(tmp_path: Path) -> None:
    with serving(lambda question, turn: "say Score: 2") as server:
        grade_judge(server, tmp_path).judge(pairs(2))
        for changed in ({"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}, {"extra": {"top_p": 0.5}}):
            base = fast_client(server, tmp_path)
            ChatJudge(prompt=Grade(prompt="{candidate}"), backend=base.model_copy(update=changed)).judge(pairs(1))
        assert server.request_counts == {"q0": 5, "q1": 1}
    with serving(lambda question, turn: "500") as other:
        assert [v.score for v in grade_judge(other, tmp_path).judge(pairs(2))] == [0.2, 0.2]
        assert not other.request_counts


def test_the_api_key_is_sent_to_the_server_and_never_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    with serving(lambda question, turn: "500" if question == "q1" else "say Score: 2") as server:
        judge = grade_judge(server, tmp_path, key_variable="MY_KEY")
        verdicts = judge.judge(pairs(2))
        assert set(server.keys) == {"Bearer sk-very-secret"}
    with (
        serving(lambda question, turn: "401") as server,
        pytest.raises(ConfigError, match=r"HTTP 401 no, your header was Bearer \*\*\*") as raised,
    ):
        grade_judge(server, tmp_path, key_variable="MY_KEY").judge([("r", "new")])
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    printed = f"{verdicts}{raised.value}{judge!r}{judge.model_dump_json()}{caplog.text}"
    assert "Bearer ***" in verdicts[1].raw_reply
    assert "sk-very-secret" not in printed
    assert b"sk-very-secret" not in stored
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="environment variable MY_KEY, found it empty"):
        grade_judge(server, tmp_path, key_variable="MY_KEY").judge([("r", "newer")])


def test_invalid_server_settings_are_refused(tmp_path: Path) -> None:
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
        judge = ChatJudge(prompt=Green(), backend=fast_client(server, tmp_path))
        (verdict,) = judge.judge([("Small effusion.", "Nodule.")])
        assert verdict.score == pytest.approx(0.6)
        assert "small effusion." in server.requests[0]["messages"][0]["content"]
        short = judge.model_copy(update={"length_control": True})
        (verdict,) = short.judge([("Small effusion.", "Nodule.")])
        assert verdict.score == pytest.approx(0.6)
        (verdict,) = short.judge([("Small effusion.", "Large right nodule.")])
        assert verdict.score == pytest.approx(0.4)


@pytest.mark.parametrize("end", ["length", "content_filter", "stop"])
def test_a_truncated_answer_is_not_parsed(end: str, tmp_path: Path) -> None:
    with serving(lambda question, turn: f"end {end}") as server:
        judge = ChatJudge(prompt=Green(), backend=fast_client(server, tmp_path), reasks=0)
        (verdict,) = judge.judge([("Small effusion.", "Nodule.")])
    assert (verdict.score, verdict.problem) == ((pytest.approx(0.6), "") if end == "stop" else (None, "unparseable"))


def test_a_recorded_stage_stops_if_a_reply_has_no_answer(tmp_path: Path) -> None:
    replies = tuple(Reply((Part("text", f"q{i}", "assistant"),)) for i in range(3))
    sample = Sample("s", (), replies, truth="r")
    with serving(lambda question, turn: "500" if question == "q1" else "say Score: 3") as server:
        judge = grade_judge(server, tmp_path)
        (judged,) = JudgeScore(judge=judge)([sample], FakeContext())
        assert ["judge" in r.scores for r in judged.replies] == [True, False, True]
        with pytest.raises(TrainError, match=r"scores of 3 replies, found answers to 2 .* cached"):
            JudgeScore(judge=judge, complete=True)([sample], FakeContext())


def test_judging_works_inside_an_event_loop(tmp_path: Path) -> None:
    async def notebook() -> list[float | None]:
        return [v.score for v in grade_judge(server, tmp_path).judge(pairs(2))]

    with serving(lambda question, turn: "say Score: 3") as server:
        assert asyncio.run(notebook()) == [0.3, 0.3]


def test_a_killed_run_requests_no_cached_answer_again(tmp_path: Path) -> None:
    cache, n = tmp_path / "answers.sqlite", 60
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    answered: dict[str, int] = {}

    def cached_questions() -> list[str]:
        if not cache.exists():
            return []
        with closing(sqlite3.connect(cache)) as db:
            tables = db.execute("SELECT name FROM sqlite_master").fetchall()
            rows = db.execute("SELECT question FROM answers").fetchall() if tables else []
        return [json.loads(row[0])["messages"][-1]["content"] for row in rows]

    def has_progressed(process: subprocess.Popen[bytes], minimum: int) -> bool:
        assert process.poll() is None, "the process ended before it was killed"
        return len(cached_questions()) >= minimum

    with serving(lambda question, turn: "slow Score: 4") as server:
        for _ in range(2):
            command = [sys.executable, "-m", "tests.judges.killed_judge", server.url, str(cache), str(n)]
            process = subprocess.Popen(command, cwd=ROOT, env=environment)
            _wait_until(functools.partial(has_progressed, process, len(answered) + 10))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert all(server.request_counts[question] == times for question, times in answered.items())
            answered = {question: server.request_counts[question] for question in cached_questions()}
        assert 20 <= len(answered) < n
        verdicts = killed_judge.judge(server.url, str(cache)).judge(killed_judge.pairs(n))
        assert all(server.request_counts[question] == times for question, times in answered.items())
    assert [v.score for v in verdicts] == [0.4] * n
    # Requests in flight at a kill are lost: at most CONCURRENCY per kill.
    assert sum(server.request_counts.values()) <= n + 2 * killed_judge.CONCURRENCY


def _wait_until(done: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)
