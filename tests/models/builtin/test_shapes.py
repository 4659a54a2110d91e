"""Every word of the shapes tasks is a token of the tiny model: none is split into letters."""

from __future__ import annotations

import pytest

from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.shapes.counting import Counting
from mmpost.data.worlds.shapes.figures import QUESTION_TYPES, Figures
from mmpost.data.worlds.shapes.scenes import Shapes
from mmpost.data.worlds.shapes.transformation import ATTRIBUTES, Transformation
from mmpost.models.builtin.qwen_vl import tiny_tokenizer
from mmpost.models.builtin.shapes import PIECES, WORDS


@pytest.mark.parametrize(
    ("source", "max_tokens"),
    [
        (Shapes(n=60), 9),
        (Counting(n=30), 9),
        (Counting(n=30, look="shifted"), 9),
        (Figures(n=8, question_types=QUESTION_TYPES), 6),
        (Transformation(n=30), 24),
        (Transformation(n=30, attributes=ATTRIBUTES, look="shifted"), 32),
    ],
)
def test_prompts_and_replies_are_short(source: Indexed, max_tokens: int) -> None:
    tokenizer = tiny_tokenizer(WORDS, PIECES)
    for sample in source:
        question = sample.prompt[-1].value
        reply = f"<think>{sample.meta.get('cot', 'look')}</think><answer>{sample.truth}</answer>"
        assert len(tokenizer.encode(question)) <= max_tokens
        for text in (question, reply):
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            letters = [
                t for t in (str(tokenizer.decode(i)) for i in ids) if len(t.strip()) == 1 and t.strip().isalpha()
            ]
            assert not letters, text
