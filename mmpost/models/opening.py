"""Opens the model in a folder or with a hub id: of the class that the folder's spec file names, else a chat model."""

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
    """The model in `folder`. Raises ConfigError for what cannot be loaded or trained."""
    spec = read_spec(folder)
    if spec is None:
        from mmpost.models.chat.model import ChatModel

        return ChatModel.load(folder, settings, compute)
    name = spec.get("model", "")
    # A folder may come from anywhere, so that it must not name a path to code.
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{folder}/{SPEC_FILE}: wanted a name of mmpost.models as `model`, found {name!r}")
    return registry.module(name, "mmpost.models").open_model(folder, settings, compute)


def open_chat(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> ChatModel:
    """The chat model in `folder`. Raises ConfigError for a model of another class."""
    from mmpost.models.chat.model import ChatModel

    spec = read_spec(folder)
    if spec is not None:
        raise ConfigError(
            f"model={settings.name}: wanted a chat model, which writes replies, found one of mmpost.models."
            f"{spec.get('model')}; take another model, or a command that needs no replies (train, eval, check, show)"
        )
    return ChatModel.load(folder, settings, compute)
