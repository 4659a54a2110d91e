"""Results of studies as plots (study.png)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.studies.tables import BUDGETS, decimals, shown_metrics

MARKERS = "os^Dv"
"""matplotlib repeats its ten colors; each further ten arms get the next marker."""


def plot_compare(result: Mapping[str, Any], file: Path) -> None:
    """One panel per budget with each arm's mean and interval, a dot for each seed, and the base as a cross.

    With two or more metrics the first is plotted against the second, a single one against the arms.
    """
    from matplotlib.figure import Figure

    metrics = shown_metrics(result)[:2]
    budgets, claims = result["budgets"], {name: c for name, c in result["claims"].items() if len(c["dose"]) > 1}
    relation = result["relation"]
    columns = 1 + max(len(arms) for arms in budgets.values()) // 16
    width, height = 5.2 * len(budgets) + 1.6 * columns, 4.6
    figure = Figure(figsize=(width, height * (1.75 if claims or relation else 1)), layout="constrained")
    ratios = [1, 0.75] if claims or relation else [1]
    top, *bottom = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    panels = top.subplots(1, len(budgets), squeeze=False, sharey=True, sharex=True)[0]
    for panel, (budget, arms) in zip(panels, budgets.items(), strict=True):
        for position, (name, arm) in enumerate(arms.items()):
            _plot_arm(panel, name, arm, metrics, position)
        if len(metrics) == 2:
            y, x = metrics
            for level, base in result["base"].items():
                if x in base and y in base:
                    panel.plot(base[x]["mean"], base[y]["mean"], "kx", label=f"base @ {level}" if level else "base")
            panel.set_xlabel(x)
        panel.set_ylabel(metrics[0])
        panel.set_title(BUDGETS[budget], fontsize=10)
        panel.grid(alpha=0.3)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, ncols=columns)
    if bottom:
        lower = iter(bottom[0].subplots(1, len(claims) + bool(relation), squeeze=False)[0])
        for name, found in claims.items():
            _plot_dose(next(lower), name, found, "no verdict" if result["no_verdict"] else found["verdict"])
        if relation:
            _plot_relation(next(lower), relation, list(next(iter(budgets.values()))))
    figure.savefig(file, dpi=110)


def _plot_dose(panel: Any, name: str, found: Mapping[str, Any], verdict: str) -> None:
    """A claim's gap at each level of the dial, with its interval and seeds; dotted: the predicted gap."""
    claim, dose = found["claim"], found["dose"]
    for position, value in enumerate(dose.values()):
        panel.plot([position] * len(value["seeds"]), value["seeds"], ".", color="0.6")
        panel.errorbar(
            position,
            value["mean"],
            [[value["mean"] - value["low"]], [value["high"] - value["mean"]]],
            fmt="o",
            color="C0",
            capsize=3,
        )
    panel.axhline(0, color="0.7", lw=1)
    panel.axhline(claim["gap"], color="C3", ls=":", lw=1)
    panel.set_xticks(range(len(dose)), list(dose), fontsize=8)
    panel.set_xlim(-0.5, len(dose) - 0.5)
    panel.set_ylabel(f"{claim['arm']} - {claim['against']}, {claim['metric']}", fontsize=8)
    panel.set_title(f"{name}: {verdict}", fontsize=9)
    panel.grid(alpha=0.3)


