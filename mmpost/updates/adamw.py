"""AdamW over all trainable parameters, with a learning-rate schedule and a rate for each part of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from mmpost.config.settings import OptimSettings
from mmpost.core.parameter_groups import owner
from mmpost.errors import ConfigError
from mmpost.types import Update
from mmpost.updates.monitor import Monitor


class AdamWUpdate(Update):
    """`torch.optim.AdamW`; the update of stages with `Stage.update=None` (Loshchilov & Hutter 2019, arXiv 1711.05101).

    By default only tensors with at least two dimensions decay: not biases, norms and scalars. The gradient norm is
    clipped over all parameters together.
    """

    optimizer_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.AdamW
    """The optimizer of torch; it must accept the arguments of AdamW."""

    def __init__(self, optim: OptimSettings) -> None:
        self.optim = optim

    def start(self, module: torch.nn.Module, parts: Mapping[str, Sequence[str]], steps: int) -> None:
        """Create the optimizer; raises ConfigError for an unknown part in lr_multipliers, or if nothing trains."""
        unknown = sorted(set(self.optim.lr_multipliers) - set(parts))
        if unknown:
            raise ConfigError(f"optim.lr_multipliers names the parts {unknown}; this model has {sorted(parts)}")
        groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
        for name, p in module.named_parameters():
            if p.requires_grad:
                decays = p.dim() >= 2 or self.optim.weight_decay_on == "all"
                groups.setdefault((owner(name, parts), decays), []).append(p)
        if not groups:
            raise ConfigError("nothing trains: every part of the model is frozen (model.freeze); unfreeze one")
        o = self.optim
        self._optimizer = self.optimizer_class(
            [
                {
                    "params": ps,
                    "factor": o.lr_multipliers.get(part, 1.0),
                    "weight_decay": o.weight_decay if decays else 0.0,
                }
                for (part, decays), ps in groups.items()
            ],
            lr=o.lr,
            betas=o.betas,
            eps=o.eps,
        )
        self._monitor = Monitor(o) if o.follows_evaluations else None
        self._steps, self._done = steps, 0

    def step(self) -> Mapping[str, float]:
        """Clip, step and clear the gradients; returns "grad_norm" (before clipping) and "lr"."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.optim.max_grad_norm or math.inf))
        rate = self.optim.lr * schedule(self.optim, self._done, self._steps)
        if self._monitor:
            rate *= self._monitor.scale
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        # With a non-finite norm the trainer stops the run: the weights must remain those of the last good step.
        if math.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._done += 1
        return {"grad_norm": norm, "lr": rate}

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Follow `optim.monitor`; raises ConfigError if it is not among the metrics."""
        if self._monitor:
            self._monitor.observe(metrics, warm=self._done > warmup_steps(self.optim, self._steps))

    @property
    def should_stop(self) -> bool:
        return self._monitor is not None and self._monitor.should_stop

    def state_dict(self) -> dict[str, Any]:
        monitor = {"monitor": self._monitor.state_dict()} if self._monitor else {}
        return {"optimizer": self._optimizer.state_dict(), "done": self._done, **monitor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._done = state["done"]
        if self._monitor:
            self._monitor.load_state_dict(state["monitor"])


def schedule(optim: OptimSettings, step: int, steps: int) -> float:
    """The learning rate at `step` (from 0) of `steps`, as a fraction of the peak.

    Linear warmup, then constant, linear or cosine decay to `min_lr_ratio`; a plateau schedule is constant but for what
    evaluations change (`Monitor.scale`). By default the first step already moves: its factor is 1 / (warmup + 1), not
    0. With `optim.warmup_start`, warm-up is that of torch's LinearLR.
    """
    warmup = warmup_steps(optim, steps)
    if step < warmup:
        reached, start = step - step % optim.warmup_interval, optim.warmup_start
        return (reached + 1) / (warmup + 1) if start is None else start + (1 - start) * reached / warmup
    progress = min(1.0, (step - warmup) / max(1.0, steps - warmup))
    decays = {"linear": progress, "cosine": (1 - math.cos(math.pi * progress)) / 2}
    return 1 - (1 - optim.min_lr_ratio) * decays.get(optim.schedule, 0.0)


def warmup_steps(optim: OptimSettings, steps: int) -> float:
    """The steps of warm-up: `optim.warmup` is a number of steps, or below 1 a fraction of `steps`."""
    return optim.warmup if optim.warmup >= 1 else optim.warmup * steps
