"""The command line: parses words and calls. Holds no defaults, and imports torch only for commands that compute."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mmpost.errors import MmpostError

COMMANDS = {
    "train": "train a task: mmpost train task=visurf model=Qwen/Qwen2.5-VL-7B-Instruct optim.lr=1e-6",
    "eval": "evaluate a model or run on a task's test split: mmpost eval task=visurf model=RUN",
    "show": "samples and replies in the terminal: mmpost show task=visurf n=3, or mmpost show run=RUN step=100",
    "report": "one HTML page about a run, to open from disk: mmpost report RUN [out=FILE]",
    "check": "find what is wrong before training (rows, media, rewards, model): mmpost check task=visurf",
    "select": "measure a task's samples, and write which to train on: mmpost select task=grpo by=rif out=FOLDER",
    "compare": "train arms of a study against each other: mmpost compare task=visurf arms=sft,grpo,visurf seeds=3",
    "continual": "tasks one after another, and what is forgotten: mmpost continual study=digits arms=sft,rl seeds=3",
    "list": "tasks, rewards, objectives and the other plug-ins; `mmpost list TASK` shows a task's settings",
    "predict": "replies to your prompts: mmpost predict model=RUN data.test=FILE_OR_FOLDER out=FILE.jsonl [task=...]",
    "score": "a file of answers by a task's rewards and metrics: mmpost score task=visurf answers=FILE.jsonl",
    "export": "a folder for plain transformers, adapters merged: mmpost export model=RUN out=FOLDER [dtype=bf16]",
    "new-task": "write a file that is a working task, to change into your own: mmpost new-task NAME [out=FOLDER]",
    "doctor": "what works on this machine, and what to do about what does not",
}


def parser() -> argparse.ArgumentParser:
    """The words that `mmpost` takes."""
    top = argparse.ArgumentParser(
        prog="mmpost",
        description="Post-training of multimodal models. Settings are key=value words; a wrong one is an error.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        meta = {"list": "[TASK]", "doctor": "", "new-task": "NAME", "report": "RUN"}.get(name, "KEY=VALUE")
        sub.add_argument("words", nargs="*", metavar=meta or None, help="settings; out=DIR is where results go")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 on an error that has a message, 130 on Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return globals()[f"_{args.command.replace('-', '_')}"](args.words)
    except MmpostError as e:
        if os.environ.get("MMPOST_TRACEBACK"):
            raise
        print(f"mmpost: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mmpost: stopped", file=sys.stderr)
        return 130


def _train(words: Sequence[str]) -> int:
    from mmpost.config import run_config

    run_config.load(words)  # a wrong key must not wait for torch
    from mmpost.runs.session import train

    return 130 if train(words)["status"] == "stopped" else 0


def _eval(words: Sequence[str]) -> int:
    from mmpost.config import run_config

    run_config.load(words)
    from mmpost.runs.session import evaluate

    evaluate(words)
    return 0


def _select(words: Sequence[str]) -> int:
    from mmpost.config import run_config

    words = [f"select.{word}" if word.startswith("by=") else word for word in words]
    run_config.load(words)
    from mmpost.commands.select import select

    select(words)
    return 0


def _predict(words: Sequence[str]) -> int:
    from mmpost.commands.predict import predict

    predict(words)
    return 0


def _score(words: Sequence[str]) -> int:
    from mmpost.commands.score import score

    score(words)
    return 0


def _export(words: Sequence[str]) -> int:
    from mmpost.commands.export import export

    print(f"written: {export(words)}")
    return 0


def _new_task(words: Sequence[str]) -> int:
    from mmpost.commands.new_task import write
    from mmpost.config import run_config
    from mmpost.errors import ConfigError

    names = [word for word in words if "=" not in word]
    given = run_config.parse_arguments([word for word in words if "=" in word], ("out",))
    if len(names) != 1:
        raise ConfigError(f"wanted one name, found {names}; write mmpost new-task NAME [out=FOLDER]")
    file = write(names[0], given.get("out", "."))
    shown = file if file.is_absolute() else f"./{file}"
    print(f"written: {file}")
    print(f"mmpost check task={shown} model=random-tiny")
    print(f"mmpost train task={shown} model=random-tiny steps=2")
    return 0


def _show(words: Sequence[str]) -> int:
    from mmpost.commands.show import main as show

    return show(words)


def _report(words: Sequence[str]) -> int:
    from mmpost.report.page import main as report

    return report(words)


def _check(words: Sequence[str]) -> int:
    from mmpost.config import run_config

    run_config.load(words)
    from mmpost.checks import check

    return check(words)


def _compare(words: Sequence[str]) -> int:
    from mmpost.studies.compare import compare

    compare(words)
    return 0


def _continual(words: Sequence[str]) -> int:
    from mmpost.studies.continual import continual

    continual(words)
    return 0


def _doctor(words: Sequence[str]) -> int:
    from mmpost.commands.doctor import main as doctor

    return doctor()


def _list(words: Sequence[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    from mmpost.config import registry

    console = Console()
    if words:
        return _list_task(words[0])
    tasks = Table("task", "what it learns", title="mmpost train task=...", title_justify="left", box=None)
    brought = {name: f"from {path}" for name, path in registry.installed("mmpost.tasks").items()}
    for name, doc in {**brought, **registry.modules("mmpost.tasks")}.items():
        tasks.add_row(f"[bold]{name}", doc)
    console.print(tasks)
    for package in ("objectives", "transforms", "rewards", "edits", "updates"):
        table = Table(package, "", title_justify="left", box=None)
        for mod, name, doc in registry.definitions(f"mmpost.{package}"):
            table.add_row(f"{mod}.{name}", doc)
        console.print()
        console.print(table)
    return 0


def _list_task(name: str) -> int:
    from rich.console import Console
    from rich.table import Table

    from mmpost.config import registry
    from mmpost.config.run_config import fields
    from mmpost.config.settings import Settings
    from mmpost.types import Task

    kind = registry.exported(registry.module(name, "mmpost.tasks"), Task)
    table = Table(
        "setting", "default", "meaning", title=f"task={registry.label(name)}: {(kind.__doc__ or '').strip()}", box=None
    )
    for path, info in fields(kind):
        if path.partition(".")[0] == "data":
            continue
        default = info.get_default(call_default_factory=True, validated_data={})
        value = "" if isinstance(default, Settings) or info.is_required() else str(default)
        table.add_row(f"task.{path}", value, info.description or "")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
