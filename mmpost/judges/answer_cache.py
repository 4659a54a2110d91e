"""Answers that were paid for, kept on disk: an answer is written before anybody reads it, and never paid for again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mmpost.errors import ConfigError

Messages = Sequence[Mapping[str, str]]
"""A conversation, as chat models take it: {"role": ..., "content": ...} one after the other."""

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL)"
_PATIENCE = 60.0
"""Seconds to wait for another process that writes."""


def question_key(question: Mapping[str, Any]) -> str:
    """A hash of all that an answer follows from; the server's address is not part of it."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Answers:
    """A table of answers in one SQLite file; many processes of one machine may share it, and any may be killed.

    Each answer is a transaction of its own, on disk before `put` returns. Raises ConfigError where the file is no such
    table or cannot be written. Not for a network file system: SQLite's write-ahead log needs shared memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as db:
                db.execute(_TABLE)
        except (sqlite3.Error, OSError) as e:
            raise ConfigError(
                f"{path}: wanted a file for a judge's answers, found one that cannot be used ({e}); name another place"
            ) from e

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        return db

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The answers that are there, by their keys."""
        with closing(self._open()) as db:
            found = (db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys)
            return {key: str(row[0]) for key, row in zip(keys, found, strict=True) if row is not None}

    def put(self, question: Mapping[str, Any], answer: str) -> None:
        """Keep an answer; the first one to a question stays."""
        row = (question_key(question), json.dumps(question, sort_keys=True, ensure_ascii=False), answer)
        with closing(self._open()) as db:
            db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row)

    def __len__(self) -> int:
        with closing(self._open()) as db:
            return int(db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])
