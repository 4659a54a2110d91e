"""How a run ended: summary.json, and what is said on the screen."""

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

NAMED = 100
"""Skipped rows that the summary names."""
LIBRARIES = ("mmpost", "torch", "torchvision", "transformers", "tokenizers", "peft", "numpy")


def versions() -> dict[str, str]:
    """Python's version, and those of the libraries that decide the numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}


def skipped_rows(told: Iterable[str]) -> dict[str, Any]:
    """What the summary says of rows that were left out, from a message for each; empty where there is none."""
    rows = list(dict.fromkeys(told))
    return {"skipped": {"rows": len(rows), "named": rows[:NAMED]}} if rows else {}


def write(folder: Path, summary: Mapping[str, Any]) -> None:
    """summary.json in the run's folder."""
    run_files.write(folder / "summary.json", json.dumps(summary, indent=1).encode())


def print_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """The scores of a run that is done, where its folder is, and how to go on where it was stopped."""
    console = Console()
    status = summary["status"]
    shown = {k: summary[f"eval_{k}"] for k in ("before", "after") if f"eval_{k}" in summary}
    if shown and status == "done":
        console.print(table("test split", shown))
    console.print(f"{status}: {folder}", highlight=False, soft_wrap=True)
    if status == "stopped":
        console.print(f"go on with: mmpost train resume={folder}", highlight=False, soft_wrap=True)
