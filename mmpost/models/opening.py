"""From a folder or hub id to a model: a folder says itself which class it is of; one that does not is a chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmpost.config import registry
from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.errors import ConfigError
from mmpost.models.embedding.spec import SPEC_FILE, read_spec
from mmpost.types import Model

if TYPE_CHECKING:
    from mmpost.models.chat.model import ChatModel


def open_model(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> Model:
    """The model in `folder`. Raises ConfigError, saying what to change, for what cannot be loaded or trained."""
    about = read_spec(folder)
    if about is None:
        from mmpost.models.chat.model import ChatModel

        return ChatModel.load(folder, settings, compute)
    name = about.get("model", "")
    # What a folder from anywhere names must be a word, not a path to code.
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{folder}/{SPEC_FILE}: wanted a name of mmpost.models as `model`, found {name!r}")
    return registry.module(name, "mmpost.models").open_model(folder, settings, compute)


def open_chat(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> ChatModel:
    """A model that writes replies. Raises ConfigError for a folder of any other."""
    from mmpost.models.chat.model import ChatModel

    about = read_spec(folder)
    if about is not None:
        raise ConfigError(
            f"model={settings.name}: wanted a chat model, which writes replies, found one of mmpost.models."
            f"{about.get('model')}; take another model, or a command that needs no replies (train, eval, check, show)"
        )
    return ChatModel.load(folder, settings, compute)
