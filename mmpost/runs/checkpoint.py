"""Checkpoints: a folder that transformers can load, with everything needed to resume in its subfolder `trainer/`.

Writing is atomic: a checkpoint is written under a hidden name, synced to disk and renamed. A folder named step-N is
therefore complete at every moment, even while it is replaced or deleted, and the link `last` points to the newest one
(`newest`). Leftovers of a kill have hidden names and are deleted by the next save. Weights are safetensors; other
tensors are torch files, read with `weights_only`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import sys
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mmpost.core import distributed
from mmpost.core.run_files import StateFile, first_reason
from mmpost.errors import DataError, TrainError
from mmpost.models.loading import require_all_weights, require_finite, shortened
from mmpost.types import Model

ADAPTERS = "adapters.safetensors"
OLDER = "use an older one, such as RUN/checkpoints/step-N"
TENSORS: Mapping[str, type] = {"update": dict, "kept": dict, "rng": list}
"""Entries of tensors.pt that resuming needs, and their types."""
ALMOST_FULL = 1 << 20
"""Free bytes below which a failed save is put down to the disk."""


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint contains besides the weights that transformers loads."""

    state: Mapping[str, Any]
    """JSON: step, stage, progress, results so far."""
    tensors: Mapping[str, Any]
    """State of the update, random generators of all ranks, reference weights."""


def save(root: Path, step: int, model: Model, snapshot: Snapshot) -> Path:
    """Write root/step-N and point root/last at it; returns its folder.

    Raises OSError if writing fails (a full disk); older checkpoints are unaffected.
    """
    root.mkdir(parents=True, exist_ok=True)
    recover(root)
    hidden = root / f".step-{step}"
    try:
        model.save(hidden)
        trainer = hidden / "trainer"
        trainer.mkdir()
        (trainer / "state.json").write_text(json.dumps(snapshot.state, indent=1))
        torch.save(dict(snapshot.tensors), trainer / "tensors.pt")
        if getattr(model.module, "peft_config", None):
            # All trainable parameters by their names in the module; resuming loads them after adding the adapters.
            trainable = {k: p.detach().contiguous() for k, p in model.module.named_parameters() if p.requires_grad}
            save_file(trainable, trainer / ADAPTERS)
        for path in (*hidden.rglob("*"), hidden):
            _sync(path)
    except (OSError, RuntimeError, SafetensorError) as e:
        # Measured before the incomplete checkpoint is deleted. Not every library tells why writing failed.
        full = is_disk_full(e) or shutil.disk_usage(root).free < ALMOST_FULL
        shutil.rmtree(hidden, ignore_errors=True)
        reason = f"disk full: {root} has no room for it ({shortened(e, 100)})" if full else shortened(e)
        raise OSError(f"the checkpoint of step {step} could not be written: {reason}") from e
    return _place(hidden)


def _place(hidden: Path) -> Path:
    """Rename the complete checkpoint .step-N to step-N, replacing an older one; also finishes after a kill.

    POSIX cannot replace a folder atomically, so `last` points to .step-N while no step-N exists:
    (1) last -> .step-N, (2) step-N -> .step-N.<random>, (3) .step-N -> step-N, (4) last -> step-N. A kill after (1) or
    (2) leaves `last` valid; after (3) it dangles, and `newest` then looks for step-N without the dot.
    """
    root, final = hidden.parent, hidden.with_name(hidden.name[1:])
    replaced = None
    if hidden.exists():
        if final.exists():
            set_link(root / "last", hidden.name)
            # The link must be on disk before the old folder moves: renames may reach the disk in another order.
            _sync(root)
            replaced = _hide(final)
        hidden.rename(final)
    set_link(root / "last", final.name)
    _sync(root)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)
    return final


def recover(root: Path) -> None:
    """Finish a replacement that a kill interrupted (`last` points to a hidden name); delete other hidden folders."""
    last = root / "last"
    target = root / os.readlink(last) if last.is_symlink() else last
    if target.name.startswith(".step-") and (target.exists() or target.with_name(target.name[1:]).exists()):
        _place(target)
    for leftover in (*root.glob(".step-*"), *root.glob(".last.*"), *root.glob(".best.*")):
        shutil.rmtree(leftover, ignore_errors=True)
    for link in ("last", "best"):
        _temporary(root / link).unlink(missing_ok=True)


