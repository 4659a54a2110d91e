"""The text of each token, for logs and reports."""

from __future__ import annotations

import pytest

from mmpost.config.settings import ModelSettings
from mmpost.models.chat.model import ChatModel


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> ChatModel:
    return ChatModel.load(tiny_folder, ModelSettings(device="cpu"))


@pytest.mark.parametrize("text", ["find the digit", "caf\u00e9 \u65e5\u672c \U0001f600!", "a\n\n  b", "", "\ufffd odd"])
def test_token_strings_join_to_the_text(model: ChatModel, text: str) -> None:
    ids = model.encode_reply(text, "data").token_ids
    assert ids is not None
    token_strings = model.token_strings(ids)
    assert len(token_strings) == len(ids)
    assert "".join(token_strings) == text + "<|im_end|>"


def test_a_character_of_several_tokens_is_assigned_to_the_last(model: ChatModel) -> None:
    ids = model.tokenizer("\U0001f600", add_special_tokens=False).input_ids
    assert len(ids) == 4
    assert model.token_strings(ids) == ["", "", "", "\U0001f600"]


def test_later_leading_spaces_survive_a_decoder_that_strips_the_first(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    strings = {1: " one", 2: " two", 3: "s"}

    class StrippingTokenizer:
        def decode(self, ids: list[int]) -> str:
            return "".join(strings[i] for i in ids).removeprefix(" ")

    monkeypatch.setattr(model, "tokenizer", StrippingTokenizer())
    assert model.token_strings([1, 2, 3, 2]) == ["one", " two", "s", " two"]
