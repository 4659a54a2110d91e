"""The tokenizer of the tiny aerial model encodes questions and answers in few tokens."""

from __future__ import annotations

from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.models.builtin.aerial import PIECES, WORDS
from mmpost.models.builtin.qwen_vl import tiny_tokenizer

TOKENIZER = tiny_tokenizer(WORDS, PIECES)


def test_questions_and_answers_are_short() -> None:
    for sample in Aerial(n=200):
        question = sample.prompt[1].value
        assert len(TOKENIZER.encode(question)) <= 5, question
        answer_words = sample.truth.split()
        assert len(TOKENIZER.encode(f"<think>look</think><answer>{sample.truth}</answer>")) == 5 + len(answer_words)
