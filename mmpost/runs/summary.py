"""The outcome of a run: summary.json and the printed summary."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.core import run_files
from mmpost.core.display import visible
from mmpost.listeners.files import SamplesLog
from mmpost.training.evaluation import Estimate, table
from mmpost.types import Bench, Sample

MAX_NAMED_ROWS = 100
"""Maximum number of skipped rows listed in the summary."""
LIBRARIES = ("mmpost", "torch", "torchvision", "transformers", "tokenizers", "peft", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}


def skipped_rows(messages: Iterable[str]) -> dict[str, Any]:
    """The summary's section on skipped rows, given a message for each; empty if none was skipped."""
    rows = list(dict.fromkeys(messages))
    return {"skipped": {"rows": len(rows), "named": rows[:MAX_NAMED_ROWS]}} if rows else {}


def write(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json into the run's folder."""
    run_files.write(folder / "summary.json", json.dumps(summary, indent=1).encode())


def write_evaluation(
    folder: Path, columns: Mapping[str, Mapping[str, Estimate]], samples: Sequence[Sample], settings: Mapping[str, Any]
) -> None:
    """Write what `mmpost report` shows of an evaluation: its metrics, by heading, and scored samples."""
    folder.mkdir(parents=True, exist_ok=True)
    log = SamplesLog()
    log.on_start(folder, {}, 0)
    log.on_samples(0, samples)
    write(folder, {"status": "done", "evaluations": columns, "settings": settings, "versions": versions()})


def forgotten(results: Mapping[str, Any], benches: Sequence[Bench]) -> dict[str, Any]:
    """The summary's section on lost knowledge, given the evaluations before and after; empty if none was lost."""
    sentences = list(_losses(results.get("eval_before", {}), results.get("eval_after", {}), benches))
    return {"forgotten": sentences} if sentences else {}


def _losses(before: Mapping[str, Estimate], after: Mapping[str, Estimate], benches: Sequence[Bench]) -> Iterator[str]:
    """A sentence for each bench of earlier knowledge whose metric got worse: its 95 % intervals do not overlap."""
    for bench in benches:
        name = f"{bench.name}/{bench.earlier_knowledge.removeprefix('-')}"
        if not bench.earlier_knowledge or name not in before or name not in after:
            continue
        old, new = before[name], after[name]
        lower_is_better = bench.earlier_knowledge.startswith("-")
        if new["low"] > old["high"] if lower_is_better else new["high"] < old["low"]:
            verb = "rose" if lower_is_better else "fell"
            yield (
                f"old knowledge was lost: {visible(name)} {verb} from {old['value']:.4g} to {new['value']:.4g} "
                "(the 95 % intervals do not overlap)"
            )


def print_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Print the scores of a finished run, what it forgot, its folder, and how to resume it if it was stopped."""
    console = Console()
    status = summary["status"]
    scores = {k: summary[f"eval_{k}"] for k in ("before", "after") if f"eval_{k}" in summary}
    if scores and status == "done":
        console.print(table("test split", scores))
        for line in summary.get("forgotten", ()):
            console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)
    for line in summary.get("notes", ()):
        console.print(f"note: {visible(line)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{status}: {folder}", highlight=False, soft_wrap=True)
    if status == "stopped":
        console.print(f"resume with: mmpost train resume={folder}", highlight=False, soft_wrap=True)