def _plot_relation(panel: Any, relation: Mapping[str, Any], arms: list[str]) -> None:
    """All runs by two metrics, in the colors and markers of their arms."""
    x, y = relation["x"], relation["y"]
    for position, arm in enumerate(arms):
        runs = [run for run in relation["runs"] if run["arm"] == arm]
        marker = MARKERS[position // 10 % len(MARKERS)]
        panel.plot([r[x] for r in runs], [r[y] for r in runs], marker, ms=3.5, color=f"C{position % 10}")
    panel.set_xlabel(x)
    panel.set_ylabel(y, fontsize=8)
    panel.set_title(f"rank correlation {relation['correlation']['mean']:+.2f}", fontsize=9)
    panel.grid(alpha=0.3)


def _plot_arm(panel: Any, name: str, arm: Mapping[str, Any], metrics: list[str], position: int) -> None:
    y = arm["scores"][metrics[0]]
    categorical = {"mean": position, "low": position, "high": position, "seeds": [position] * len(y["seeds"])}
    x = arm["scores"][metrics[1]] if len(metrics) == 2 else categorical
    (line,) = panel.plot([x["mean"], x["mean"]], [y["low"], y["high"]], lw=1.5)
    color = line.get_color()
    panel.plot([x["low"], x["high"]], [y["mean"], y["mean"]], lw=1.5, color=color)
    panel.plot(x["mean"], y["mean"], MARKERS[position // 10 % len(MARKERS)], ms=8, color=color, label=name)
    panel.plot(x["seeds"], y["seeds"], ".", color=color, alpha=0.5)


def plot_continual(result: Mapping[str, Any], file: Path) -> None:
    """Top: the accuracy matrix of each arm as a heat map. Bottom: each evaluation over the tasks, one line per arm."""
    from matplotlib.figure import Figure

    arms, names = result["arms"], [*result["tasks"], *result["general"]]
    trained, digits = len(result["tasks"]), decimals(result)
    figure = Figure(figsize=(2.6 * max(len(arms) * 1.3, len(names)) + 1.5, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    panels = top.subplots(1, len(arms), squeeze=False)[0]
    maximum = max(value["mean"] for arm in arms.values() for value in arm["matrix"].values())
    for panel, (name, arm) in zip(panels, arms.items(), strict=True):
        _plot_matrix(panel, result, arm, maximum, digits)
        panel.set_title(f"{name}: AvgAcc {arm['measures']['AvgAcc']['mean']:.{digits}f}", fontsize=10)
    panels = bottom.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for k, (panel, name) in enumerate(zip(panels, names, strict=True), 1):
        for label, arm in arms.items():
            values = [arm["matrix"][f"{t}/{k}"] for t in range(trained + 1)]
            (line,) = panel.plot([value["mean"] for value in values], "o-", ms=4, label=label)
            low, high = ([value[end] for value in values] for end in ("low", "high"))
            panel.fill_between(range(trained + 1), low, high, alpha=0.15, color=line.get_color())
            if result["joint"]:
                panel.axhline(arm["matrix"][f"joint/{k}"]["mean"], ls=":", lw=1, color=line.get_color())
        if k <= trained:
            panel.axvline(k, color="0.8", lw=6, zorder=0)
        panel.set_xticks(range(trained + 1), ["base", *map(str, range(1, trained + 1))])
        panel.set_title(name if k <= trained else f"{name} (not trained)", fontsize=10)
        panel.set_xlabel("after task")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)


def _plot_matrix(panel: Any, result: Mapping[str, Any], arm: Mapping[str, Any], maximum: float, digits: int) -> None:
    names, after = [*result["tasks"], *result["general"]], ["base", *result["tasks"]]
    values = [[arm["matrix"][f"{t}/{k}"]["mean"] for k in range(1, len(names) + 1)] for t in range(len(after))]
    panel.imshow(values, cmap="viridis", vmin=0, vmax=maximum, aspect="auto")
    for t, row in enumerate(values):
        for k, value in enumerate(row):
            weight = "bold" if t == k + 1 else "normal"
            color = "black" if value > 0.6 * maximum else "white"  # readable on both ends of viridis
            panel.text(k, t, f"{value:.{digits}f}", ha="center", va="center", color=color, weight=weight, fontsize=9)
    panel.set_xticks(range(len(names)), names, fontsize=8)
    panel.set_yticks(range(len(after)), after, fontsize=8)
    panel.set_ylabel("after", fontsize=8)
