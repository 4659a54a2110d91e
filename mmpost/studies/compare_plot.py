"""A study's result as a picture: what was learnt against what was kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.studies.compare_tables import TITLES, shown

MARKERS = "os^Dv"
"""Ten colours come round again: from then on the next shape tells arms apart."""


def draw(result: Mapping[str, Any], file: Path) -> None:
    """One panel per budget: each seed a dot, each arm's mean with its interval, the base as a cross.

    With two metrics or more, the first stands against the second; one alone against the arms.
    """
    from matplotlib.figure import Figure

    metrics = shown(result)[:2]
    budgets = result["budgets"]
    columns = 1 + max(len(arms) for arms in budgets.values()) // 16
    figure = Figure(figsize=(5.2 * len(budgets) + 1.6 * columns, 4.6), layout="constrained")
    panels = figure.subplots(1, len(budgets), squeeze=False, sharey=True, sharex=True)[0]
    for panel, (budget, arms) in zip(panels, budgets.items(), strict=True):
        for place, (name, arm) in enumerate(arms.items()):
            _arm(panel, name, arm, metrics, place)
        if len(metrics) == 2:
            x, y = metrics[1], metrics[0]
            if x in result["base"] and y in result["base"]:
                panel.plot(result["base"][x]["mean"], result["base"][y]["mean"], "kx", label="base")
            panel.set_xlabel(x)
        panel.set_ylabel(metrics[0])
        panel.set_title(TITLES[budget], fontsize=10)
        panel.grid(alpha=0.3)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, ncols=columns)
    figure.savefig(file, dpi=110)


def _arm(panel: Any, name: str, arm: Mapping[str, Any], metrics: list[str], place: int) -> None:
    y = arm["scores"][metrics[0]]
    x = arm["scores"][metrics[1]] if len(metrics) == 2 else None
    across = [x["low"], x["high"]] if x else [place, place]
    middle = x["mean"] if x else place
    (line,) = panel.plot([middle, middle], [y["low"], y["high"]], lw=1.5)
    panel.plot(across, [y["mean"], y["mean"]], lw=1.5, color=line.get_color())
    panel.plot(middle, y["mean"], MARKERS[place // 10 % len(MARKERS)], ms=8, color=line.get_color(), label=name)
    panel.plot(x["seeds"] if x else [place] * len(y["seeds"]), y["seeds"], ".", color=line.get_color(), alpha=0.5)
