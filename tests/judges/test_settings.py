"""The `judge` section of a task of any domain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import mmpost as mp
from mmpost.judges.answer_cache import Messages
from mmpost.judges.base import Pair
from mmpost.judges.bertscore import BertScore
from mmpost.judges.chat_judge import ChatJudge
from tests.judges.chat_server import serving
from tests.transforms.fakes import FakeContext

SERVER = {"url": "http://h/v1", "model": "m"}
CAPTIONS = """
import sys

import mmpost as mp

class CaptionJudge(mp.JudgeSettings):
    grade: mp.Grade = mp.Grade(prompt="How good is the caption {candidate}? {reference} is right.", high=5)

class Captions(mp.Task):
    judge: CaptionJudge

    def stages(self):
        yield from ()

task = Captions(judge={"server": {"url": "http://h/v1", "model": "m"}})
print(task.judge.judge().prompt.prompt)
assert not [name for name in sys.modules if "radiology" in name]
"""


def test_a_task_of_another_domain_asks_its_own_question_without_radiology() -> None:
    done = subprocess.run([sys.executable, "-c", CAPTIONS], capture_output=True, text=True, timeout=120)
    assert done.stdout == "How good is the caption {candidate}? {reference} is right.\n", done.stderr


class OneWord(mp.JudgePrompt):
    """Right or wrong."""

    def messages(self, pair: Pair) -> Messages:
        return [{"role": "user", "content": f"Is {pair.candidate} a caption of {pair.reference}?"}]

    def parse(self, reply: str) -> mp.Verdict:
        return mp.Verdict(float(reply == "right"))


class OneWordJudge(mp.JudgeSettings):
    """Asks for one word."""

    def chat_prompt(self) -> mp.JudgePrompt:
        return OneWord()


def test_a_server_answers_a_prompt_of_the_users_own(tmp_path: Path) -> None:
    sample = mp.Sample("s", (), (mp.Reply((mp.Part("text", "a cat", "assistant"),), "policy"),), "a dog")
    with serving(lambda question, turn: "say right") as server:
        section = {"url": server.url, "model": "m", "cache": str(tmp_path / "a.sqlite")}
        judge = OneWordJudge.model_validate({"server": section}).judge()
        (judged,) = mp.JudgeScore(judge=judge, name="mine")([sample], FakeContext())
        assert mp.judge_reward("mine")(judged, judged.replies[0]) == 1.0
        assert server.requests[0]["messages"][0]["content"] == "Is a cat a caption of a dog?"


def test_settings_select_the_model() -> None:
    judge = mp.JudgeSettings.model_validate({"server": SERVER, "reasks": 3, "length_control": True}).judge()
    assert isinstance(judge, ChatJudge)
    assert (judge.prompt, judge.reasks, judge.length_control) == (mp.Grade(), 3, True)
    bertscore = {"by": "bertscore", "bertscore": {"model": "x"}}
    assert mp.JudgeSettings.model_validate(bertscore).judge() == BertScore(model="x")
    with pytest.raises(ValidationError, match="by=server: wanted the section server with url and model"):
        mp.JudgeSettings()
    with pytest.raises(ValidationError, match="by=bertscore is not; remove it"):
        mp.JudgeSettings.model_validate({**bertscore, "length_control": True})
