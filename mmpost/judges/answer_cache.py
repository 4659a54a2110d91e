"""An on-disk cache of chat answers: each answer is stored before it is used, so that no request is paid for twice."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mmpost.errors import ConfigError

Messages = Sequence[Mapping[str, Any]]
"""A conversation in the usual chat format: a sequence of {"role": ..., "content": ...}.

The content is text, or a list of {"type": "text", "text": ...} and {"type": "image_url", "image_url": {"url": ...}}.
"""

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL)"
)
_DATA_URL = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]{64,}")
_LOCK_TIMEOUT = 60.0
"""Seconds to wait while another process writes."""


def question_key(question: Mapping[str, Any]) -> str:
    """Hash of everything that determines the answer. The server's address is not part of it."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _hashed(match: re.Match[str]) -> str:
    """A hash in place of an image: thousands of questions about one would fill the disk."""
    return f"sha256:{hashlib.sha256(match[0].encode()).hexdigest()}"


class AnswerCache:
    """Answers in one SQLite file, which several processes on the same machine may share and be killed while using.

    Every answer is its own transaction and is on disk before `put` returns. Do not place the file on a network file
    system: SQLite's write-ahead log needs shared memory. Raises ConfigError if the file is not such a database or
    cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db:
                db.execute(_CREATE_TABLE)
        except (sqlite3.Error, OSError) as e:
            raise ConfigError(
                f"{path}: wanted a file for the judge's answer cache, found one that cannot be used ({e}); choose "
                "another path"
            ) from e

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        # WAL alone may lose the last commits in a power cut; FULL syncs each of them to disk.
        db.execute("PRAGMA synchronous=FULL")
        return db

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The cached answers by key; keys without an answer are left out."""
        with closing(self._connect()) as db:
            rows = (db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone() for key in keys)
            return {key: str(row[0]) for key, row in zip(keys, rows, strict=True) if row is not None}

    def put(self, question: Mapping[str, Any], answer: str) -> None:
        """Store an answer. If the question has one already, that one is kept."""
        text = _DATA_URL.sub(_hashed, json.dumps(question, sort_keys=True, ensure_ascii=False))
        row = (question_key(question), text, answer)
        with closing(self._connect()) as db:
            db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row)

    def __len__(self) -> int:
        with closing(self._connect()) as db:
            return int(db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])
