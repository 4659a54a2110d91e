"""A study's result as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TITLES = {"steps": "At equal optimiser steps", "time": "At equal wall time"}


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of all budgets: mean over seeds, 95 % interval, the seeds' values, the difference to the arm `against`."""
    metrics = shown(result)
    samples = ", ".join(f"{n} of {name}" for name, n in result["samples"].items())
    text = [
        f"# {result['task']} on {result['model']}",
        f"Evaluated on test samples: {samples}. Seeds: {len(result['seeds'])}. Mean over seeds, 95 % interval "
        "(bootstrap over seeds, and over samples within them), and the value of each seed.",
    ]
    for budget, arms in result["budgets"].items():
        text += [f"## {TITLES[budget]}", _table(result, arms, metrics)]
        if len(arms) > 1:
            text += [f"Difference to {result['against']}, paired by seed and sample:", _differences(arms, metrics)]
    text += ["## Tuning on val", _tuning(result["budgets"])]
    return "\n\n".join(text) + "\n"


def shown(result: Mapping[str, Any]) -> list[str]:
    """The metrics to show: those that the study names, else all."""
    return list(result["metrics"]) or list(result["base"])


def _table(result: Mapping[str, Any], arms: Mapping[str, Any], metrics: Sequence[str]) -> str:
    head = ["arm", "steps", "seconds", *metrics]
    rows = [["base", "0", "0", *(_score(result["base"][m]) for m in metrics)]]
    for name, arm in arms.items():
        seconds = sum(arm["seconds"]) / len(arm["seconds"])
        rows.append([name, str(arm["steps"]), f"{seconds:.0f}", *(_score(arm["scores"][m]) for m in metrics)])
    return _rows(head, rows)


def _score(score: Mapping[str, Any]) -> str:
    seeds = " ".join(f"{value:.1f}" for value in score["seeds"])
    several = f"; {seeds}" if len(score["seeds"]) > 1 else ""
    return f"**{score['mean']:.1f}** ({score['low']:.1f} to {score['high']:.1f}{several})"


def _differences(arms: Mapping[str, Any], metrics: Sequence[str]) -> str:
    rows = []
    for name, arm in arms.items():
        if arm["difference"]:
            gaps = [arm["difference"][m] for m in metrics]
            rows.append([name, *(f"{g['mean']:+.1f} ({g['low']:+.1f} to {g['high']:+.1f})" for g in gaps)])
    return _rows(["arm", *metrics], rows)


def _tuning(budgets: Mapping[str, Any]) -> str:
    rows = []
    for budget, arms in budgets.items():
        for name, arm in arms.items():
            for point in arm["tuning"]:
                values = " ".join(f"{key}={value:g}" for key, value in point["values"].items()) or "-"
                taken = "taken" if point["values"] == arm["chosen"] else ""
                val = f"{point['val']:.1f}" if point["seeds"] else "not tried"
                rows.append([budget, name, str(arm["steps"]), values, val, taken])
    return _rows(["budget", "arm", "steps", "values", "val", ""], rows)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
