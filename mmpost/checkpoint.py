"""Checkpoints: a folder that transformers loads, with all that resuming needs in `trainer/` inside it.

A checkpoint is written beside its place, synced to disk and renamed: at every moment the newest one that has its name
is whole. Tensors are safetensors, or torch files read with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mmpost.errors import DataError
from mmpost.types import Model, Part, Reply, Sample

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
    final, aside = root / f"step-{step}", root / f".step-{step}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        model.save(aside)
        trainer = aside / "trainer"
        trainer.mkdir()
        (trainer / "state.json").write_text(json.dumps(snapshot.state, indent=1))
        torch.save(dict(snapshot.tensors), trainer / "tensors.pt")
        if getattr(model.module, "peft_config", None):
            trained = {k: p.detach().contiguous() for k, p in model.module.named_parameters() if p.requires_grad}
            save_file(trained, trainer / ADAPTERS)
        _sync(aside)
    except (OSError, RuntimeError) as e:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(f"the checkpoint of step {step} could not be written: {e}") from e
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    point(root / "last", final.name)
    _sync(root)
    return final


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
    for old in sorted(root.glob("step-*"), key=number)[:-keep]:
        if old.name not in pointed:
            shutil.rmtree(old)


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


def pack(samples: list[Sample] | None) -> list[dict[str, Any]] | None:
    """A rollout batch as plain data: of each sample what its source cannot give again. Floats survive JSON exactly."""
    if samples is None:
        return None
    return [{"uid": s.uid, "columns": dict(s.columns), "replies": [asdict(r) for r in s.replies]} for s in samples]


def unpack(packed: list[dict[str, Any]] | None, drawn: Mapping[str, Sample]) -> list[Sample] | None:
    """The rollout batch again; `drawn` has the samples by uid as they were drawn."""
    if packed is None:
        return None
    out = []
    for row in packed:
        replies = tuple(
            Reply(
                parts=tuple(Part(**p) for p in r["parts"]),
                origin=r["origin"],
                token_ids=None if r["token_ids"] is None else tuple(r["token_ids"]),
                scores=r["scores"],
                columns=r["columns"],
            )
            for r in row["replies"]
        )
        out.append(replace(drawn[row["uid"]], replies=replies, columns=row["columns"]))
    return out


def weights_hash(folder: str) -> str:
    """SHA-256 over the weight files of a folder, in order of name; empty for a hub id."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else ""


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink():
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
