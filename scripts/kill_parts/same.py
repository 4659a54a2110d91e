"""Whether two folders of runs hold the same: bit for bit, except for times."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

from mmpost.core.run_files import read_metrics

TIMES = ("wall", "wall_s", "seconds", "seconds_per_step")
PLACEHOLDER = b"a curve takes longer to draw than this run to train"
MOST = 12
"""Differences that are listed."""


def differences(run: Path, reference: Path, may_leave: str = "") -> list[str]:
    """What `run` has, lacks or holds otherwise than the uninterrupted `reference`.

    `may_leave`: the name of folders that may be left over.
    """
    found, wanted = entries(run), entries(reference)
    out = [f"left over: {name}" for name in sorted(found - wanted) if may_leave not in Path(name).parts]
    out += [f"missing: {name}" for name in sorted(wanted - found)]
    for name in sorted(found & wanted):
        a, b = run / name, reference / name
        if a.is_symlink() or b.is_symlink():
            targets = [os.readlink(link) if link.is_symlink() else "no link" for link in (a, b)]
            if targets[0] != targets[1]:
                out.append(f"{name} -> {targets[0]}, wanted {targets[1]}")
        elif b.is_file():
            out += [f"{name}: {text}" for text in _difference(a, b)]
    for folder in {(reference / name).parent for name in wanted if Path(name).parent.name == "tensorboard"}:
        out += _scalars_differ(run / folder.relative_to(reference), folder)
    return out if len(out) <= MOST else [*out[:MOST], f"and {len(out) - MOST} more"]


def entries(folder: Path) -> set[str]:
    """Relative paths of everything in `folder`, without following links. Event files of TensorBoard count as one."""
    names = set()
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            relative = (Path(path) / name).relative_to(folder)
            names.add(str(relative.parent / "events") if name.startswith("events.out.") else str(relative))
    return names


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file, except locks, to see whether a process touched anything."""
    return {
        name: ((status := (folder / name).lstat()).st_size, status.st_mtime_ns)
        for name in entries(folder)
        if not name.endswith((".lock", "/events")) and not ((folder / name).is_dir())
    }


def _difference(a: Path, b: Path) -> Iterator[str]:
    """A sentence for each way in which the content of file `a` is not that of `b`."""
    if b.name == "events":
        return
    compare = COMPARE.get(b.name) or COMPARE.get(b.suffix) or Path.read_bytes
    try:
        found = compare(a)
    except Exception as e:  # noqa: BLE001  (whatever a damaged file causes)
        yield f"cannot be read: {type(e).__name__}: {e}"
        return
    wanted = compare(b)
    if found == wanted:
        return
    if isinstance(wanted, list) and isinstance(found, list):
        at = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), len(wanted))
        yield f"{len(found)} lines, wanted {len(wanted)}; the first difference is in line {at + 1}"
    elif isinstance(wanted, dict) and isinstance(found, dict):
        names = [k for k in {**wanted, **found} if wanted.get(k) != found.get(k)]
        yield f"other values of {', '.join(map(str, names))}: {[found.get(k) for k in names]!r:.200}"
    else:
        yield f"other content ({a.stat().st_size} bytes, wanted {b.stat().st_size})"


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return _without_times(json.loads(path.read_text()))


def _metrics(path: Path) -> list[dict[str, Any]]:
    lines = read_metrics(path.parent)
    if len(path.read_text().splitlines()) != len(lines):
        raise ValueError("it has incomplete or empty lines")
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def _picture(path: Path) -> bool:
    """Whether a plot is complete; its content has times. Runs that draw none write a placeholder."""
    if path.read_bytes() != PLACEHOLDER:
        with Image.open(path) as image:
            image.load()
    return True


def _database(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(database.execute("SELECT * FROM logp"))


def _nonempty(path: Path) -> bool:
    return path.stat().st_size > 0


COMPARE: dict[str, Callable[[Path], Any]] = {
    "summary.json": _json,
    "state.json": _json,
    "study.json": _json,
    "metrics.jsonl": _metrics,
    "curves.png": _picture,
    "study.png": _picture,
    "study.md": _nonempty,
    ".json": _json,
    ".log": _nonempty,
    ".sqlite": _database,
}
"""How files are read that are not compared byte for byte, by name or suffix."""


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of the event files in `folder`: for each curve its values by step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    shown: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.*"), key=lambda f: f.stat().st_mtime_ns):
        for event in EventFileLoader(str(file)).Load():
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                # It hides what earlier files hold from this step on.
                for values in shown.values():
                    for step in [s for s in values if s >= event.step]:
                        del values[step]
            for value in event.summary.value:
                if value.HasField("tensor") and value.tensor.float_val:
                    shown.setdefault(value.tag, {})[event.step] = value.tensor.float_val[0]
    return {name: values for name, values in shown.items() if values and not name.startswith("time/")}


def _scalars_differ(run: Path, reference: Path) -> list[str]:
    found, wanted = scalars(run), scalars(reference)
    if found == wanted:
        return []
    steps = {name: sorted(found.get(name, {})) for name in wanted if found.get(name) != wanted[name]}
    return [
        f"{run.name}: TensorBoard shows other curves; steps {next(iter(steps.items()), found.keys() - wanted)!r:.200}"
    ]
