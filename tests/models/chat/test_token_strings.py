"""The text of each token, for logs and reports."""

from __future__ import annotations

import pytest

from mmpost.config.settings import ModelSettings
from mmpost.models.chat.model import ChatModel


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> ChatModel:
    return ChatModel.load(tiny_folder, ModelSettings(device="cpu"))


@pytest.mark.parametrize("text", ["find the digit", "caf\u00e9 \u65e5\u672c \U0001f600!", "a\n\n  b", "", "\ufffd odd"])
def test_pieces_put_together_are_the_text(model: ChatModel, text: str) -> None:
    ids = model.encode_reply(text, "data").token_ids
    assert ids is not None
    pieces = model.token_strings(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text + "<|im_end|>"


def test_a_character_of_several_tokens_belongs_to_the_last(model: ChatModel) -> None:
    ids = model.tokenizer("\U0001f600", add_special_tokens=False).input_ids
    assert len(ids) == 4
    assert model.token_strings(ids) == ["", "", "", "\U0001f600"]


def test_a_decoder_that_drops_the_first_space_loses_none(model: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {1: " one", 2: " two", 3: "s"}

    class Stripping:
        def decode(self, ids: list[int]) -> str:
            return "".join(words[i] for i in ids).removeprefix(" ")

    monkeypatch.setattr(model, "tokenizer", Stripping())
    assert model.token_strings([1, 2, 3, 2]) == ["one", " two", "s", " two"]
