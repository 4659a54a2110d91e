"""What a base is keyed by."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from mmpost import bases, config


def test_a_base_is_keyed_by_all_that_is_mixed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = config.shipped("bases/tiny-shapes")
    key = bases._key(recipe)
    for changed in ("data.shapes", "data.figures", "tasks.shapes_base", "models.tiny_shapes"):

        def source(module, changed=changed):
            return inspect.getsource(module) + ("# new" if module.__name__ == f"mmpost.{changed}" else "")

        monkeypatch.setattr(bases, "inspect", SimpleNamespace(getsource=source))
        assert bases._key(recipe) != key, changed
    monkeypatch.setattr(bases, "inspect", inspect)
    assert bases._key(recipe) == key
