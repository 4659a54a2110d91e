"""Questions of one's own, a model on this machine, the batch transform, and the settings that choose a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmpost.errors import ConfigError, DataError
from mmpost.judges.answer_cache import AnswerCache, Messages
from mmpost.judges.base import Pair, Verdict
from mmpost.judges.chat_judge import Answer, ChatBackend, ChatJudge
from mmpost.judges.grade import Grade
from mmpost.judges.local import LocalModel
from mmpost.judges.radiology.config import JudgeSettings
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.transform import JudgeScore, judge_reward
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

ILL = "Small right effusion. Mild cardiomegaly."


class Says(ChatBackend):
    """Says what is in the question, and in later draws something else."""

    later: str = ""

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        texts = [messages[-1]["content"] for messages in conversations]
        return [
            Answer(failure="gone") if t == "fail" else Answer(self.later if draw and self.later else t) for t in texts
        ]


def sample(*texts: str, truth: Any = ILL) -> Sample:
    asked = (Part("text", "be brief", "system"), Part("text", "what do you see?"))
    return Sample("s", asked, tuple(Reply((Part("text", t, "assistant"),), "policy") for t in texts), truth)


@pytest.mark.parametrize(
    ("said", "score"),
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
def test_a_grade_is_the_last_number_behind_its_mark(said: str, score: float | None) -> None:
    assert Grade().parse(said).score == score


def test_a_grade_may_have_another_range_and_prompt() -> None:
    form = Grade(prompt="{question}|{reference}|{candidate}", system="be just", low=1, high=5)
    assert form.parse("Score: 2").score == 0.25
    assert form.messages(Pair("r", "{c}", "q")) == [
        {"role": "system", "content": "be just"},
        {"role": "user", "content": "q|r|{c}"},
    ]
    for wrong in ({"prompt": "{reference}"}, {"prompt": "{candidate} {other}"}, {"low": 1, "high": 1}):
        with pytest.raises(ValidationError):
            Grade.model_validate(wrong)


def test_what_cannot_be_read_is_asked_for_again_and_then_left_out() -> None:
    pairs = [("r", text) for text in ("Score: 1", "fail", "prose")]
    form = Grade(prompt="{candidate}")
    verdicts = ChatJudge(prompt=form, backend=Says(), reasks=2).judge(pairs)
    assert [(v.score, v.problem) for v in verdicts] == [(0.1, ""), (None, "failed"), (None, "unparseable")]
    verdicts = ChatJudge(prompt=form, backend=Says(later="Score: 9"), reasks=1).judge(pairs)
    assert [v.score for v in verdicts] == [0.1, None, 0.9]
    assert ChatJudge(prompt=form, backend=Says()).judge([]) == []


def test_a_verdict_has_a_score_or_a_reason() -> None:
    for wrong in ((None, ""), (0.5, "failed")):
        with pytest.raises(AssertionError):
            Verdict(*wrong)  # type: ignore[arg-type]


def test_the_transform_scores_what_it_can_and_counts_the_rest() -> None:
    judge = ChatJudge(prompt=Grade(prompt="{candidate}"), backend=Says(), reasks=0)
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
    again = JudgeScore(judge=judge, name="mine")([sample()], FakeContext())
    assert again == [sample()]


def test_the_transform_with_rules_counts_each_sort_of_error() -> None:
    context = FakeContext()
    (judged,) = JudgeScore(judge=RuleJudge(), name="rules")([sample(ILL, "Left effusion.")], context)
    assert [r.scores["rules"] for r in judged.replies] == [1.0, 0.0]
    assert context.logs["rules/matched"] == [2.0, 0.0]
    assert context.logs["rules/location"] == [0.0, 1.0]
    with pytest.raises(DataError, match="wants a reference text"):
        JudgeScore(judge=RuleJudge())([sample(ILL, truth=3)], FakeContext())


def test_the_question_is_the_prompt_without_the_system_message() -> None:
    one = sample("a")
    assert RuleJudge().pair(one, one.replies[0]) == Pair(ILL, "a", "what do you see?")


def test_settings_choose_a_judge() -> None:
    assert JudgeSettings().judge() == RuleJudge()
    assert JudgeSettings(length_control=True).judge() == RuleJudge(length_control=True)
    server = {"url": "http://h/v1", "model": "m"}
    judge = JudgeSettings.model_validate({"by": "server", "server": server, "reasks": 3}).judge()
    assert isinstance(judge, ChatJudge)
    assert judge.reasks == 3
    local = JudgeSettings.model_validate({"by": "local", "local": {"model": "m"}, "form": "grade"}).judge()
    assert isinstance(local, ChatJudge)
    assert isinstance(local.prompt, Grade)
    for by in ("server", "local", "bertscore"):
        with pytest.raises(ValidationError, match=f"by={by} wants the section {by}"):
            JudgeSettings.model_validate({"by": by})


def test_a_file_that_is_no_table_of_answers(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 500)
    with pytest.raises(ConfigError, match="wanted a file for the judge's answer cache"):
        AnswerCache(tmp_path / "text")


def test_the_first_answer_to_a_question_stays(tmp_path: Path) -> None:
    kept = AnswerCache(tmp_path / "new" / "a.sqlite")
    kept.put({"q": 1}, "one")
    kept.put({"q": 1}, "two")
    assert len(kept) == 1
    assert list(AnswerCache(kept.path).get([*_keys(kept), "none"]).values()) == ["one"]


def _keys(kept: AnswerCache) -> Iterator[str]:
    from mmpost.judges.answer_cache import question_key

    yield question_key({"q": 1})


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model with random weights that knows a few words, with a chat template."""
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


def test_a_model_on_this_machine_answers_alike_in_any_batch(chat_model: str) -> None:
    asked = [[{"role": "user", "content": text}] for text in ("a", "a b c a b c", "b . c", "c c c c c c c c c")]
    together, alone = (LocalModel(model=chat_model, device="cpu", max_tokens=9, batch=n) for n in (4, 1))
    said = together.answers(asked, 0)
    assert said == alone.answers(asked, 0)
    assert len({a.text for a in said}) > 1
    assert all(a.text and not a.failure and len(a.text.split()) <= 9 for a in said)
    # One that is cut off says nothing.
    assert together.model_copy(update={"max_tokens": 6}).answers(asked, 0) == [*said[:3], Answer("")]
    other = LocalModel(model=chat_model, device="cpu", max_tokens=9, batch=4, reask_temperature=5.0)
    assert other.answers(asked, 1) != said
    assert other.answers(asked, 1) == other.answers(asked, 1)
    verdicts = ChatJudge(prompt=Grade(), backend=together, reasks=0).judge([("r", "a")])
    assert len(verdicts) == 1


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a causal language model"):
        LocalModel(model=str(tmp_path)).answers([], 0)
