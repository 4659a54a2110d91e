"""The tiny model of aerial scenes reads its questions and writes its answers in few symbols."""

from __future__ import annotations

from mmpost.data.aerial_questions import Aerial
from mmpost.models.tiny import tiny_tokenizer
from mmpost.models.tiny_aerial import PIECES, WORDS

TOKENIZER = tiny_tokenizer(WORDS, PIECES)


def test_questions_and_answers_are_short() -> None:
    for sample in Aerial(n=200):
        asked = sample.prompt[1].value
        assert len(TOKENIZER.encode(asked)) <= 5, asked
        words = sample.truth.split()
        assert len(TOKENIZER.encode(f"<think>look</think><answer>{sample.truth}</answer>")) == 5 + len(words)
