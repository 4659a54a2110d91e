"""Chat judges: custom prompts, local models, the batch transform, and judge settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mmpost.data.media.media import media
from mmpost.errors import ConfigError, DataError
from mmpost.judges.answer_cache import AnswerCache, Messages
from mmpost.judges.base import Pair, Verdict
from mmpost.judges.chat_judge import Answer, ChatBackend, ChatJudge
from mmpost.judges.grade import Grade
from mmpost.judges.local import LocalModel
from mmpost.judges.radiology.config import ReportJudgeSettings
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.tables.readers import with_pictures
from mmpost.judges.transform import JudgeScore, judge_reward
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

REFERENCE = "Small right effusion. Mild cardiomegaly."


class EchoBackend(ChatBackend):
    """Echoes the question; for later draws returns `later`."""

    later: str = ""

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        texts = [messages[-1]["content"] for messages in conversations]
        return [
            Answer(failure="gone") if t == "fail" else Answer(self.later if draw and self.later else t) for t in texts
        ]


def sample(*texts: str, truth: Any = REFERENCE) -> Sample:
    conversations = (Part("text", "be brief", "system"), Part("text", "what do you see?"))
    return Sample("s", conversations, tuple(Reply((Part("text", t, "assistant"),), "policy") for t in texts), truth)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 7", 0.7),
        ("It is fine.\nscore: **10**", 1.0),
        ("Score: 3 at first. Score: 4.5", 0.45),
        ("Score: 11", None),
        ("Score: -1", None),
        ("7", None),
        ("Score: high", None),
        ("", None),
    ],
)
def test_a_grade_is_the_last_number_after_its_marker(text: str, score: float | None) -> None:
    assert Grade().parse(text).score == score


def test_a_grade_may_have_another_range_and_prompt() -> None:
    grade = Grade(prompt="{question}|{reference}|{candidate}", system="be just", low=1, high=5)
    assert grade.parse("Score: 2").score == 0.25
    assert grade.messages(Pair("r", "{c}", "q")) == [
        {"role": "system", "content": "be just"},
        {"role": "user", "content": "q|r|{c}"},
    ]
    for invalid in ({"prompt": "{reference}"}, {"prompt": "{candidate} {other}"}, {"low": 1, "high": 1}):
        with pytest.raises(ValidationError):
            Grade.model_validate(invalid)


def test_unparseable_answers_are_requested_again_then_left_out() -> None:
    pairs = [("r", text) for text in ("Score: 1", "fail", "prose")]
    grade = Grade(prompt="{candidate}")
    verdicts = ChatJudge(prompt=grade, backend=EchoBackend(), reasks=2).judge(pairs)
    assert [(v.score, v.problem) for v in verdicts] == [(0.1, ""), (None, "failed"), (None, "unparseable")]
    verdicts = ChatJudge(prompt=grade, backend=EchoBackend(later="Score: 9"), reasks=1).judge(pairs)
    assert [v.score for v in verdicts] == [0.1, None, 0.9]
    assert ChatJudge(prompt=grade, backend=EchoBackend()).judge([]) == []


def test_a_verdict_has_a_score_or_a_reason() -> None:
    for invalid in ((None, ""), (0.5, "failed")):
        with pytest.raises(AssertionError):
            Verdict(*invalid)  # type: ignore[arg-type]


def test_the_transform_scores_parseable_answers_and_counts_the_rest() -> None:
    judge = ChatJudge(prompt=Grade(prompt="{candidate}"), backend=EchoBackend(), reasks=0)
    context = FakeContext()
    before = [sample("Score: 5", "fail"), sample("prose", "Score: 10")]
    after = JudgeScore(judge=judge, name="mine")(before, context)
    assert [[r.scores for r in s.replies] for s in after] == [[{"mine": 0.5}, {}], [{}, {"mine": 1.0}]]
    assert not any(r.scores for s in before for r in s.replies)
    assert [context.mean(f"judge/{x}") for x in ("unparseable", "failed", "inapplicable")] == [0.25, 0.25, 0.0]
    assert context.mean("mine/score") == 0.75
    assert context.mean("mine/words") == 1.5
    rewarded = Score(rewards={"mine": judge_reward("mine")})(after, FakeContext())
    assert rewarded[0].replies[0].columns["reward"] == 0.5
    without_replies = JudgeScore(judge=judge, name="mine")([sample()], FakeContext())
    assert without_replies == [sample()]


def test_the_rule_based_transform_counts_each_error_type() -> None:
    context = FakeContext()
    (judged,) = JudgeScore(judge=RuleJudge(), name="rules")([sample(REFERENCE, "Left effusion.")], context)
    assert [r.scores["rules"] for r in judged.replies] == [1.0, 0.0]
    assert context.logs["rules/matched"] == [2.0, 0.0]
    assert context.logs["rules/location"] == [0.0, 1.0]
    with pytest.raises(DataError, match="wants a reference text"):
        JudgeScore(judge=RuleJudge())([sample(REFERENCE, truth=3)], FakeContext())


def test_the_question_is_the_prompt_without_the_system_message() -> None:
    judged_sample = sample("a")
    assert RuleJudge().pair(judged_sample, judged_sample.replies[0]) == Pair(REFERENCE, "a", "what do you see?")


def test_settings_select_the_judge() -> None:
    assert ReportJudgeSettings().judge() == RuleJudge()
    assert ReportJudgeSettings(length_control=True).judge() == RuleJudge(length_control=True)
    server = {"url": "http://h/v1", "model": "m"}
    judge = ReportJudgeSettings.model_validate({"by": "server", "server": server, "reasks": 3}).judge()
    assert isinstance(judge, ChatJudge)
    assert judge.reasks == 3
    local = ReportJudgeSettings.model_validate({"by": "local", "local": {"model": "m"}, "form": "grade"}).judge()
    assert isinstance(local, ChatJudge)
    assert isinstance(local.prompt, Grade)
    for by in ("server", "local", "bertscore"):
        with pytest.raises(ValidationError, match=f"by={by}: wanted the section {by}"):
            ReportJudgeSettings.model_validate({"by": by})


def test_a_file_that_is_not_an_answer_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 500)
    with pytest.raises(ConfigError, match="wanted a file for the judge's answer cache"):
        AnswerCache(tmp_path / "text")


def test_the_first_cached_answer_is_kept(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "new" / "a.sqlite")
    cache.put({"q": 1}, "one")
    cache.put({"q": 1}, "two")
    assert len(cache) == 1
    assert list(AnswerCache(cache.path).get([*_keys(cache), "none"]).values()) == ["one"]


def _keys(cache: AnswerCache) -> Iterator[str]:
    from mmpost.judges.answer_cache import question_key

    yield question_key({"q": 1})


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model with random weights, a vocabulary of a few words, and a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("chat")
    words = ["<pad>", "<end>", "user", "assistant", "Score", ":", *map(str, range(10)), "a", "b", "c", "."]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="."))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", pad_token="<pad>")
    turns = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}assistant{% endif %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=64, eos_token_id=1, pad_token_id=0, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_a_local_model_gives_the_same_answers_in_any_batch(chat_model: str) -> None:
    conversations = [[{"role": "user", "content": text}] for text in ("a", "a b c a b c", "b . c", "c c c c c c c c c")]
    batched, one_by_one = (LocalModel(model=chat_model, device="cpu", max_tokens=9, batch=n) for n in (4, 1))
    answers = batched.answers(conversations, 0)
    assert answers == one_by_one.answers(conversations, 0)
    assert len({a.text for a in answers}) > 1
    assert all(a.text and not a.failure and len(a.text.split()) <= 9 for a in answers)
    # A truncated answer is empty.
    assert batched.model_copy(update={"max_tokens": 6}).answers(conversations, 0) == [*answers[:3], Answer("")]
    other = LocalModel(model=chat_model, device="cpu", max_tokens=9, batch=4, reask_temperature=5.0)
    assert other.answers(conversations, 1) != answers
    assert other.answers(conversations, 1) == other.answers(conversations, 1)
    verdicts = ChatJudge(prompt=Grade(), backend=batched, reasks=0).judge([("r", "a")])
    assert len(verdicts) == 1


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random vision-language model that ends its turn at every third token of its vocabulary."""
    from transformers import GenerationConfig

    from mmpost.models.builtin.qwen_vl import tiny_tokenizer, write_tiny

    folder = tmp_path_factory.mktemp("seeing")
    write_tiny(folder)
    ends = list(range(0, len(tiny_tokenizer()), 3))
    GenerationConfig(eos_token_id=ends, pad_token_id=tiny_tokenizer().pad_token_id).save_pretrained(folder)
    return str(folder)


