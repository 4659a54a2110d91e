"""AdamW over everything that trains, with a schedule and a rate per part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmpost.config.settings import OptimSettings
from mmpost.core.parameter_groups import owner
from mmpost.errors import ConfigError
from mmpost.types import Update


class Plain(Update):
    """AdamW as torch has it; decay on matrices only; the gradient norm is clipped over all parts together."""

    def __init__(self, optim: OptimSettings) -> None:
        self.optim = optim

    def start(self, module: torch.nn.Module, parts: Mapping[str, Sequence[str]], steps: int) -> None:
        unknown = sorted(set(self.optim.lr_multipliers) - set(parts))
        if unknown:
            raise ConfigError(f"optim.lr_multipliers names the parts {unknown}; this model has {sorted(parts)}")
        groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
        for name, p in module.named_parameters():
            if p.requires_grad:
                groups.setdefault((owner(name, parts), p.dim() >= 2), []).append(p)
        if not groups:
            raise ConfigError("nothing trains: every part of the model is frozen (model.freeze)")
        o = self.optim
        self._optimizer = torch.optim.AdamW(
            [
                {
                    "params": ps,
                    "factor": o.lr_multipliers.get(part, 1.0),
                    "weight_decay": o.weight_decay if matrix else 0.0,
                }
                for (part, matrix), ps in groups.items()
            ],
            lr=o.lr,
            betas=o.betas,
            eps=o.eps,
        )
        self._steps, self._done = steps, 0

    def step(self) -> Mapping[str, float]:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.optim.max_grad_norm or math.inf))
        rate = self.optim.lr * schedule(self.optim, self._done, self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        if math.isfinite(norm):  # otherwise the trainer stops the run, and the weights must be those of the last step
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._done += 1
        return {"grad_norm": norm, "lr": rate}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._done = state["done"]


def schedule(optim: OptimSettings, step: int, steps: int) -> float:
    """The factor on the peak rate at `step` (from 0) of `steps`: linear warm-up, then the chosen fall to the floor."""
    warmup = optim.warmup if optim.warmup >= 1 else optim.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    fall = {"constant": 0.0, "linear": progress, "cosine": (1 - math.cos(math.pi * progress)) / 2}[optim.schedule]
    return 1 - (1 - optim.min_lr_ratio) * fall
