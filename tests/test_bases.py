"""What a base is made from decides where it is kept."""

from __future__ import annotations

import mmpost.data.aerial_questions
import mmpost.data.digits
import mmpost.models.tiny_aerial  # noqa: F401
from mmpost.bases import _family


def test_a_module_brings_those_whose_names_it_extends() -> None:
    def names(module: str) -> list[str]:
        return [m.__name__.removeprefix("mmpost.") for m in _family(f"mmpost.{module}")]

    assert names("models.tiny_aerial") == ["models.tiny_aerial", "models.tiny"]
    assert names("data.aerial_questions") == ["data.aerial_questions", "data.aerial"]
    assert names("data.digits") == ["data.digits"]
