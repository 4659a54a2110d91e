"""Parts of the model that do not train."""

from __future__ import annotations

from dataclasses import dataclass

from mmpost.errors import ConfigError
from mmpost.types import Model


@dataclass(frozen=True)
class Freeze:
    """Switch gradients off for these parts; raises ConfigError for a part that the model does not have."""

    parts: tuple[str, ...]

    def __call__(self, model: Model) -> None:
        known = model.parts()
        unknown = sorted(set(self.parts) - set(known))
        if unknown:
            raise ConfigError(f"model.freeze names the parts {unknown}; this model has {sorted(known)}")
        owner = {prefix: part for part, prefixes in known.items() for prefix in prefixes}
        for name, parameter in model.module.named_parameters():
            fits = [p for p in owner if name == p or name.startswith(p + ".")]
            if fits and owner[max(fits, key=len)] in self.parts:
                parameter.requires_grad_(False)
