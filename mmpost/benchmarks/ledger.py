"""Replies of models to questions, on disk, each under a key of all that it depends on.

A reply is found again only by the weights, prompt, media, pixel budgets, sampling and engine that made it. So resuming,
sharding over ranks and reusing earlier evaluations are one look-up, and replies of different settings cannot be mixed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from mmpost.errors import DataError


class Entry(BaseModel):
    """A reply in the ledger."""

    key: str
    uid: str
    reply: str
    truncated: bool = False
    """Whether the reply was cut off at the limit of tokens."""


class Depends(NamedTuple):
    """What a reply depends on besides its prompt."""

    weights: str
    sampling: Mapping[str, object]
    seed: int
    engine: str

    def key(self, uid: str, prompt: str) -> str:
        """The key of the reply to a question; `prompt` is `GenerativeModel.cache_key`: with media and their budgets."""
        content = json.dumps([uid, prompt, *self], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()


class Ledger:
    """The replies to one benchmark's questions in a folder, in a file for each rank that wrote some."""

    def __init__(self, folder: Path, bench: str) -> None:
        self.folder, self.bench = folder, bench

    def entries(self) -> dict[str, Entry]:
        """All replies by key. A last line that a kill cut off is left out; raises DataError for any other damage."""
        found: dict[str, Entry] = {}
        for file in sorted(self.folder.glob(f"{self.bench}.rank-*.jsonl")):
            lines = file.read_bytes().split(b"\n")
            for number, line in enumerate(lines[:-1], 1):  # what follows the last line break is not complete
                try:
                    entry = Entry.model_validate_json(line)
                except ValidationError as e:
                    raise DataError(f"{file}:{number}: wanted a reply of the ledger, found {line[:60]!r}") from e
                found[entry.key] = entry
        return found

    def append(self, rank: int, entries: Iterable[Entry]) -> None:
        """Write replies, and sync them to disk: a kill loses none of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.bench}.rank-{rank}.jsonl"
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_line(path):
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
            file.write("".join(entry.model_dump_json() + "\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
