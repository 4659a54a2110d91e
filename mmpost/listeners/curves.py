"""curves.png: training curves of a run, one small panel per group of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpost.core.display import ZERO
from mmpost.core.run_files import read_metrics
from mmpost.listeners.base import Listener

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7a7a")
"""Distinguishable with any color vision deficiency (Okabe and Ito)."""

PANELS = (
    ("reward", "reward/total", ""),
    ("reward components", "reward/", ""),
    ("zero-variance groups", "reward/zero_std_groups", "fraction"),
    ("loss", "loss", ""),
    ("evaluation", "eval/", ""),
    ("reply length", "reply/length", "tokens"),
    ("truncated replies", "reply/truncated", "fraction"),
    ("unparseable replies", "reply/unparseable", "fraction"),
    ("KL to the reference", "kl", "nats"),
    ("entropy", "entropy", "nats"),
    ("gradient norm", "grad_norm", ""),
    ("log-prob without media", "probe/", "nats"),
    ("learning rate", "lr", ""),
    ("time per step", "time/", "seconds"),
)
"""Title, metric (a prefix if it ends in a slash) and unit of each panel. Panels without data are left out."""

Series = dict[str, tuple[list[int], list[float]]]
"""For each curve of a panel its steps and values."""


class Curves(Listener):
    """Plots metrics.jsonl as curves.png at the end of the run."""

    def __init__(self) -> None:
        self._run: Path | None = None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._run = run

    def on_end(self, summary: Mapping[str, Any]) -> None:
        assert self._run is not None, "on_start was not called"
        lines = read_metrics(self._run)
        if lines:
            draw(lines, self._run / "curves.png", title=self._run.name)


def panels(lines: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """The curves of each panel that has data."""
    result: dict[str, Series] = {}
    for title, key, _ in PANELS:
        series: Series = {}
        for line in lines:
            for name, value in line.items():
                if not _belongs(name, key) or isinstance(value, str):
                    continue
                steps, values = series.setdefault(name.removeprefix(key) or name, ([], []))
                steps.append(line["step"])
                values.append(value)
        if series and not (key == "reward/" and len(series) == 1):  # a single component equals the total reward
            result[title] = series
    return result


def draw(lines: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Plot the lines of a metrics.jsonl into the image `path`; works without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = panels(lines)
    units = {name: unit for name, _, unit in PANELS}
    columns = min(4, max(1, len(data)))
    rows = math.ceil(len(data) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.5 * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    stages = _stage_starts(lines)
    for axis, (name, series) in zip(axes.flat, data.items(), strict=False):
        for step, _ in stages[1:]:
            axis.axvline(step - 0.5, color="#bbbbbb", linewidth=0.8, linestyle=(0, (4, 3)))
        _curves(axis, series)
        axis.set_title(name + (f" ({units[name]})" if units[name] else ""), fontsize=9, loc="left")
    for axis in axes.flat[len(data) :]:
        axis.set_visible(False)
    if len(stages) > 1:
        text = ", ".join(f"{stage} from {step}" for step, stage in stages)
        figure.supxlabel(f"optimizer step (stages: {text})", fontsize=8, color="#555555")
    else:
        figure.supxlabel("optimizer step", fontsize=8, color="#555555")
    figure.savefig(path)


def _curves(axis: Any, series: Series) -> None:
    for index, (name, (steps, values)) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        if len(steps) > 30:
            axis.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
            values = _smooth(values)
        axis.plot(
            steps, values, color=color, linewidth=1.5, label=name, marker="o" if len(steps) <= 30 else "", markersize=3
        )
    if limits := flat_limits([value for _, values in series.values() for value in values]):
        axis.set_ylim(*limits)
    if len(series) > 1:
        axis.legend(fontsize=7, frameon=False, handlelength=1.2, ncols=2 if len(series) > 4 else 1)
    axis.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#999999")
    axis.tick_params(labelsize=7, color="#999999", labelbottom=True)
    axis.xaxis.get_major_locator().set_params(integer=True)


def flat_limits(values: Sequence[float]) -> tuple[float, float] | None:
    """The limits of the axis for values that differ by rounding errors only, which would otherwise fill the panel."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    if not high - low <= max(ZERO, size / 1e4):
        return None
    middle, pad = (0.0, 1.0) if size < ZERO else ((low + high) / 2, max(size / 10, ZERO))
    return middle - pad, middle + pad


def _belongs(name: str, key: str) -> bool:
    if key == "reward/":
        return name.startswith(key) and name not in ("reward/total", "reward/zero_std_groups")
    return name.startswith(key) if key.endswith("/") else name == key


def _smooth(values: Sequence[float]) -> list[float]:
    """Centered moving average over a twentieth of the points. A trailing one would lag behind every trend."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _stage_starts(lines: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """(first step, name) of each stage."""
    starts: list[tuple[int, str]] = []
    for line in lines:
        if "stage" in line and (not starts or starts[-1][1] != line["stage"]):
            starts.append((line["step"], line["stage"]))
    return starts