def _hide(folder: Path) -> Path:
    """Rename a folder to an unused hidden name, before deleting it: a partly deleted one must not be named step-N."""
    return folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex}"))


def newest(root: Path) -> Path | None:
    """The checkpoint that `last` points to, else (with a warning) the newest complete one; None without any.

    Changes nothing on disk, so that all ranks and other processes may call it.
    """
    last = root / "last"
    target = _target(last)
    renamed = root / target.removeprefix(".")
    if last.is_dir() and (last.is_symlink() or _is_complete(last)):
        return last.resolve()
    if target and not last.is_symlink() and (root / target).is_dir():
        return (root / target).resolve()
    if target.startswith(".step-") and renamed.is_dir():
        # A kill came between renaming the folder and updating the link; see `_place`.
        return renamed.resolve()
    complete = next((f for f in sorted(_steps(root), key=step_of, reverse=True) if _is_complete(f)), None)
    if complete is not None and distributed.rank() == 0:
        reason = f"points to {target}, which does not exist" if target else "is missing"
        print(f"mmpost: {last} {reason}; using {complete.name}, the newest complete checkpoint", file=sys.stderr)
    return None if complete is None else complete.resolve()


def _target(last: Path) -> str:
    """The name that the link `last` points to; empty where it is none.

    A copy of a run may hold a folder in its place, or a file with the name.
    """
    if last.is_symlink():
        return os.readlink(last)
    text = last.read_bytes()[:100].decode(errors="replace").strip() if last.is_file() else ""
    return text if re.fullmatch(r"step-\d+", text) else ""


