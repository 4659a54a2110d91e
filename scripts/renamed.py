"""Write docs/renamed.md from mmpost/config/renamed.yaml; `--check` only checks whether it is up to date."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "renamed.md"
INTRO = """# Old names and new

What carried another name before. What a run stored under an old name still loads: `config.yaml`,
checkpoints, recordings, `mmpost_model.json`, lines of samples. A person who types an old setting is told the new one.
Made from `mmpost/config/renamed.yaml` by `python scripts/renamed.py`.
"""
TITLES = {
    "settings": "Settings",
    "task_settings": "Settings of tasks (`*`: of every task that has them)",
    "tasks": "Tasks",
    "models": "Models of mmpost's own",
    "metrics": "Metrics of the log",
    "classes": "Classes",
    "fields": "Fields, methods and arguments",
    "files": "What is written to disk",
    "modules": "Modules (without `mmpost.`)",
}


def page() -> str:
    """The page as text."""
    tables = yaml.safe_load((ROOT / "mmpost" / "config" / "renamed.yaml").read_text(encoding="utf-8"))
    assert tables.keys() == TITLES.keys(), "renamed.yaml and TITLES must have the same sections"
    out = [INTRO]
    for name, title in TITLES.items():
        out += [f"## {title}", "", "| old | new |", "|---|---|", *_rows(tables[name]), ""]
    return "\n".join(out)


def _rows(table: Mapping[str, Any], owner: str = "") -> list[str]:
    rows = []
    for old, new in table.items():
        prefix = f"{owner}: " if owner else ""
        rows += _rows(new, old) if isinstance(new, Mapping) else [f"| {prefix}`{old}` | `{new}` |"]
    return rows


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/renamed.md is out of date: run this script")
    PAGE.write_text(page(), encoding="utf-8")
