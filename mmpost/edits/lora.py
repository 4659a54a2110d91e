"""Low-rank adapters through peft, by part of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from mmpost.config.settings import LoraSettings
from mmpost.core.parameter_groups import owner
from mmpost.errors import ConfigError
from mmpost.types import Model


@dataclass(frozen=True)
class Lora:
    """Adapters on every linear layer of the chosen parts; everything else stops training.

    A checkpoint then holds the adapter, with the base's place in it; transformers' `from_pretrained` loads both.
    """

    settings: LoraSettings

    def __call__(self, model: Model) -> None:
        known = model.parameter_groups()
        unknown = sorted(set(self.settings.target_groups) - set(known))
        if unknown:
            raise ConfigError(f"model.lora.parts names {unknown}; this model has {sorted(known)}")
        if getattr(model.module, "peft_config", None):
            raise ConfigError(
                "model.lora asks for adapters, but the model was loaded with some already: export them into the "
                "first, or leave model.lora out and train the ones it has"
            )
        targets = [
            name
            for name, child in model.module.named_modules()
            if isinstance(child, torch.nn.Linear) and owner(name, known) in self.settings.target_groups
        ]
        if not targets:
            raise ConfigError(f"model.lora.parts={list(self.settings.target_groups)}: no linear layer there")
        adapters = LoraConfig(
            r=self.settings.rank,
            lora_alpha=self.settings.alpha,  # pyright: ignore[reportArgumentType] - peft only divides it
            lora_dropout=self.settings.dropout,
            target_modules=targets,
        )
        model.module.add_adapter(adapters)  # type: ignore[operator]


def merged(module: Any) -> Any:
    """The module with its adapters added to the weights they adapt, for saving alone; itself where it has none.

    A module that was loaded with adapters remembers how their checkpoint named things and would save its weights under
    those names, so the merged weights are handed to a new one.
    """
    adapted = [(name, m) for name, m in module.named_modules() if isinstance(m, BaseTunerLayer)]
    if not adapted:
        return module
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        module.set_submodule(name, layer.get_base_layer())
    with torch.device("meta"):
        plain = type(module)(module.config)
    plain.load_state_dict(module.state_dict(), assign=True)
    plain.tie_weights()
    return plain
