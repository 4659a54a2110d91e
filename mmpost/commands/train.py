"""`mmpost train`: train a task, or resume a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.config import run_config
from mmpost.core.run_files import locked, new_folder, require_unused
from mmpost.runs.resume import resumable, run_folder
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
        with locked(run_folder(paths["resume"])):
            # The checkpoint is looked for only now: another process might have written a newer one.
            return Run(config, *resumable(paths["resume"])).train()
    folder = new_folder(paths.get("out"), config.task["name"])
    with locked(folder):
        require_unused(folder)
        return Run(config, folder).train()
