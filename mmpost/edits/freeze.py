"""Freezing of model parts."""

from __future__ import annotations

from dataclasses import dataclass

from mmpost.core.parameter_groups import owner
from mmpost.errors import ConfigError
from mmpost.types import Model


@dataclass(frozen=True)
class Freeze:
    """Turn off gradients for these parts; raises ConfigError for a part that the model does not have."""

    groups: tuple[str, ...]
    """Names of `Model.parameter_groups`."""

    def __call__(self, model: Model) -> None:
        known = model.parameter_groups()
        unknown = sorted(set(self.groups) - set(known))
        if unknown:
            raise ConfigError(f"model.freeze names the parts {unknown}; this model has {sorted(known)}")
        for name, parameter in model.module.named_parameters():
            if owner(name, known) in self.groups:
                parameter.requires_grad_(False)
