"""`mmpost report`: one HTML page about a run with curves, evaluations, settings and logged replies.

The page is a single file that opens from disk: it needs no server and makes no request.
"""

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
MAX_REPLIES = 20_000
"""Default maximum of replies on the page; of longer runs it shows evenly spaced steps."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost report RUN [out=FILE] [replies=20000]`"""
    options = dict(argument.split("=", 1) for argument in arguments if re.match(r"(out|replies)=", argument))
    runs = [argument.removeprefix("run=") for argument in arguments if not re.match(r"(out|replies)=", argument)]
    if len(runs) != 1:
        raise ConfigError(f"wanted one run folder, found {len(runs)}; run mmpost report RUN [out=FILE]")
    replies = options.get("replies", str(MAX_REPLIES))
    if not replies.isdecimal() or not int(replies):
        raise ConfigError(f"replies={replies}: wanted a positive number of replies")
    path = write_report(runs[0], options.get("out"), int(replies))
    print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0


def write_report(run: str, out: str | None = None, replies: int = MAX_REPLIES) -> Path:
    """Write the page about the run in the folder `run` to `out` (by default report.html in the run's folder).

    Returns the page's path. Raises ConfigError for a folder without a run.
    """
    folder = run_files.find(run)
    path = folder / "report.html" if out is None else Path(out)
    if path.is_dir():
        path = path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # Half of a surrogate pair, which a token may end in, becomes the escape that JSON has for it.
    partial.write_bytes(render(collect(folder, replies)).encode("utf-8", "backslashreplace"))
    os.replace(partial, path)
    return path


def render(content: dict[str, Any]) -> str:
    """The HTML page for `content` (see `collect`).

    A run's texts cannot become markup or scripts: the page builds its elements from JSON, and its content security
    policy allows only the script with this hash.
    """
    script = "\n".join(_resource(name) for name in SCRIPTS)
    placeholders = {
        "style": _resource("page.css"),
        "script": script,
        "hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": _embedded_json(content),
    }
    # In one pass, so that a placeholder inside a run's texts is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: placeholders[match[1]], _resource("page.html"))


def _resource(name: str) -> str:
    return resources.files("mmpost.report").joinpath(name).read_text(encoding="utf-8")


def _embedded_json(content: dict[str, Any]) -> str:
    """JSON that cannot close the script element around it."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
