"""Checkpoints: a folder that transformers loads, with all that resuming needs in `trainer/` inside it.

A checkpoint is written beside its place, synced to disk and renamed: what is called step-N is whole at every moment,
also while it is replaced or deleted, and `last` leads to the newest that was finished (`newest`). What a kill leaves
behind has a hidden name and goes with the next save. Tensors are safetensors, or torch files read with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mmpost.core import distributed
from mmpost.errors import DataError
from mmpost.types import Model

ADAPTERS = "adapters.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds besides the weights that transformers loads."""

    state: Mapping[str, Any]
    """Plain data: step, stage, cursor, results so far."""
    tensors: Mapping[str, Any]
    """State of the update, random generators of all ranks, kept weights."""


def save(root: Path, step: int, model: Model, snapshot: Snapshot) -> Path:
    """Write root/step-N and point root/last at it. Raises OSError (a full disk) with older checkpoints untouched."""
    root.mkdir(parents=True, exist_ok=True)
    _settle(root)
    aside = root / f".step-{step}"
    try:
        model.save(aside)
        trainer = aside / "trainer"
        trainer.mkdir()
        (trainer / "state.json").write_text(json.dumps(snapshot.state, indent=1))
        torch.save(dict(snapshot.tensors), trainer / "tensors.pt")
        if getattr(model.module, "peft_config", None):
            trained = {k: p.detach().contiguous() for k, p in model.module.named_parameters() if p.requires_grad}
            save_file(trained, trainer / ADAPTERS)
        for path in (*aside.rglob("*"), aside):
            _sync(path)
    except (OSError, RuntimeError) as e:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(f"the checkpoint of step {step} could not be written: {e}") from e
    return _place(aside)


def _place(aside: Path) -> Path:
    """Give the whole checkpoint .step-N its name, in the place of an older step-N; goes on where a kill cut it off.

    A folder cannot be replaced in one step: while step-N is away, `last` leads to .step-N. Between the two renames and
    the link, `newest` knows that a .step-N that is gone is called step-N now.
    """
    root, final = aside.parent, aside.with_name(aside.name[1:])
    away = None
    if aside.exists():
        if final.exists():
            set_link(root / "last", aside.name)
            _sync(root)
            away = _away(final)
        aside.rename(final)
    set_link(root / "last", final.name)
    _sync(root)
    if away is not None:
        shutil.rmtree(away, ignore_errors=True)
    return final


def _settle(root: Path) -> None:
    """Finish what a kill cut off: a checkpoint that `last` knows by its hidden name; delete all else that is hidden."""
    last = root / "last"
    aside = root / os.readlink(last) if last.is_symlink() else last
    if aside.name.startswith(".step-") and (aside.exists() or aside.with_name(aside.name[1:]).exists()):
        _place(aside)
    for left in root.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def _away(folder: Path) -> Path:
    """Rename to a hidden name that is free: half a folder never has the name of a whole one."""
    return folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}"))


def newest(root: Path) -> Path | None:
    """The checkpoint that `last` leads to; where it leads nowhere, the newest whole one, and a line says so.

    Only looks, so that all ranks and other processes may ask.
    """
    last = root / "last"
    target = os.readlink(last) if last.is_symlink() else ""
    moved = root / target.removeprefix(".")
    if last.exists():
        return last.resolve()
    if target.startswith(".step-") and moved.is_dir():
        return moved.resolve()
    found = next((f for f in sorted(_steps(root), key=step_of, reverse=True) if _whole(f)), None)
    if found is not None and distributed.rank() == 0:
        why = f"leads to {target}, which is not there" if target else "is missing"
        print(f"mmpost: {last} {why}; taking {found.name}, the newest whole checkpoint", file=sys.stderr)
    return None if found is None else found.resolve()


def _whole(folder: Path) -> bool:
    """Whether all files are there and as long as they say; for what a save of mmpost has not vouched for."""
    weights = [*folder.glob("*.safetensors"), *(folder / "trainer").glob("*.safetensors")]
    try:
        json.loads((folder / "trainer" / "state.json").read_text())
        for file in weights:
            with safe_open(file, "pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights) and zipfile.is_zipfile(folder / "trainer" / "tensors.pt")


def stamp(snapshot: Snapshot) -> str:
    """Equal for two snapshots of a run at one step, and so with the same weights, that differ in seconds at most."""
    text = json.dumps({k: v for k, v in snapshot.state.items() if k != "wall_s"})
    draws = b"".join(state.numpy().tobytes() for state in snapshot.tensors["rng"])
    return hashlib.sha256(text.encode() + draws).hexdigest()


def load(folder: Path) -> Snapshot:
    """Read a checkpoint back. Raises DataError naming the file that is missing or broken."""
    state, tensors = folder / "trainer" / "state.json", folder / "trainer" / "tensors.pt"
    try:
        return Snapshot(json.loads(state.read_text()), torch.load(tensors, map_location="cpu", weights_only=True))
    except (OSError, ValueError, RuntimeError, EOFError, KeyError) as e:
        raise DataError(
            f"{folder} is no whole checkpoint ({type(e).__name__}: {e}); name an older one, RUN/checkpoints/step-N"
        ) from e


def load_adapters(folder: Path, module: torch.nn.Module) -> None:
    """Give adapters that are in place the weights of a checkpoint."""
    weights = load_file(folder / "trainer" / ADAPTERS)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name in weights:
                p.copy_(weights[name])


def prune(root: Path, keep: int) -> None:
    """Drop all but the newest `keep` checkpoints; those that a link points at (last, best) stay."""
    pointed = {link.resolve().name for link in root.iterdir() if link.is_symlink()}
    for old in sorted(_steps(root), key=step_of)[:-keep]:
        if old.name not in pointed:
            shutil.rmtree(_away(old))


def _steps(root: Path) -> list[Path]:
    return [f for f in root.glob("step-*") if f.name.removeprefix("step-").isdecimal()]


def step_of(folder: Path) -> int:
    """N of a folder step-N."""
    return int(folder.name.removeprefix("step-"))


def set_link(link: Path, target: str) -> None:
    """Make `link` a relative link to `target`, replacing an older one in one step."""
    aside = link.with_name(f".{link.name}")
    aside.unlink(missing_ok=True)
    os.symlink(target, aside)
    aside.replace(link)


def resolve_weights(name: str) -> str:
    """The weights that `name` stands for: a run folder's last checkpoint, else the name as it is."""
    return str(newest(Path(name) / "checkpoints") or name)


def weights_hash(folder: str) -> str:
    """SHA-256 over the weight files of a folder, in order of name; empty for a hub id."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else ""


def _sync(path: Path) -> None:
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
