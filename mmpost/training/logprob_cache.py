"""A disk cache of log-probs of fixed replies under fixed weights, shared by epochs and runs."""

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
    """A SHA-256 hash of the values' repr."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


class LogprobCache:
    """One SQLite file, which several processes may use at a time. Entries take about 4 bytes per token (fp32).

    Entries are never changed: everything that log-probs depend on is part of their key.
    """

    def __init__(self, file: Path, *identity: Any, recorded: bool = False) -> None:
        """`identity`: what log-probs depend on besides trainable weights, prompt and reply, such as the base model.

        Its repr and the versions of the libraries are part of every key. `recorded`: replies of any origin are fixed,
        because an earlier stage recorded them; otherwise only those of the data are, and sampled ones are not cached.
        """
        self.recorded = recorded
        self.file, self.identity = file, (*identity, [metadata.version(name) for name in LIBRARIES])

    def get_or_compute(
        self, samples: Sequence[Sample], key: Callable[[Sample], str], compute: Callable[..., Rows]
    ) -> Rows:
        """The log-probs of all replies: from the file where it has them, else from `compute`, which fills the file.

        `key`: a hash of the weights and of a sample's prompt. `compute`: log-probs of samples that hold only the
        replies that are missing. Raises TrainError for a file that is not a cache.
        """
        keys = [self._keys(sample, key) for sample in samples]
        cached = self._read([k for row in keys for k in row if k])
        is_missing = [[k not in cached for k in row] for row in keys]
        missing = [
            replace(s, replies=tuple(r for r, absent in zip(s.replies, row, strict=True) if absent))
            for s, row in zip(samples, is_missing, strict=True)
            if any(row)
        ]
        computed = iter([logp for row in (compute(missing) if missing else []) for logp in row])
        out = [[next(computed) if k not in cached else cached[k] for k in row] for row in keys]
        pairs = (pair for row, values in zip(keys, out, strict=True) for pair in zip(row, values, strict=True))
        self._write({k: v for k, v in pairs if k and k not in cached})
        return out

    def _keys(self, sample: Sample, key: Callable[[Sample], str]) -> list[str]:
        """One key per reply; empty for a reply that is not fixed."""
        fixed = [self.recorded or r.origin == "data" for r in sample.replies]
        prompt = key(sample) if any(fixed) else ""
        return [self._key(prompt, r) if is_fixed else "" for r, is_fixed in zip(sample.replies, fixed, strict=True)]

    def _key(self, prompt: str, reply: Reply) -> str:
        return digest(self.identity, prompt, reply.token_ids, reply.columns.get("temperature", 1.0))

    def _read(self, keys: Sequence[str]) -> dict[str, list[float]]:
        values = {}
        if keys:
            with self._open() as database:
                for key in keys:
                    row = database.execute("SELECT value FROM logp WHERE key = ?", (key,)).fetchone()
                    if row:
                        values[key] = array("f", row[0]).tolist()
        return values

    def _write(self, values: dict[str, list[float]]) -> None:
        if values:
            with self._open() as database:
                pairs = [(k, array("f", v).tobytes()) for k, v in values.items()]
                database.executemany("INSERT OR IGNORE INTO logp VALUES (?, ?)", pairs)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.file, timeout=60)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS logp (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
                yield database
        except sqlite3.DatabaseError as e:
            raise TrainError(
                f"{self.file}: wanted the kept log-probs of the reference, found {e}; delete the file, or set "
                "compute.reuse=off to train without this cache"
            ) from e
