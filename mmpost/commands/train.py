"""`mmpost train`: train a task, or resume a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import new_folder
from mmpost.runs.resume import resumable
from mmpost.runs.run import Run


def main(arguments: Sequence[str]) -> int:
    """`mmpost train`; returns 130 if a signal stopped the run."""
    return 130 if train(arguments)["status"] == "stopped" else 0


def train(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Train as configured, or resume the run that `resume` names; returns the content of summary.json.

    `arguments`: `key=value` strings or nested mappings; later ones take precedence.
    """
    config, paths = run_config.load(arguments)
    if "resume" in paths:
        folder, checkpoint = resumable(paths["resume"])
    else:
        folder, checkpoint = new_folder(paths.get("out"), config.task["name"]), None
    return Run(config, folder, checkpoint).train()
