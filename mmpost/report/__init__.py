"""One HTML page about a run: curves, evaluations, settings and every logged reply. No server, no request, one file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mmpost.core import run_files
from mmpost.errors import ConfigError
from mmpost.report.collect import collect

SCRIPTS = ("base.js", "curves.js", "reply.js", "samples.js", "maps.js", "page.js")
MOST = 20_000
"""Replies on the page, unless more are asked for; of a longer run, evenly spaced steps are shown."""


def report(run: str, out: str | None = None, replies: int = MOST) -> Path:
    """Write the page about the run in the folder `run`, by default as report.html in it; returns where it lies."""
    folder = run_files.find(run)
    path = folder / "report.html" if out is None else Path(out)
    if path.is_dir():
        path = path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    beside.write_text(page(collect(folder, replies)), encoding="utf-8")
    os.replace(beside, path)
    return path


def page(content: dict[str, Any]) -> str:
    """The page around `content`. No text in it can become markup or run: the policy names the script by its hash."""
    script = "\n".join(_file(name) for name in SCRIPTS)
    pieces = {
        "style": _file("page.css"),
        "script": script,
        "hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": _embedded(content),
    }
    # In one pass, so that nothing inside a piece is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: pieces[found[1]], _file("page.html"))


def main(words: Sequence[str]) -> int:
    """`mmpost report RUN [out=FILE] [replies=20000]`"""
    named = dict(word.split("=", 1) for word in words if re.match(r"(out|replies)=", word))
    places = [word.removeprefix("run=") for word in words if not re.match(r"(out|replies)=", word)]
    if len(places) != 1:
        raise ConfigError(f"wanted one folder of a run, found {len(places)}: mmpost report RUN [out=FILE]")
    most = named.get("replies", str(MOST))
    if not most.isdecimal() or not int(most):
        raise ConfigError(f"replies={most}: wanted a number of replies, 1 or more")
    path = report(places[0], named.get("out"), int(most))
    print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _embedded(content: dict[str, Any]) -> str:
    """JSON in which no text can end the element that holds it."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
