"""Log-probabilities of fixed replies under fixed weights, kept on disk over epochs and runs."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mmpost.errors import TrainError
from mmpost.types import Reply, Sample

LIBRARIES = ("mmpost", "torch", "transformers", "peft")

Rows = list[list[list[float]]]
"""[sample][reply][tok]"""


def digest(*values: Any) -> str:
    """A hash of values by what they print."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


class LogprobCache:
    """One SQLite file; several processes may use it. A row is some 4 bytes per token, and is never changed.

    `decides` is what log-probs follow from besides the weights that train, the prompt and the reply (the base, the
    shape of adapters): where it prints otherwise, or libraries have other versions, nothing is found. `recorded`:
    replies of any origin are fixed, because an earlier stage put them on record.
    """

    def __init__(self, file: Path, *decides: Any, recorded: bool = False) -> None:
        self.recorded = recorded
        self.file, self.decides = file, (*decides, [metadata.version(name) for name in LIBRARIES])

    def get_or_compute(
        self, samples: Sequence[Sample], key: Callable[[Sample], str], compute: Callable[..., Rows]
    ) -> Rows:
        """The log-probs of all replies: the fixed ones from the file if it has them, else from `compute`.

        `key` is a hash of the weights and the prompt. What was computed for these is written down.
        """
        keys = [self._keys(sample, key) for sample in samples]
        found = self._read([k for row in keys for k in row if k])
        open_places = [[k not in found for k in row] for row in keys]
        missing = [
            replace(s, replies=tuple(r for r, missed in zip(s.replies, row, strict=True) if missed))
            for s, row in zip(samples, open_places, strict=True)
            if any(row)
        ]
        computed = iter([logp for row in (compute(missing) if missing else []) for logp in row])
        out = [[next(computed) if k not in found else found[k] for k in row] for row in keys]
        pairs = (pair for row, values in zip(keys, out, strict=True) for pair in zip(row, values, strict=True))
        self._write({k: v for k, v in pairs if k and k not in found})
        return out

    def _keys(self, sample: Sample, key: Callable[[Sample], str]) -> list[str]:
        """One for each reply; empty for those that are drawn anew."""
        fixed = [self.recorded or r.origin == "data" for r in sample.replies]
        prompt = key(sample) if any(fixed) else ""
        return [self._key(prompt, r) if kept else "" for r, kept in zip(sample.replies, fixed, strict=True)]

    def _key(self, prompt: str, reply: Reply) -> str:
        return digest(self.decides, prompt, reply.token_ids, reply.columns.get("temperature", 1.0))

    def _read(self, keys: Sequence[str]) -> dict[str, list[float]]:
        found = {}
        if keys:
            with self._open() as rows:
                for key in keys:
                    row = rows.execute("SELECT value FROM logp WHERE key = ?", (key,)).fetchone()
                    if row:
                        found[key] = array("f", row[0]).tolist()
        return found

    def _write(self, values: dict[str, list[float]]) -> None:
        if values:
            with self._open() as rows:
                pairs = [(k, array("f", v).tobytes()) for k, v in values.items()]
                rows.executemany("INSERT OR IGNORE INTO logp VALUES (?, ?)", pairs)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.file, timeout=60)) as rows, rows:
                rows.execute("CREATE TABLE IF NOT EXISTS logp (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
                yield rows
        except sqlite3.DatabaseError as e:
            raise TrainError(
                f"{self.file}: wanted the kept log-probs of the reference, found {e}; delete the file, or set "
                "compute.reuse=off to do without"
            ) from e
