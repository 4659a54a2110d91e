"""Results of studies as Markdown tables, and the three files that every study writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.core.display import visible

BUDGETS = {"steps": "At equal optimizer steps", "time": "At equal wall time"}

CELLS = (
    "Cells: mean over seeds (95 % confidence interval by hierarchical bootstrap over seeds and samples; value of each "
    "seed)."
)
DIFFERENCE = "Differences between arms, paired by seed and sample:"


def write_results(
    folder: Path, result: Mapping[str, Any], markdown: str, plot: Callable[[Mapping[str, Any], Path], None]
) -> None:
    """Write study.json, study.md and study.png (by `plot`) into `folder`, and print the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown = visible(markdown)  # the names of arms, tasks and metrics are the user's and those of plug-ins
    (folder / "study.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / "study.md").write_text(markdown, encoding="utf-8")
    plot(result, folder / "study.png")
    Console().print(markdown, markup=False, highlight=False, soft_wrap=True)
    print(f"written: {folder / 'study.json'}, study.md, study.png")


def compare_markdown(result: Mapping[str, Any]) -> str:
    """The result of `mmpost compare`: scores and differences for each budget, then the tuning."""
    metrics = shown_metrics(result)
    samples = ", ".join(f"{n} of {name}" for name, n in result["samples"].items())
    text = [
        f"# {result['task']} on {result['model']}",
        f"Evaluated on test samples: {samples}. Seeds: {len(result['seeds'])}. {CELLS}",
    ]
    for budget, arms in result["budgets"].items():
        base = [score(result["base"][name]) if name in result["base"] else "-" for name in metrics]
        rows = [["base", "0", "0", *base]]
        for name, arm in arms.items():
            seconds = sum(arm["seconds"]) / len(arm["seconds"])
            rows.append([name, str(arm["steps"]), f"{seconds:.0f}", *(score(arm["scores"][m]) for m in metrics)])
        text += [f"## {BUDGETS[budget]}", table(["arm", "steps", "seconds", *metrics], rows)]
        if len(arms) > 1:
            text += [DIFFERENCE, differences(arms, metrics)]
    text += ["## Tuning on val", tuning(result["budgets"])]
    return "\n\n".join(text) + "\n"


def continual_markdown(result: Mapping[str, Any]) -> str:
    """The result of `mmpost continual`: all measures of each arm and their meaning, differences, accuracy matrices."""
    arms, tasks, digits = result["arms"], result["tasks"], decimals(result)
    names = list(next(iter(arms.values()))["measures"])
    samples = ", ".join(f"{n} of {name} ({result['accuracy'][name]})" for name, n in result["samples"].items())
    rows = []
    for name, arm in arms.items():
        # The joint run may follow the tasks; it is not part of the sequence.
        seconds = sum(sum(seed[: len(tasks)]) for seed in arm["seconds"]) / len(arm["seconds"])
        scores = [score(arm["measures"][measure], digits) for measure in names]
        rows.append([name, str(sum(arm["steps"][: len(tasks)])), f"{seconds:.0f}", *scores])
    text = [
        f"# {', then '.join(tasks)}, on {result['model']}",
        "Each arm trains on the tasks in sequence, each run starting from the weights of the previous one, without "
        f"replay of old data. Accuracy on test samples: {samples}. Seeds: {len(result['seeds'])}. {CELLS}",
        "## After the last task",
        table(["arm", "steps", "seconds", *names], rows),
        "\n".join(f"- {name}: {result['meanings'][name]}." for name in names),
    ]
    if len(arms) > 1:
        text += [DIFFERENCE, differences(arms, names, digits)]
    for name, arm in arms.items():
        text += [f"## {name}: accuracy on each task, after each task", _matrix(result, arm, digits)]
    tuned = {name: {**arm, "steps": arm["steps"][0]} for name, arm in arms.items()}
    text += ["## Tuning on val of the first task", tuning({"steps": tuned})]
    return "\n\n".join(text) + "\n"


def shown_metrics(result: Mapping[str, Any]) -> list[str]:
    """The metrics to show: those the study names, else all."""
    return list(result["metrics"]) or list(result["base"])


def decimals(result: Mapping[str, Any]) -> int:
    """Decimals of accuracies: one for percentages, three for fractions."""
    means = [value["mean"] for arm in result["arms"].values() for value in arm["matrix"].values()]
    return 1 if max(map(abs, means)) > 2 else 3


def _matrix(result: Mapping[str, Any], arm: Mapping[str, Any], digits: int) -> str:
    columns = [*result["tasks"], *result["general"]]
    names = {"0": "base", **{str(t): f"{t}. {task}" for t, task in enumerate(result["tasks"], 1)}}
    names |= {"joint": "joint training"} if result["joint"] else {}
    rows = [
        [name, *(score(arm["matrix"][f"{row}/{k}"], digits) for k in range(1, len(columns) + 1))]
        for row, name in names.items()
    ]
    return table(["after", *columns], rows)


def score(value: Mapping[str, Any], digits: int = 1) -> str:
    """Mean, interval, and the value of each seed if there are several."""
    seeds = " ".join(f"{seed:.{digits}f}" for seed in value["seeds"])
    several = f"; {seeds}" if len(value["seeds"]) > 1 else ""
    return f"**{value['mean']:.{digits}f}** ({value['low']:.{digits}f} to {value['high']:.{digits}f}{several})"


def differences(arms: Mapping[str, Any], metrics: Sequence[str], digits: int = 1) -> str:
    """The paired difference of each arm to the arm it is compared with."""
    rows = []
    for name, arm in arms.items():
        if arm["difference"]:
            gaps = [arm["difference"][metric] for metric in metrics]
            cells = [f"{g['mean']:+.{digits}f} ({g['low']:+.{digits}f} to {g['high']:+.{digits}f})" for g in gaps]
            rows.append([f"{name} - {arm['against']}", *cells])
    return table(["arm", *metrics], rows)


def tuning(budgets: Mapping[str, Any]) -> str:
    """The points of each arm's grid for each budget, and which was chosen."""
    rows = []
    for budget, arms in budgets.items():
        for name, arm in arms.items():
            for point in arm["tuning"]:
                values = " ".join(f"{key}={value:g}" for key, value in point["values"].items()) or "-"
                val = f"{point['val']:.1f}" if point["seeds"] else "not tuned"
                chosen = "chosen" if point["values"] == arm["chosen"] else ""
                rows.append([budget, name, str(arm["steps"]), values, val, chosen])
    return table(["budget", "arm", "steps", "values", "val", ""], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
