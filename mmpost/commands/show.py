"""`mmpost show`: prints samples and replies, those of a task with the current model or those logged by a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mmpost.core import run_files
from mmpost.core.display import visible
from mmpost.errors import ConfigError

Line = Mapping[str, Any]
"""A logged reply (`mmpost.listeners.files.sample_lines`)."""

OPTIONS = ("n", "run", "step")
"""Arguments of the command; all others are settings."""
MAX_MARKS = 6
"""Marks that are printed of a reply or a truth."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """`mmpost show task=NAME [n=3] [SETTING=VALUE ...]`, or `mmpost show run=RUN [step=N] [n=3]`.

    Raises ConfigError for an invalid argument, a folder without a run, or a step without replies.
    """
    console = console or Console()
    options = dict(a.split("=", 1) for a in arguments if a.partition("=")[0] in OPTIONS and "=" in a)
    settings = [a for a in arguments if a.partition("=")[0] not in OPTIONS or "=" not in a]
    n = _number(options.get("n", "3"), "n")
    if "run" in options:
        if settings:
            raise ConfigError(f"unknown argument {settings[0]!r}: run=RUN can be combined with step=N and n=N only")
        step = _number(options["step"], "step") if "step" in options else None
        show_run(run_files.find(options["run"]), step, n, console)
    elif "step" in options:
        raise ConfigError("step=N needs a run: add run=RUN")
    else:
        show_task(settings, n, console)
    return 0


def show_run(run: Path, step: int | None, n: int, console: Console) -> None:
    """Print the first `n` groups of replies of a step, by default the last logged one."""
    files = run_files.replies_of(run)
    if not files:
        raise ConfigError(f"{run}: found no logged replies; train with log.samples_every=1 to log them at every step")
    chosen = max(files) if step is None else step
    if chosen not in files:
        nearest = min(files, key=lambda s: abs(s - chosen))
        raise ConfigError(f"step={chosen}: found no logged replies, the nearest is step={nearest}")
    groups = run_files.groups_of(run_files.read_samples(files[chosen]))
    console.print(Text(f"{run}, step {chosen}: {min(n, len(groups))} of {len(groups)} prompts", "bold"))
    for group in groups[:n]:
        _group(group, console)


def show_task(arguments: Sequence[str], n: int, console: Console) -> None:
    """Print `n` samples of each stage after its transforms, with the current model; nothing is trained."""
    from mmpost.config import run_config
    from mmpost.core import distributed
    from mmpost.listeners.files import sample_lines
    from mmpost.runs.session import open_session
    from mmpost.training.batches import RolloutBatcher
    from mmpost.types import GenerativeModel, RefillBatch

    session = open_session(run_config.load(arguments)[0])
    model = session.model
    token_strings = model.token_strings if isinstance(model, GenerativeModel) else None
    for stage in session.task.stages():
        transforms = tuple(replace(t, size=n) if isinstance(t, RefillBatch) else t for t in stage.transforms)
        session.preview_stage(stage)
        samples = RolloutBatcher(replace(stage, batch_size=n, transforms=transforms), session.context).next()
        title = (
            f"stage {visible(stage.name)}: {len(samples)} of {len(stage.source)} samples, {stage.batch_size} per step"
        )
        console.print(Text(title, "bold"))
        for number, sample in enumerate(samples[:n]):
            preview = model.preview(sample)
            lines = sample_lines(number, sample, token_strings, lambda part: None)
            _group(lines, console, preview.summary, preview.text)
    distributed.stop()


def _group(group: Sequence[Line], console: Console, summary: str = "", prompt: str | None = None) -> None:
    first = group[0]
    console.rule(Text(visible(first["uid"]), "bold"), align="left", characters="-")
    for part in first["prompt"]:
        if part["modality"] != "text":
            sizes = " ".join(f"{name}={value:g}" for name, value in part.get("sizes", {}).items())
            console.print(Text(visible(f"{part['modality']}  {sizes}  {part['name']}"), "magenta"))
            if part.get("sketch"):
                console.print(Padding(Text(visible(part["sketch"])), (0, 0, 0, 2)))
    if prompt is None:
        prompt = "\n".join(f"{p['role']}: {p['text']}" for p in first["prompt"] if p["modality"] == "text")
    console.print(Text(f"prompt {summary}".rstrip() + " (no loss)", "bold"))
    console.print(Padding(Text(visible(prompt.rstrip("\n")), "dim"), (0, 0, 0, 2)))
    if first["truth"] is not None:
        console.print(Text.assemble(("truth ", "bold"), visible(json.dumps(first["truth"], ensure_ascii=False))))
    _marks("truth marks", first.get("truth_marks", ()), console)
    if first.get("frame"):
        width, height = first["frame"]
        console.print(Text.assemble(("frame ", "bold"), f"coordinates in replies are in {width:g} x {height:g}"))
    for line in group:
        _reply(line, console)


def _reply(line: Line, console: Console) -> None:
    columns, loss_mask = line["columns"], mask(line)
    head = Text.assemble((visible(f"{line['origin']} "), "bold green" if line["origin"] == "truth" else "bold cyan"))
    for name in ("reward", "advantage"):
        value = columns.get(name)
        if isinstance(value, int | float):
            head.append(f" {name} {value:+.3g}" if name == "advantage" else f" {name} {value:.3g}")
    scores = ", ".join(f"{visible(name)} {value:.3g}" for name, value in line["scores"].items() if value is not None)
    head.append(f"  {scores}" if scores else "", "dim")
    if loss_mask:
        head.append(f"  loss on {sum(map(bool, loss_mask))} of {len(loss_mask)} tokens", "dim")
    console.print(head)
    console.print(Padding(coloured(line), (0, 0, 0, 2)))
    _marks("marks", line.get("marks", ()), console)


def _marks(title: str, marks: Sequence[Sequence[Any]], console: Console) -> None:
    """Print places in media as fractions of their sides; reports draw them."""
    shown = [
        f"{' '.join(filter(None, (shape, label)))} ({', '.join(f'{v:.3g}' for v in at)})"
        for shape, at, _, label in marks[:MAX_MARKS]
    ]
    if len(marks) > MAX_MARKS:
        shown.append(f"and {len(marks) - MAX_MARKS} more")
    if shown:
        console.print(Text.assemble((f"{title} ", "bold"), visible("; ".join(shown))))


def mask(line: Line) -> list[float]:
    """The loss mask of a reply's tokens, 0 for those without loss; empty if the reply has no tokens."""
    n = len(line["token_ids"] or ())
    value = line["columns"].get("mask", 1.0)
    return list(value) if isinstance(value, list) else [value] * n


