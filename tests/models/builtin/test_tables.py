"""The tokenizer of the tiny table model: OTSL tokens and the instruction are single tokens, texts are spelled."""

from __future__ import annotations

from mmpost.data.worlds.tables.measurements import NAMES, measurements
from mmpost.data.worlds.tables.pictures import TablePictures
from mmpost.models.builtin.tables import WORDS, tables_tokenizer
from mmpost.tables.grammar import END_OF_ROW, KINDS

TOKENIZER = tables_tokenizer()


def tokens(text: str) -> list[str]:
    return [str(TOKENIZER.decode(i)) for i in TOKENIZER.encode(text)]


def test_each_otsl_token_is_one_token() -> None:
    for token in (*KINDS, END_OF_ROW):
        assert tokens(token) == tokens(f"7{token}")[1:] == tokens(f"Per{token}")[-1:] == [token]
    instruction = TablePictures().prompt
    assert tokens(instruction) == [instruction]


def test_texts_in_cells_are_spelled() -> None:
    names = [f.name for name in NAMES for f in measurements(name).features]
    groups = [f.group for name in NAMES for f in measurements(name).features]
    classes = [c for name in NAMES for c in (*measurements(name).classes, measurements(name).class_name)]
    for text in {*names, *groups, *classes, "14.2", "0.13", "151", "No", "ID", "Nr", "A7"}:
        assert tokens(f"<fcel>{text}<nl>") == ["<fcel>", *text, "<nl>"]


def test_words_of_questions_are_single_tokens() -> None:
    question = "what is the value of SL in row A7? which row has the highest SL?"
    assert tokens(question).count(" row") == 2
    for word in WORDS.split():
        assert tokens(f"{word} {word}") == [word, f" {word}"]


def test_replies_are_tables_and_short() -> None:
    for sample in TablePictures("train", n=200, seed=1):
        ids = TOKENIZER.encode(sample.truth)
        assert TOKENIZER.decode(ids) == sample.truth
        assert len(ids) < 127, "one more ends the turn"
