"""`mmpost eval`: evaluate a model or run on a task's test split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.commands.eval_bench import ON_PAGE, eval_bench
from mmpost.config import registry, run_config
from mmpost.core import distributed
from mmpost.core.run_files import new_folder, require_unused, write
from mmpost.listeners.files import EvalLog
from mmpost.runs.configured_task import evaluated_tasks
from mmpost.runs.session import open_session
from mmpost.runs.summary import write_evaluation
from mmpost.training.evaluation import run_benches, select_benches, table
from mmpost.types import Sample


def main(arguments: Sequence[str]) -> int:
    """`mmpost eval`."""
    evaluate(arguments)
    return 0


def evaluate(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluate `model` on the task's test split: print a table, write eval.json, and return its content.

    Every reply is kept in eval/eval.jsonl beside it. The folder is `out`; without it the run that `model` names, or
    else a new folder, which `mmpost report` shows.
    `bench=a,b` evaluates on benchmarks instead, see `eval_bench`.
    """
    overrides = run_config.merged(arguments)
    if "bench" in overrides:
        return eval_bench(overrides)
    config, paths = run_config.load([overrides])
    model_path = Path(config.model.name)
    if "out" not in paths and (model_path / "checkpoints").is_dir():
        folder = model_path
    else:
        folder = new_folder(paths.get("out"), f"eval-{registry.label(config.task['name'])}")
        require_unused(folder)
    session = open_session(config)
    benches = select_benches(session.task, evaluated_tasks(config), config.eval, "test")
    is_main = distributed.rank() == 0
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
    replies = EvalLog()
    replies.on_start(folder, {}, 0)
    logged: list[Sample] = []

    def keep(bench: str, samples: Sequence[Sample]) -> None:
        if is_main:
            replies.on_eval("eval", bench, samples)
            logged.extend(samples[:ON_PAGE])

    scores = run_benches(session.context, benches, config.eval.max_samples, keep)
    result = {"model": str(model_path), "task": config.task, "scores": scores}
    if is_main:
        if folder != model_path:  # the page of a run shows its training
            write_evaluation(folder, {"test": scores}, logged, config.model_dump(mode="json"))
        write(folder / "eval.json", json.dumps(result, indent=1).encode())
        Console().print(table(f"{config.task['name']}, test split, {model_path}", {"": scores}))
        Console().print(f"written to {folder / 'eval.json'}", highlight=False, soft_wrap=True)
    distributed.stop()
    return result