def coloured(line: Line) -> Text:
    """The tokens of a reply: green if the advantage is positive, red if negative, blue if there is none.

    Tokens without loss are dim and in double brackets, which also show in a terminal without colors.
    """
    token_strings = line.get("pieces") or [line["text"]]
    loss_mask = mask(line) if line.get("pieces") else [1.0]
    advantage = line["columns"].get("advantage")
    values = advantage if isinstance(advantage, list) else [advantage] * len(token_strings)
    text, masked = Text(), False
    for token, has_loss, value in zip(token_strings, loss_mask, values, strict=True):
        if bool(has_loss) == masked:
            text.append("[[" if not has_loss else "]]", "dim")
            masked = not has_loss
        text.append(visible(token), _style(value) if has_loss else "dim")
    if masked:
        text.append("]]", "dim")
    return text


def _style(advantage: float | None) -> str:
    """Green or red by sign, bold for an absolute advantage of at least 1."""
    if advantage is None:
        return "blue"
    if not advantage:
        return ""
    return ("bold " if abs(advantage) >= 1 else "") + ("green" if advantage > 0 else "red")


def _number(text: str, name: str) -> int:
    if not text.isdecimal() or (name == "n" and not int(text)):
        raise ConfigError(f"{name}={text}: wanted a whole number")
    return int(text)
