"""From a folder or hub id to a model: a folder says itself which class it is of; one that does not is a chat model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpost import registry
from mmpost.errors import ConfigError
from mmpost.settings import ComputeSettings, ModelSettings
from mmpost.types import Model

if TYPE_CHECKING:
    from mmpost.models.chat import ChatModel

DESCRIPTION = "mmpost_model.json"
"""In a model's folder: {"model": NAME, ...}, where mmpost.models.NAME has `open_model(folder, settings, compute)`."""


def open_model(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> Model:
    """The model in `folder`. Raises ConfigError, saying what to change, for what cannot be loaded or trained."""
    about = description(folder)
    if about is None:
        from mmpost.models.chat import ChatModel

        return ChatModel.load(folder, settings, compute)
    name = about.get("model", "")
    # What a folder from anywhere names must be a word, not a path to code.
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{folder}/{DESCRIPTION}: wanted a name of mmpost.models as `model`, found {name!r}")
    return registry.module(name, "mmpost.models").open_model(folder, settings, compute)


def open_chat(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> ChatModel:
    """A model that writes replies. Raises ConfigError for a folder of any other."""
    from mmpost.models.chat import ChatModel

    about = description(folder)
    if about is not None:
        raise ConfigError(
            f"model={settings.name}: wanted a chat model, which writes replies, found one of mmpost.models."
            f"{about.get('model')}; take another model, or a command that needs no replies (train, eval, check, show)"
        )
    return ChatModel.load(folder, settings, compute)


def description(folder: str) -> dict[str, Any] | None:
    """What the folder says of itself; None for hub ids and folders of transformers."""
    file = Path(folder) / DESCRIPTION
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ConfigError(f"{file}: wanted JSON, found something else ({e}); copy the folder again") from e
