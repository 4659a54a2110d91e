"""`mmpost show`: samples and replies in the terminal, of a task as it would train or of a run as it did."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mmpost.core import run_files
from mmpost.errors import ConfigError

Line = Mapping[str, Any]
"""One reply as the run's log has it (`mmpost.listeners.files.sample_lines`)."""

OWN = ("n", "run", "step")


def main(words: Sequence[str], console: Console | None = None) -> int:
    """`mmpost show task=NAME [n=3] [SETTING=VALUE ...]`, or `mmpost show run=RUN [step=N] [n=3]`.

    Raises ConfigError for a wrong word, a folder that is no run, a step without replies.
    """
    console = console or Console()
    own = dict(word.split("=", 1) for word in words if word.partition("=")[0] in OWN and "=" in word)
    rest = [word for word in words if word.partition("=")[0] not in OWN or "=" not in word]
    n = _number(own.get("n", "3"), "n")
    if "run" in own:
        if rest:
            raise ConfigError(f"unknown argument {rest[0]!r}: with run=RUN there are step=N and n=3")
        show_run(run_files.find(own["run"]), _number(own["step"], "step") if "step" in own else None, n, console)
    elif "step" in own:
        raise ConfigError("step=N shows a step of a run: add run=RUN")
    else:
        show_task(rest, n, console)
    return 0


def show_run(run: Path, step: int | None, n: int, console: Console) -> None:
    """The first `n` groups of replies of a step, by default the last that is in the log."""
    files = run_files.replies_of(run)
    if not files:
        raise ConfigError(f"{run} has no samples; log.samples_every=1 writes them at every step")
    chosen = max(files) if step is None else step
    if chosen not in files:
        nearest = min(files, key=lambda s: abs(s - chosen))
        raise ConfigError(f"step={chosen}: the log has no replies of that step, the nearest is step={nearest}")
    groups = run_files.groups_of(run_files.read_samples(files[chosen]))
    console.print(Text(f"{run}, step {chosen}: {min(n, len(groups))} of {len(groups)} prompts", "bold"))
    for group in groups[:n]:
        _group(group, console)


def show_task(arguments: Sequence[str], n: int, console: Console) -> None:
    """`n` samples of each stage, taken through its transforms by the model as it is now; nothing is trained."""
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
        few = tuple(replace(t, size=n) if isinstance(t, RefillBatch) else t for t in stage.transforms)
        session.preview_stage(stage)
        samples = RolloutBatcher(replace(stage, batch_size=n, transforms=few), session.context).next()
        title = f"stage {stage.name}: {len(samples)} of {len(stage.source)} samples, {stage.batch_size} a step"
        console.print(Text(title, "bold"))
        for number, sample in enumerate(samples[:n]):
            preview = model.preview(sample)
            lines = sample_lines(number, sample, token_strings, lambda part: None)
            _group(lines, console, preview.summary, preview.text)
    distributed.stop()


def _group(group: Sequence[Line], console: Console, about: str = "", read: str | None = None) -> None:
    first = group[0]
    console.rule(Text(plain(first["uid"]), "bold"), align="left", characters="-")
    for part in first["prompt"]:
        if part["modality"] != "text":
            sizes = " ".join(f"{name}={value:g}" for name, value in part.get("sizes", {}).items())
            console.print(Text(plain(f"{part['modality']}  {sizes}  {part['name']}"), "magenta"))
            if part.get("sketch"):
                console.print(Padding(Text(plain(part["sketch"])), (0, 0, 0, 2)))
    if read is None:
        read = "\n".join(f"{p['role']}: {p['text']}" for p in first["prompt"] if p["modality"] == "text")
    console.print(Text(f"prompt {about}".rstrip() + " (never trained)", "bold"))
    console.print(Padding(Text(plain(read.rstrip("\n")), "dim"), (0, 0, 0, 2)))
    if first["truth"] is not None:
        console.print(Text.assemble(("truth ", "bold"), plain(json.dumps(first["truth"], ensure_ascii=False))))
    if first.get("frame"):
        width, height = first["frame"]
        console.print(Text.assemble(("frame ", "bold"), f"replies write coordinates in {width:g} x {height:g}"))
    for line in group:
        _reply(line, console)


def _reply(line: Line, console: Console) -> None:
    columns, trained = line["columns"], mask(line)
    head = Text.assemble((f"{line['origin']} ", "bold green" if line["origin"] == "truth" else "bold cyan"))
    for name in ("reward", "advantage"):
        value = columns.get(name)
        if isinstance(value, int | float):
            head.append(f" {name} {value:+.3g}" if name == "advantage" else f" {name} {value:.3g}")
    scores = ", ".join(f"{name} {value:.3g}" for name, value in line["scores"].items() if value is not None)
    head.append(f"  {scores}" if scores else "", "dim")
    if trained:
        head.append(f"  trains {sum(map(bool, trained))} of {len(trained)} tokens", "dim")
    console.print(head)
    console.print(Padding(coloured(line), (0, 0, 0, 2)))


def mask(line: Line) -> list[float]:
    """For each token of a reply, 0 where it does not train; empty where the reply has no tokens."""
    n = len(line["token_ids"] or ())
    given = line["columns"].get("mask", 1.0)
    return list(given) if isinstance(given, list) else [given] * n


def coloured(line: Line) -> Text:
    """The tokens of a reply: green where the advantage is positive, red where negative, blue where there is none.

    Tokens that do not train are dim and stand in double brackets, so that a terminal without colours shows them, too.
    """
    pieces = line.get("pieces") or [line["text"]]
    trained = mask(line) if line.get("pieces") else [1.0]
    advantage = line["columns"].get("advantage")
    values = advantage if isinstance(advantage, list) else [advantage] * len(pieces)
    text, outside = Text(), False
    for piece, trains, value in zip(pieces, trained, values, strict=True):
        if bool(trains) == outside:
            text.append("[[" if not trains else "]]", "dim")
            outside = not trains
        text.append(plain(piece), _style(value) if trains else "dim")
    if outside:
        text.append("]]", "dim")
    return text


def _style(advantage: float | None) -> str:
    """Stronger from an advantage of 1."""
    if advantage is None:
        return "blue"
    if not advantage:
        return ""
    return ("bold " if abs(advantage) >= 1 else "") + ("green" if advantage > 0 else "red")


def plain(text: str) -> str:
    """`text` with its control characters as pictures: a reply may not move the cursor or colour the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"


def _number(text: str, name: str) -> int:
    if not text.isdecimal() or (name == "n" and not int(text)):
        raise ConfigError(f"{name}={text}: wanted a whole number")
    return int(text)
