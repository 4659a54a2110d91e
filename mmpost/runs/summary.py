"""The outcome of a run: summary.json and the printed summary."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.core import run_files
from mmpost.training.evaluation import table

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


def print_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Print the scores of a finished run, its folder, and how to resume it if it was stopped."""
    console = Console()
    status = summary["status"]
    scores = {k: summary[f"eval_{k}"] for k in ("before", "after") if f"eval_{k}" in summary}
    if scores and status == "done":
        console.print(table("test split", scores))
    console.print(f"{status}: {folder}", highlight=False, soft_wrap=True)
    if status == "stopped":
        console.print(f"resume with: mmpost train resume={folder}", highlight=False, soft_wrap=True)
