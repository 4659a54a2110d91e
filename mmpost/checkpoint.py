"""Checkpoints: a folder that transformers loads, with the trainer's own state inside it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmpost.types import Model, Update


def save(root: Path, step: int, model: Model, update: Update | None, state: Mapping[str, Any], keep: int) -> Path:
    """Write root/step-N beside its place and rename it there; point root/last at it; drop all but the newest `keep`."""
    root.mkdir(parents=True, exist_ok=True)
    final, aside = root / f"step-{step}", root / f".step-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    model.save(aside)
    trainer = aside / "trainer"
    trainer.mkdir()
    (trainer / "state.json").write_text(json.dumps(state, indent=1))
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    torch.save({"update": update.state_dict() if update else {}, "rng": rng}, trainer / "update.pt")
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    point(root / "last", final.name)
    for old in sorted(root.glob("step-*"), key=number)[:-keep]:
        shutil.rmtree(old)
    return final


def number(folder: Path) -> int:
    """N of a folder step-N."""
    return int(folder.name.removeprefix("step-"))


def point(link: Path, target: str) -> None:
    """Make `link` a relative link to `target`, replacing an older one in one step."""
    aside = link.with_name(f".{link.name}")
    aside.unlink(missing_ok=True)
    os.symlink(target, aside)
    aside.replace(link)


def find(name: str) -> str:
    """The weights that `name` stands for: a run folder's last checkpoint, else the name as it is."""
    last = Path(name) / "checkpoints" / "last"
    return str(last) if last.exists() else name


def weights_hash(folder: str) -> str:
    """SHA-256 over the weight files of a folder, in order of name; empty for a hub id."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else ""
