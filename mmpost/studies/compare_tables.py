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
        text += [f"## {TITLES[budget]}", _scores(result, arms, metrics)]
        if len(arms) > 1:
            text += ["Difference to another arm, paired by seed and sample:", differences(arms, metrics)]
    text += ["## Tuning on val", tuning(result["budgets"])]
    return "\n\n".join(text) + "\n"


def shown(result: Mapping[str, Any]) -> list[str]:
    """The metrics to show: those that the study names, else all."""
    return list(result["metrics"]) or list(result["base"])


def _scores(result: Mapping[str, Any], arms: Mapping[str, Any], metrics: Sequence[str]) -> str:
    head = ["arm", "steps", "seconds", *metrics]
    rows = [["base", "0", "0", *(score(result["base"][m]) if m in result["base"] else "-" for m in metrics)]]
    for name, arm in arms.items():
        seconds = sum(arm["seconds"]) / len(arm["seconds"])
        rows.append([name, str(arm["steps"]), f"{seconds:.0f}", *(score(arm["scores"][m]) for m in metrics)])
    return table(head, rows)


def score(found: Mapping[str, Any], digits: int = 1) -> str:
    """Mean, interval and the seeds' values."""
    seeds = " ".join(f"{value:.{digits}f}" for value in found["seeds"])
    several = f"; {seeds}" if len(found["seeds"]) > 1 else ""
    return f"**{found['mean']:.{digits}f}** ({found['low']:.{digits}f} to {found['high']:.{digits}f}{several})"


def differences(arms: Mapping[str, Any], metrics: Sequence[str], digits: int = 1) -> str:
    """The `difference` of each arm that has one, to the arm behind the minus."""
    rows = []
    for name, arm in arms.items():
        if arm["difference"]:
            gaps = [[arm["difference"][m][of] for of in ("mean", "low", "high")] for m in metrics]
            told = [[f"{value:+.{digits}f}" for value in gap] for gap in gaps]
            rows.append([f"{name} - {arm['against']}", *(f"{mean} ({low} to {high})" for mean, low, high in told)])
    return table(["arm", *metrics], rows)


def tuning(budgets: Mapping[str, Any]) -> str:
    """What was tried for each arm of each budget, and what was taken."""
    rows = []
    for budget, arms in budgets.items():
        for name, arm in arms.items():
            for point in arm["tuning"]:
                values = " ".join(f"{key}={value:g}" for key, value in point["values"].items()) or "-"
                taken = "taken" if point["values"] == arm["chosen"] else ""
                val = f"{point['val']:.1f}" if point["seeds"] else "not tried"
                rows.append([budget, name, str(arm["steps"]), values, val, taken])
    return table(["budget", "arm", "steps", "values", "val", ""], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