def shown(value: int, text: str, side: int = 28) -> list[dict[str, Any]]:
    pixels = np.full((side, side, 3), value, np.uint8)
    pixels[: side // 2] = 255 - value
    one = Sample("s", (Part("image", media(pixels, "image")),))
    return list(map(dict, with_pictures(one, text, sees_picture=True)))


def test_a_local_model_sees_images_alike_in_any_batch(seeing_model: str) -> None:
    conversations = [shown(0, "what"), shown(200, "what"), shown(0, "how many things are there", 56)]
    batched, one_by_one = (LocalModel(model=seeing_model, device="cpu", max_tokens=40, batch=n) for n in (4, 1))
    answers = batched.answers(conversations, 0)
    assert answers == one_by_one.answers(conversations, 0)
    assert len({answer.text for answer in answers}) == 3
    blind = [[{"role": "user", "content": "what"}], shown(0, "what")]
    unseen, seen = batched.answers(blind, 0)
    assert seen == answers[0]
    assert batched.answers(blind[:1], 0) == [unseen]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a chat model"):
        LocalModel(model=str(tmp_path)).answers([], 0)


def test_a_model_of_language_is_shown_no_image(chat_model: str) -> None:
    with pytest.raises(ConfigError, match="wanted a vision-language model, since it is shown images"):
        LocalModel(model=chat_model, device="cpu").answers([shown(0, "what")], 0)
