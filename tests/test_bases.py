"""What a base is keyed by."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpost import bases, config
from mmpost.code import source


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("tiny", ("tasks.digits_base", "models.tiny", "data.digits")),
        ("tiny-shapes", ("tasks.shapes_base", "models.tiny_shapes", "models.tiny", "data.shapes", "data.figures")),
        ("tiny-aerial", ("tasks.aerial_base", "models.tiny_aerial", "data.aerial", "data.aerial_questions")),
        ("tiny-video", ("tasks.clips_base", "models.tiny_video", "models.tiny", "data.clips", "data.digits")),
        ("tiny-audio", ("tasks.sounds_base", "models.tiny_audio", "models.tiny", "data.sounds")),
    ],
)
def test_a_base_is_keyed_by_the_code_that_makes_it(
    name: str, modules: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = config.shipped(f"bases/{name}")
    key, read = bases._key(recipe), Path.read_text
    for module in (*modules, "data.media", "data.own"):
        changed = source(f"mmpost.{module}")
        assert changed is not None
        place = changed.resolve()

        def edited(self: Path, *args: str, place: Path = place, **kwargs: str) -> str:
            return read(self, *args, **kwargs) + ("# new" if self == place else "")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", edited)
            assert (bases._key(recipe) != key) == (module in modules), module
    assert bases._key(recipe) == key
