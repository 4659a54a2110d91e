"""What a study of learning in sequence found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpost.studies.compare_tables import differences, score, table, tuning


def markdown(result: Mapping[str, Any]) -> str:
    """The measures of all arms, what they mean, their differences, and the matrix of each arm."""
    arms = result["arms"]
    names = list(next(iter(arms.values()))["measures"])
    digits = decimals(result)
    counts = ", ".join(f"{n} of {name} ({result['accuracy'][name]})" for name, n in result["samples"].items())
    text = [
        f"# {', then '.join(result['tasks'])}, on {result['model']}",
        f"Each arm learns the tasks one after another, each from the model that the last one left, without old data. "
        f"Accuracy on test samples: {counts}. Seeds: {len(result['seeds'])}. Mean over seeds, 95 % interval "
        "(bootstrap over seeds, and over samples within them), and the value of each seed.",
        "## What is left at the end",
        _measures(result, names, digits),
        "\n".join(f"- {name}: {result['meanings'][name]}." for name in names),
    ]
    if len(arms) > 1:
        text += ["Difference to another arm, paired by seed and sample:", differences(arms, names, digits)]
    for name, arm in arms.items():
        text += [f"## {name}: accuracy on each task, after each task", _matrix(result, arm, digits)]
    tuned = {name: {**arm, "steps": arm["steps"][0]} for name, arm in arms.items()}
    text += ["## Tuning on val of the first task", tuning({"steps": tuned})]
    return "\n\n".join(text) + "\n"


def decimals(result: Mapping[str, Any]) -> int:
    """One decimal for percent, three for shares."""
    means = [value["mean"] for arm in result["arms"].values() for value in arm["matrix"].values()]
    return 1 if max(map(abs, means)) > 2 else 3


def _measures(result: Mapping[str, Any], names: list[str], digits: int) -> str:
    rows, arms, t = [], result["arms"], len(result["tasks"])
    for name, arm in arms.items():
        seconds = sum(sum(seed[:t]) for seed in arm["seconds"]) / len(arm["seconds"])
        scores = [score(arm["measures"][one], digits) for one in names]
        rows.append([name, str(sum(arm["steps"][:t])), f"{seconds:.0f}", *scores])
    return table(["arm", "steps", "seconds", *names], rows)


def _matrix(result: Mapping[str, Any], arm: Mapping[str, Any], digits: int) -> str:
    columns = [*result["tasks"], *result["general"]]
    names = {"0": "base", **{str(t): f"{t}. {task}" for t, task in enumerate(result["tasks"], 1)}}
    names |= {"joint": "all at once"} if result["joint"] else {}
    rows = [
        [name, *(score(arm["matrix"][f"{row}/{k}"], digits) for k in range(1, len(columns) + 1))]
        for row, name in names.items()
    ]
    return table(["after", *columns], rows)
