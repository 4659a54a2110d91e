"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft, on chosen parts of the model."""

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
    """Add adapters to every linear layer of the chosen parts, and freeze everything else.

    Checkpoints then hold the adapter and the path of its base model; transformers' `from_pretrained` loads both. Raises
    ConfigError for a part that the model does not have or that has no linear layer, and for a model with adapters.
    """

    settings: LoraSettings

    def __call__(self, model: Model) -> None:
        known = model.parameter_groups()
        unknown = sorted(set(self.settings.target_groups) - set(known))
        if unknown:
            raise ConfigError(f"model.lora.target_groups names {unknown}; this model has {sorted(known)}")
        if getattr(model.module, "peft_config", None):
            raise ConfigError(
                "model.lora adds adapters, but this model was loaded with adapters: merge them first (mmpost export), "
                "or leave out model.lora to train those"
            )
        targets = [
            name
            for name, child in model.module.named_modules()
            if isinstance(child, torch.nn.Linear) and owner(name, known) in self.settings.target_groups
        ]
        if not targets:
            raise ConfigError(
                f"model.lora.target_groups={list(self.settings.target_groups)}: no linear layer in these parts"
            )
        adapters = LoraConfig(
            r=self.settings.rank,
            lora_alpha=self.settings.alpha,  # pyright: ignore[reportArgumentType] - peft only divides it
            lora_dropout=self.settings.dropout,
            target_modules=targets,
        )
        model.module.add_adapter(adapters)  # type: ignore[operator]


def merged(module: Any) -> Any:
    """A module with its adapters merged into the weights, only for saving; `module` itself if it has none.

    Merges in place. A module that was loaded with adapters keeps their checkpoint's key mapping and would save its
    weights under those names, so the merged weights move to a new module.
    """
    adapted = [(name, m) for name, m in module.named_modules() if isinstance(m, BaseTunerLayer)]
    if not adapted:
        return module
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        module.set_submodule(name, layer.get_base_layer())
    with torch.device("meta"):  # no memory for weights that are replaced at once
        plain = type(module)(module.config)
    plain.load_state_dict(module.state_dict(), assign=True)
    plain.tie_weights()
    return plain
