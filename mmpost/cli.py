"""The command line: parses arguments and calls. Holds no defaults; imports torch only for commands that compute."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mmpost.core.display import fitted, visible
from mmpost.core.processes import end_with
from mmpost.errors import MmpostError

COMMANDS = {
    "train": "train a task: mmpost train task=visurf model=Qwen/Qwen2.5-VL-7B-Instruct optim.lr=1e-6",
    "eval": "evaluate a model or run on a task's test split, or on benchmarks: mmpost eval task=visurf model=RUN",
    "show": "samples and replies in the terminal: mmpost show task=visurf n=3, or mmpost show run=RUN step=100",
    "report": "one HTML page about a run, to open from disk: mmpost report RUN [out=FILE]",
    "check": "find mistakes before training: mmpost check task=visurf; with bench=a,b: which questions data.train has",
    "select": "measure a task's samples and write which to train on: mmpost select task=grpo by=rif out=FOLDER",
    "compare": "train the arms of a study against each other: mmpost compare task=visurf",
    "continual": "train tasks one after another, measure forgetting: mmpost continual study=digits arms=sft,rl seeds=3",
    "list": "tasks, rewards, objectives and other plug-ins; `mmpost list TASK` shows a task's settings",
    "predict": "replies to your prompts: mmpost predict model=RUN data.test=FILE_OR_FOLDER out=FILE.jsonl [task=...]",
    "diff": "compare two evaluations on benchmarks, question by question: mmpost diff A.json B.json [rule=strict]",
    "score": "score a file of replies by a task's rewards or a benchmark: mmpost score task=visurf answers=FILE.jsonl",
    "export": "a folder for plain transformers, adapters merged: mmpost export model=RUN out=FOLDER [dtype=bf16]",
    "new-task": "write a file with a working task to start from: mmpost new-task NAME [out=FOLDER]",
    "new-bench": "write a file with a working benchmark, and its test: mmpost new-bench NAME [out=FOLDER]",
    "doctor": "what works on this machine, and how to fix what does not",
}
MODULES = {
    "eval": "mmpost.commands.evaluate",
    "report": "mmpost.report.page",
    "check": "mmpost.checks.check",
    "compare": "mmpost.studies.compare",
    "continual": "mmpost.studies.continual",
    "list": "mmpost.commands.list_plugins",
    "new-task": "mmpost.commands.new_task",
    "new-bench": "mmpost.commands.new_task:new_bench",
}
"""Where a command's `main(arguments) -> exit code` is, if not in mmpost.commands.<command>; `:NAME` if not `main`."""
STRICT = ("train", "eval", "select", "check")
"""Commands whose arguments are a run's configuration: a wrong key is answered before torch is imported."""
NAMES_TASK = ("show", "predict", "score")
"""Commands with arguments of their own besides; of these, wrong keys of the task are answered before that."""


def parser() -> argparse.ArgumentParser:
    """The argument parser: a command, then its `key=value` arguments."""
    top = argparse.ArgumentParser(
        prog="mmpost",
        description="Post-training of multimodal models. Settings are key=value arguments; an unknown key is an error.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        meta = {
            "list": "[TASK]",
            "doctor": "",
            "new-task": "NAME",
            "new-bench": "NAME",
            "report": "RUN",
            "diff": "A B",
        }.get(name, "KEY=VALUE")
        sub.add_argument("arguments", nargs="*", metavar=meta or None, help="settings; out=DIR is where results go")
        sub.add_argument("--started-by", type=int, default=0, metavar="PID", help=argparse.SUPPRESS)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 on an error that has a message, 130 on Ctrl-C.

    With MMPOST_TRACEBACK set, errors are raised.
    """
    parsed = parser().parse_args(argv)
    try:
        if parsed.started_by:
            end_with(parsed.started_by)
        return _run(parsed.command, parsed.arguments)
    except (MmpostError, OSError) as e:
        if os.environ.get("MMPOST_TRACEBACK") or (isinstance(e, OSError) and e.filename is None):
            raise
        text = str(e) if isinstance(e, MmpostError) else f"{e.filename}: {e.strerror}; correct the path or its rights"
        print(f"mmpost: {visible(fitted(text))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mmpost: stopped", file=sys.stderr)
        return 130


def _run(command: str, arguments: Sequence[str]) -> int:
    if command == "select":
        arguments = [f"select.{argument}" if argument.startswith("by=") else argument for argument in arguments]
    from mmpost.config.parsing import refuse_repeated

    refuse_repeated(arguments)
    if command in NAMES_TASK:
        settings = [a for a in arguments if a.startswith(("task=", "task.", "config="))]
        strict = any(not a.startswith("task.") for a in settings)
    elif command in ("eval", "check") and any(a.startswith("bench=") for a in arguments):
        own = ("bench=", "sampling.", "blind=") if command == "eval" else ("bench=", "media=")
        settings, strict = ["task=grpo", *(a for a in arguments if not a.startswith(own))], True
    else:
        settings, strict = arguments, command in STRICT
    if strict:
        from mmpost.config import run_config

        run_config.check_early(run_config.load(settings)[0])
    module, _, function = MODULES.get(command, f"mmpost.commands.{command}").partition(":")
    return getattr(import_module(module), function or "main")(arguments)


if __name__ == "__main__":
    sys.exit(main())