def _is_complete(folder: Path) -> bool:
    """Whether all files exist and are complete; a folder may have been copied or damaged after it was saved."""
    weights = [*folder.glob("*.safetensors"), *(folder / "trainer").glob("*.safetensors")]
    state = folder / "trainer" / "state.json"
    if not state.is_file():
        return False
    try:
        json.loads(state.read_text())
        for file in weights:
            with safe_open(file, "pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights) and zipfile.is_zipfile(folder / "trainer" / "tensors.pt")


def stamp(snapshot: Snapshot) -> str:
    """A hash of a snapshot without its wall-clock time.

    Two snapshots of a run with the same stamp are of the same step and weights, so the second need not be written.
    """
    text = json.dumps({k: v for k, v in snapshot.state.items() if k != "wall_s"})
    generators = b"".join(state.numpy().tobytes() for state in snapshot.tensors["rng"])
    return hashlib.sha256(text.encode() + generators).hexdigest()


def load(folder: Path) -> Snapshot:
    """Read the snapshot in a checkpoint. Raises DataError for a missing or broken file."""
    state, file = read_state(folder), folder / "trainer" / "tensors.pt"
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise DataError(
            f"{file}: wanted tensors only, found pickled Python objects or a damaged file, and nothing of it was run; "
            f"{OLDER}"
        ) from e
    except Exception as e:  # the unpickler of a damaged file raises whatever its bytes lead to
        raise DataError(
            f"{folder} is not a complete checkpoint ({file.name}: {type(e).__name__}: {shortened(e, 150)}); {OLDER}"
        ) from e
    if not isinstance(tensors, dict):
        raise DataError(f"{file}: wanted a dictionary of tensors, found {type(tensors).__name__}; {OLDER}")
    return Snapshot(state, tensors)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint (trainer/state.json). Raises DataError for a missing or broken file."""
    file = folder / "trainer" / "state.json"
    if not file.is_file():  # a device would be read forever
        raise DataError(f"{folder} is not a complete checkpoint ({file.name} is missing, or not a file); {OLDER}")
    try:
        state = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as e:
        raise DataError(
            f"{folder} is not a complete checkpoint ({file.name}: {type(e).__name__}: {shortened(e, 150)}); {OLDER}"
        ) from e
    if not isinstance(state, dict):
        raise DataError(f"{file}: wanted an object, found {type(state).__name__}; {OLDER}")
    return state


def require_entries(folder: Path, snapshot: Snapshot) -> None:
    """Raise DataError where an entry that resuming needs is missing, of another type, or at odds with the others."""
    try:
        StateFile.model_validate(snapshot.state)
    except ValidationError as e:
        raise DataError(f"{folder / 'trainer' / 'state.json'} is damaged ({first_reason(e)}); {OLDER}") from e
    for name, wanted in TENSORS.items():
        if not isinstance(snapshot.tensors.get(name), wanted):
            found = type(snapshot.tensors[name]).__name__ if name in snapshot.tensors else "nothing"
            raise DataError(
                f"{folder / 'trainer' / 'tensors.pt'} is damaged (wanted {name} as {wanted.__name__}, found {found}); "
                f"{OLDER}"
            )
    ranks, world = len(snapshot.tensors["rng"]), snapshot.state["world"]
    if ranks != world:
        raise DataError(
            f"{folder / 'trainer' / 'tensors.pt'}: wanted random generators of {world} ranks, found {ranks}; {OLDER}"
        )


def load_adapters(folder: Path, module: torch.nn.Module) -> None:
    """Load the adapter weights of a checkpoint into a module that has the adapters already.

    Raises ConfigError for adapters that are not exactly the module's, or are not finite.
    """
    file = folder / "trainer" / ADAPTERS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as e:
        raise DataError(f"{file} cannot be read ({shortened(e, 150)}); {OLDER}") from e
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    shapes = [
        (k, weights[k].shape, p.shape) for k, p in trained.items() if k in weights and weights[k].shape != p.shape
    ]
    require_all_weights(str(file), trained.keys() - weights, weights.keys() - trained, shapes)
    require_finite(str(file), weights)
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(weights[name])


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and those that a link (last, best) points to."""
    linked = {link.resolve().name for link in root.iterdir() if link.is_symlink()}
    for old in sorted(_steps(root), key=step_of)[:-keep]:
        if old.name not in linked:
            shutil.rmtree(_hide(old))


def _steps(root: Path) -> list[Path]:
    return [f for f in root.glob("step-*") if f.name.removeprefix("step-").isdecimal()]


def step_of(folder: Path) -> int:
    """The N of a folder step-N."""
    return int(folder.name.removeprefix("step-"))


def set_link(link: Path, target: str) -> None:
    """Create the relative link `link` -> `target`, or atomically replace an existing one.

    A folder in its place, which copying without links leaves, is deleted.
    """
    temporary = _temporary(link)
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    replaced = _hide(link) if link.is_dir() and not link.is_symlink() else None
    temporary.replace(link)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _temporary(link: Path) -> Path:
    return link.with_name(f".{link.name}")


def link_best(root: Path, step: int) -> None:
    """Point root/best at the checkpoint of `step`, unless it does already or there is no such checkpoint."""
    link, name = root / "best", f"step-{step}"
    if (root / name).is_dir() and not (link.is_symlink() and os.readlink(link) == name):
        set_link(link, name)


def resolve_weights(name: str) -> str:
    """The weights that a model name refers to: the newest checkpoint of a run folder or of RUN/checkpoints/last, else
    the name itself.
    """
    path = Path(name)
    is_link = path.name == "last" and path.parent.name == "checkpoints"
    return str(newest(path.parent if is_link else path / "checkpoints") or name)


def weights_hash(folder: str) -> str:
    """SHA-256 over the .safetensors files of a folder, sorted by name; empty for a hub id."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    for file in files:
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether writing failed for lack of space; libraries in Rust and C++ tell so in their message only."""
    text = str(error)
    errno_ = getattr(error, "errno", None)
    return errno_ in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "os error 122" in text


@contextmanager
def explained_full_disk(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into a TrainError with the path, and with what is kept of the run in `folder`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as e:
        if isinstance(e, TrainError) or not is_disk_full(e):
            raise
        kept = newest(folder / "checkpoints")
        rest = f"{kept} is kept: make room, then mmpost train resume={folder}" if kept else "make room, and start again"
        raise TrainError(f"disk full: cannot write {getattr(e, 'filename', None) or folder}; {rest}") from e


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
