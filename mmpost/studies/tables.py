"""Results of studies as Markdown tables, and the three files that every study writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.core.display import visible

BUDGETS = {
    "steps": "At equal optimizer steps",
    "time": "At equal wall time",
    "labels": "At equal presentations of labels",
    "tokens": "At equal tokens generated and trained",
}

CELLS = (
    "Cells: mean over seeds (95 % confidence interval over seeds and test samples; value of each seed). Seed k starts "
    "from base k."
)
DIFFERENCE = "Differences between arms, paired by seed and sample (95 % interval; SD over seeds):"


def write_results(
    folder: Path,
    result: Mapping[str, Any],
    markdown: str,
    plot: Callable[[Mapping[str, Any], Path], None],
    stem: str = "study",
) -> None:
    """Write STEM.json, STEM.md and STEM.png (by `plot`) into `folder`, and print the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown = visible(markdown)  # the names of arms, tasks and metrics are the user's and those of plug-ins
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / f"{stem}.md").write_text(markdown, encoding="utf-8")
    plot(result, folder / f"{stem}.png")
    Console().print(markdown, markup=False, highlight=False, soft_wrap=True)
    print(f"written: {folder / stem}.json, {stem}.md, {stem}.png")


def compare_markdown(result: Mapping[str, Any]) -> str:
    """The result of `mmpost compare`: scores and differences for each budget, then the tuning."""
    metrics = shown_metrics(result)
    samples = ", ".join(f"{n} of {name}" for name, n in result["samples"].items())
    text = [
        f"# {result['task']} on {result['model']}",
        f"Evaluated on test samples: {samples}. Seeds: {len(result['seeds'])}. {CELLS}",
        *claims_markdown(result),
    ]
    for budget, arms in result["budgets"].items():
        rows = []
        for level, scores in result["base"].items():
            base = [score(scores[name]) if name in scores else "-" for name in metrics]
            rows.append([f"base @ {level}" if level else "base", "0", *["-"] * 5, *base])
        for name, arm in arms.items():
            seconds = sum(arm["seconds"]) / len(arm["seconds"])
            spent = [f"{arm['spent'][kind]:,.0f}" for kind in ("labels", "rollouts", "generated", "trained")]
            scores = [score(arm["scores"][m]) if m in arm["scores"] else "-" for m in metrics]
            rows.append([name, str(arm["steps"]), f"{seconds:.0f}", *spent, *scores])
        head = ["arm", "steps", "seconds", "labels", "rollouts", "tokens generated", "tokens trained", *metrics]
        text += [f"## {BUDGETS[budget]}", table(head, rows)]
        if len(arms) > 1:
            text += [DIFFERENCE, differences(arms, metrics)]
    if relation := result["relation"]:
        rho, count = relation["correlation"], len(relation["runs"])
        text.append(
            f"Rank correlation of {relation['x']} and {relation['y']} over all {count} runs, at every rate that was "
            f"run, within each seed: {rho['mean']:+.2f} ({rho['low']:+.2f} to {rho['high']:+.2f})."
        )
    text += ["## Tuning on val", tuning(result["budgets"]), *_history(result)]
    return "\n\n".join(text) + "\n"


def claims_markdown(result: Mapping[str, Any]) -> list[str]:
    """The mechanism, and a table of what each claim predicted, what was measured, and the verdict.

    Empty without claims.
    """
    if not result["claims"]:
        return []
    rows = []
    for name, found in result["claims"].items():
        claim = found["claim"]
        where = f" @ {claim['at']}" if claim["at"] else ""
        gap = f"{claim['arm']} - {claim['against']}{where}, {claim['metric']}"
        gap += f" at equal {claim['matched']}" if claim["matched"] else ""
        control = " ".join(filter(None, [claim["control"], claim["control_metric"]]))
        outcome = found["verdict"] if not result["no_verdict"] else "no verdict"
        outcome += f" ({found['reason']})" if "reason" in found else ""
        cells = [gap_text(found.get(part)) for part in ("gap", "control", "effect")]
        cells[1] += f" {found['control_verdict']}" if "control_verdict" in found and not result["no_verdict"] else ""
        p = f"{found['p']:.2g}" if "p" in found else "-"
        power = f"{found['power']:.0%}" if found.get("power") is not None else "-"
        rows.append([name, gap, f"{claim['gap']:+g}", cells[0], control or "-", cells[1], cells[2], p, power, outcome])
    head = ["claim", "gap", "predicted", "with the cause", "control", "without", "interaction", "p (Holm)", "power"]
    text = ["## Claims", *filter(None, [result["mechanism"].strip()])]
    if result["no_verdict"]:
        text.append(f"No verdict: {result['no_verdict']}.")
    text.append(table([*head, "verdict"], rows))
    refuted = [
        f"- {n}: refuted by {f['claim']['refuted_by'].strip()}"
        for n, f in result["claims"].items()
        if f["claim"]["refuted_by"]
    ]
    text += ["\n".join(refuted)] if refuted else []
    levels = [level for found in result["claims"].values() for level in found["dose"]]
    if len(set(levels)) > 1:
        shown = list(dict.fromkeys(levels))
        doses = [[n, *(gap_text(f["dose"].get(level)) for level in shown)] for n, f in result["claims"].items()]
        text += ["The gap at each level of the dial:", table(["claim", *shown], doses)]
    if result["other_bases"]:
        names = ", ".join(result["other_bases"])
        text.append(f"From other weights than the same base has on this machine: {names}.")
    return text


def gap_text(value: Mapping[str, Any] | None, digits: int = 1) -> str:
    """A difference with its interval, and the SD over seeds if there are several."""
    if value is None:
        return "-"
    spread = "" if value.get("sd") is None else f"; SD {value['sd']:.{digits}f}"
    return f"{value['mean']:+.{digits}f} ({value['low']:+.{digits}f} to {value['high']:+.{digits}f}{spread})"


def _history(result: Mapping[str, Any]) -> list[str]:
    """What was tried before with other versions of the study."""
    if not result["history"]:
        return []
    lines = []
    for version in result["history"]:
        kind = "pilot" if version["pilot"] else "version"
        outcome = "; ".join(
            f"{name} {gap_text(found.get('effect'))}, predicted {found['claim']['gap']:+g}: {found['verdict']}"
            for name, found in version["outcome"].items()
        )
        seeds = ", ".join(map(str, version["seeds"]))
        lines.append(f"- {kind} {version['study_hash']}, seeds {seeds}: {outcome or 'not finished, or without claims'}")
    return ["## Earlier versions of this study", "\n".join(lines)]


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
    return list(result["metrics"]) or list(next(iter(result["base"].values())))


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
            gaps = [arm["difference"].get(metric) for metric in metrics]
            rows.append([f"{name} - {arm['against']}", *(gap_text(gap, digits) for gap in gaps)])
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
