"""What a study of learning in sequence found, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.studies.continual_tables import decimals


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Above, the matrix of each arm as a map; below, for each evaluation its course over the tasks, an arm a line."""
    from matplotlib.figure import Figure

    arms, names = result["arms"], [*result["tasks"], *result["general"]]
    wide, digits = max(len(arms) * 1.3, len(names)), decimals(result)
    figure = Figure(figsize=(2.6 * wide + 1.5, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    panels = above.subplots(1, len(arms), squeeze=False)[0]
    top = max(value["mean"] for arm in arms.values() for value in arm["matrix"].values())
    for panel, (name, arm) in zip(panels, arms.items(), strict=True):
        _map(panel, result, arm, top, digits)
        panel.set_title(f"{name}: AvgAcc {arm['measures']['AvgAcc']['mean']:.{digits}f}", fontsize=10)
    panels = below.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for k, (panel, name) in enumerate(zip(panels, names, strict=True), 1):
        for arm in arms:
            _course(panel, arm, [arms[arm]["matrix"][f"{t}/{k}"] for t in range(len(result["tasks"]) + 1)])
            if result["joint"]:
                panel.axhline(
                    arms[arm]["matrix"][f"joint/{k}"]["mean"], ls=":", lw=1, color=panel.lines[-1].get_color()
                )
        if k <= len(result["tasks"]):
            panel.axvline(k, color="0.8", lw=6, zorder=0)
        panel.set_xticks(range(len(result["tasks"]) + 1), ["base", *map(str, range(1, len(result["tasks"]) + 1))])
        panel.set_title(name if k <= len(result["tasks"]) else f"{name} (not trained)", fontsize=10)
        panel.set_xlabel("after task")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def _map(panel: Any, result: Mapping[str, Any], arm: Mapping[str, Any], top: float, digits: int) -> None:
    names, after = [*result["tasks"], *result["general"]], ["base", *result["tasks"]]
    values = [[arm["matrix"][f"{t}/{k}"]["mean"] for k in range(1, len(names) + 1)] for t in range(len(after))]
    panel.imshow(values, cmap="viridis", vmin=0, vmax=top, aspect="auto")
    for t, row in enumerate(values):
        for k, value in enumerate(row):
            weight = "bold" if t == k + 1 else "normal"
            colour = "black" if value > 0.6 * top else "white"
            panel.text(k, t, f"{value:.{digits}f}", ha="center", va="center", color=colour, weight=weight, fontsize=9)
    panel.set_xticks(range(len(names)), names, fontsize=8)
    panel.set_yticks(range(len(after)), after, fontsize=8)
    panel.set_ylabel("after", fontsize=8)


def _course(panel: Any, name: str, values: list[Mapping[str, Any]]) -> None:
    places = range(len(values))
    (line,) = panel.plot(places, [v["mean"] for v in values], "o-", ms=4, label=name)
    panel.fill_between(
        places, [v["low"] for v in values], [v["high"] for v in values], alpha=0.15, color=line.get_color()
    )
