"""Read files of predictions, by keys that are named; a truth is never taken for a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import Benchmark
from mmpost.benchmarks.files import Row, rows, texts_by_id
from mmpost.errors import DataError

IDS = ("uid", "id", "question_id", "pid", "index", "qid", "questionId", "qa_id")
"""Keys that may name a row's question."""
POSITION = "position"
"""Given for the key of ids: questions are told by their place in the order of the official files."""
TEXTS = (
    "reply",
    "response",
    "prediction",
    "predict",
    "output",
    "model_prediction",
    "model_output",
    "generated_text",
    "text",
    "pred",
)
"""Keys that may hold a row's reply. `answer` is not among them: in files of questions it is the truth."""
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """How the replies to a benchmark's questions lie in files."""

    bench: Benchmark
    uids: Sequence[str]
    """Ids of all questions, in the order of the official files."""
    key: str = ""
    """The key of replies; a name with dots, as in "doc.reply", is a path through objects. "": the first of `TEXTS` that
    the first row has, unless the benchmark has an official form of its own (`row_reply`). A list of one text under it
    is that text; any other list under a key that is named, such as the spans of a submission, is a reply in JSON."""
    id_key: str = ""
    """The key of ids, in the same way; "": `Benchmark.row_id`, or the first of `IDS`. "position": rows are in the order
    of the questions, or of those of the split in the name of their file; "position:NAME": NAME holds the place, from 0.
    Rows of a JSON object are named by its keys."""

    def read(self, path: Path) -> dict[str, str]:
        """The reply to each question, by its id, in a file or in all files of a folder; rows with null are left out.

        Raises DataError for no predictions, a row without id, a reply that is not text, and two different replies to a
        question.
        """
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
            if not files:
                raise DataError(f"{path}: wanted files of predictions ({', '.join(SUFFIXES)}), found none; name a file")
            return {uid: reply for file in files for uid, reply in self.read(file).items()}
        plain = texts_by_id(path)
        if plain:
            return {self.bench.uid_in(path, uid): reply for uid, reply in plain.items() if reply is not None}
        return self._read_rows(path)

    def _read_rows(self, path: Path) -> dict[str, str]:
        found: dict[str, str] = {}
        names, ordered, number = self, self._in_order(path), 0
        for number, row in enumerate(rows(path), 1):
            names = names._named_by(row)
            uid = names._uid(row, path, ordered, number - 1)
            reply = names._reply(row, is_named=bool(self.key))
            if reply is not None and found.setdefault(uid, reply) != reply:
                raise DataError(
                    f"{row.where}: wanted one reply to {uid!r}, found two different ones; remove one of them"
                )
        if self.id_key == POSITION and number != len(ordered):
            raise DataError(
                f"{path}: wanted a row for each of {len(ordered)} questions in their order (id={POSITION}), found "
                f"{number}; name a key with ids, id=NAME"
            )
        if not found:
            where = names.key or "the file"
            raise DataError(f"{path}: wanted rows with replies, found none in {where!r}; name the key: key=NAME")
        return found

    def _named_by(self, row: Row) -> Predictions:
        """These predictions with the keys that the first row has, where none are named."""
        key, id_key = self.key, self.id_key
        if not key and self.bench.row_reply is None:
            key = _first(row, TEXTS, "reply", "key=")
        makes_ids = self.bench.row_id is not None and IDS[0] not in row.content
        if not id_key and not row.key and not makes_ids:
            id_key = _first(row, IDS, "id", "id=")
        return replace(self, key=key, id_key=id_key)

    def _uid(self, row: Row, path: Path, ordered: Sequence[str], number: int) -> str:
        position, _, name = self.id_key.partition(":")
        if position == POSITION:
            place = _at(row.content, name) if name else number
            if not str(place).isdecimal() or int(place) >= len(ordered):
                raise DataError(
                    f"{row.where}: wanted the place of a question, 0 to {len(ordered) - 1}, found {place!r:.60}; "
                    "correct the row"
                )
            return ordered[int(place)]
        uid: Any = row.key
        if self.id_key:
            uid = _at(row.content, self.id_key)
        elif not row.key and self.bench.row_id is not None:
            uid = self.bench.row_id(row.content)
        if uid is None or isinstance(uid, Mapping | list):
            raise DataError(
                f"{row.where}: wanted the id of a question in {self.id_key!r}, found {uid!r:.60}; correct the row"
            )
        return self.bench.uid_in(path, str(uid))

    def _reply(self, row: Row, is_named: bool) -> str | None:
        if not self.key:
            assert self.bench.row_reply is not None
            return self.bench.row_reply(row)
        reply = _at(row.content, self.key)
        if reply is None:
            if self.key.partition(".")[0] not in row.content:
                keys = sorted(row.content)
                raise DataError(f"{row.where}: wanted a reply in {self.key!r}, found the keys {keys}; correct the row")
            return None
        inner = reply
        while isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        if isinstance(inner, str):
            return inner
        if is_named and isinstance(reply, list):
            return json.dumps(reply)
        raise DataError(f"{row.where}: wanted a reply as text in {self.key!r}, found {reply!r:.60}; correct the row")

    def _in_order(self, path: Path) -> list[str]:
        """The questions of the split that the file's name has in it; all, if it has none."""
        of_split = [uid for uid in self.uids if "/" in uid and self.bench.uid_in(path, uid.partition("/")[2]) == uid]
        return of_split or list(self.uids)


def id_of_split(path: Path, uid: str, splits: Sequence[str]) -> str:
    """The id of a question of the split that the file's name has in it: "random/1" for 1 in pope_random.jsonl.

    It stays as it is where it names a split already, and where the name of the file has none.
    """
    if uid.partition("/")[0] in splits:
        return uid
    split = max((split for split in splits if split in path.stem), key=len, default="")
    return f"{split}/{uid}" if split else uid


def _at(content: Mapping[str, Any], name: str) -> Any:
    """The value under a key, or on a path of keys with dots between them; None without one."""
    if name in content:
        return content[name]
    value: Any = content
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _first(row: Row, names: Sequence[str], what: str, option: str) -> str:
    name = next((name for name in names if name in row.content), None)
    if name is None:
        keys = sorted(row.content)
        raise DataError(
            f"{row.where}: wanted the {what} under one of {tuple(names)}, found the keys {keys}; name it: {option}NAME"
        )
    return name
