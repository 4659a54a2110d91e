"""`mmpost list`: the tasks and other plug-ins, the benchmarks, or the settings of one task."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmpost.config import registry, source
from mmpost.core.display import visible


def main(arguments: Sequence[str]) -> int:
    """`mmpost list`, `mmpost list benches`, or `mmpost list TASK`."""
    if [*arguments] == [registry.BENCHES]:
        list_benches(Console())
    elif arguments:
        list_task(arguments[0], Console())
    else:
        list_plugins(Console())
    return 0


def list_plugins(console: Console) -> None:
    """Print the tasks and the other plug-ins, each with the first line of its docstring. Imports none of them."""
    tasks = Table("task", "description", title="mmpost train task=...", title_justify="left", box=None)
    for name, doc in {**registry.installed_docs("mmpost.tasks"), **registry.modules("mmpost.tasks")}.items():
        tasks.add_row(Text(visible(name), "bold"), Text(visible(doc)))
    console.print(tasks)
    for package in registry.INTERFACES:
        table = Table(package, "description", title_justify="left", box=None)
        for module, name, doc in registry.plugins(f"mmpost.{package}"):
            table.add_row(f"{module}.{name}", Text(visible(doc)))
        console.print()
        console.print(table)


def list_benches(console: Console) -> None:
    """Print the benchmarks, each with the first line of its docstring. Imports none of them."""
    package = f"mmpost.tasks.{registry.BENCHES}"
    table = Table("bench", "description", title="mmpost score bench=...", title_justify="left", box=None)
    for name, doc in {**registry.installed_docs(package), **registry.modules(package)}.items():
        table.add_row(Text(visible(name), "bold"), Text(visible(doc)))
    console.print(table)


def list_task(name: str, console: Console) -> None:
    """Print every setting of a task with its default and documentation, parsed from its source."""
    module, task = source.task_source(name)
    title = Text(visible(f"task={registry.label(name)}: {source.class_doc(module, task).strip()}"))
    table = Table("setting", "default", "description", title=title, box=None)
    for setting in source.settings(module, task):
        if setting.path.partition(".")[0] != "data":
            table.add_row(*(Text(visible(text)) for text in (f"task.{setting.path}", setting.default, setting.doc)))
    console.print(table)
