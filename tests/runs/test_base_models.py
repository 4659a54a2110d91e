"""The cache keys of base models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpost.config import run_config
from mmpost.runs import base_models
from mmpost.runs.code_hash import source


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("tiny", ("tasks.bases.digits", "models.builtin.qwen_vl", "data.worlds.digits.scenes")),
        (
            "tiny-shapes",
            (
                *("tasks.bases.shapes", "models.builtin.shapes", "models.builtin.qwen_vl"),
                *("data.worlds.shapes.scenes", "data.worlds.shapes.figures"),
            ),
        ),
        (
            "tiny-aerial",
            (
                *("tasks.bases.aerial", "models.builtin.aerial"),
                *("data.worlds.aerial.drawing", "data.worlds.aerial.questions"),
            ),
        ),
        (
            "tiny-tables",
            (
                *("tasks.bases.tables", "models.builtin.tables", "data.worlds.tables.pictures"),
                *("data.worlds.tables.contents", "data.worlds.tables.drawing", "data.worlds.tables.measurements"),
            ),
        ),
        (
            "tiny-video",
            (
                *("tasks.bases.clips", "models.builtin.video", "models.builtin.qwen_vl"),
                *("data.worlds.clips", "data.worlds.digits.scenes"),
            ),
        ),
        (
            "tiny-audio",
            ("tasks.bases.sounds", "models.builtin.qwen_audio", "models.builtin.qwen_vl", "data.worlds.sounds"),
        ),
    ],
)
def test_the_key_of_a_base_covers_the_code_that_trains_it(
    name: str, modules: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = run_config.shipped(f"bases/{name}")
    key, read = base_models._key(recipe), Path.read_text
    for module in (*modules, "data.media.media", "data.readers.user_data"):
        changed = source(f"mmpost.{module}")
        assert changed is not None
        path = changed.resolve()

        def edited(self: Path, *args: str, path: Path = path, **kwargs: str) -> str:
            return read(self, *args, **kwargs) + ("# new" if self == path else "")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", edited)
            assert (base_models._key(recipe) != key) == (module in modules), module
    assert base_models._key(recipe) == key
