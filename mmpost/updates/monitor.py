"""What an update learns from evaluations: when to lower the learning rate, and when to end the stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmpost.config.settings import OptimSettings
from mmpost.errors import ConfigError


class Monitor:
    """Follows the metric `optim.monitor`: torch's ReduceLROnPlateau, and early stopping."""

    def __init__(self, optim: OptimSettings) -> None:
        self._name, lower_is_better = optim.monitor.removeprefix("-"), optim.monitor.startswith("-")
        self._sign = -1.0 if lower_is_better else 1.0
        self._has_plateau, self._patience = optim.schedule == "plateau", optim.early_stopping_patience
        # The scheduler sets the rate of an optimizer; that of this one is the fraction of the peak, so that warm-up and
        # the factors of parts do not interfere.
        self._scale = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._scale,
            "min" if lower_is_better else "max",
            factor=optim.plateau_factor,
            patience=optim.plateau_patience,
            min_lr=optim.min_lr_ratio,
        )
        self._best: float | None = None
        self._without_improvement = 0

    @property
    def scale(self) -> float:
        """The learning rate as a fraction of what the schedule says."""
        return float(self._scale.param_groups[0]["lr"])

    @property
    def should_stop(self) -> bool:
        """Whether as many evaluations in a row as `optim.early_stopping_patience` brought no improvement."""
        return 0 < self._patience <= self._without_improvement

    def observe(self, metrics: Mapping[str, float], warm: bool) -> None:
        """Hear the metrics of an evaluation. `warm`: warm-up is over, before which no plateau counts.

        Raises ConfigError if the metric is not among them; a metric that is not a number is not.
        """
        if self._name not in metrics:
            raise ConfigError(
                f"optim.monitor: wanted a metric of the evaluations on val, found {self._name!r}, which is not among "
                f"{', '.join(sorted(metrics)) or 'them: there are none'}; correct it"
            )
        value = metrics[self._name]
        if self._has_plateau and warm:
            self._plateau.step(value)
        if self._best is None or self._sign * value > self._sign * self._best:
            self._best, self._without_improvement = value, 0
        else:
            self._without_improvement += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: plain data."""
        return {
            "scale": self.scale,
            "plateau": self._plateau.state_dict(),
            "best": self._best,
            "without_improvement": self._without_improvement,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._scale.param_groups[0]["lr"] = state["scale"]
        self._plateau.load_state_dict(state["plateau"])
        self._best, self._without_improvement = state["best"], state["without_improvement"]
