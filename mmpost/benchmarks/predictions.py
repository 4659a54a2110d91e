"""Read files of predictions, by keys that are named; a truth is never taken for a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmpost.benchmarks.files import Row, rows, texts_by_id
from mmpost.errors import DataError

IDS = ("uid", "id", "question_id", "pid", "index", "qid")
"""Keys that may name a row's question."""
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
)
"""Keys that may hold a row's reply. `answer` is not among them: in files of questions it is the truth."""


def read_predictions(
    path: Path,
    key: str = "",
    id_key: str = "",
    row_id: Callable[[Mapping[str, Any]], str] | None = None,
    row_reply: Callable[[Row], str] | None = None,
) -> dict[str, str]:
    """The reply to each question, by its id.

    `path` is a file, or a folder of which all files are read. `key` and `id_key` name the keys of reply and id;
    without, they are the first of `TEXTS` and `IDS` that the first row has, and ids may be made by `row_id`, replies by
    `row_reply`. Rows of a JSON object are named by its keys, and its values may be the replies themselves. Rows with
    null are left out. Raises DataError for a file without predictions, a row without id, a reply that is not text, and
    two different replies to a question.
    """
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix in (".json", ".jsonl", ".csv", ".tsv", ".parquet")
        )
        if not files:
            raise DataError(f"{path}: wanted files of predictions (JSON, CSV, TSV, Parquet), found none; name a file")
        parts = [read_predictions(file, key, id_key, row_id, row_reply) for file in files]
        return {uid: reply for part in parts for uid, reply in part.items()}
    plain = texts_by_id(path)
    if plain:
        return {uid: reply for uid, reply in plain.items() if reply is not None}
    found: dict[str, str] = {}
    made = None if key else row_reply
    for row in rows(path):
        if made is None:
            key = key or _first(row.content, TEXTS, row.where, "reply", "key=")
        uid: Any = row.key
        if id_key or not row.key:
            if row_id is not None and not id_key and IDS[0] not in row.content:
                uid = row_id(row.content)
            else:
                id_key = id_key or _first(row.content, IDS, row.where, "id", "id=")
                uid = row.content.get(id_key)
        if uid is None or isinstance(uid, Mapping | list):
            raise DataError(
                f"{row.where}: wanted the id of a question in {id_key!r}, found {uid!r:.60}; correct the row"
            )
        reply = _reply(row, key) if made is None else made(row)
        if reply is None:
            continue
        if found.setdefault(str(uid), reply) != reply:
            raise DataError(f"{row.where}: wanted one reply to {uid!r}, found two different ones; remove one of them")
    if not found:
        raise DataError(
            f"{path}: wanted rows with replies, found none in {key or 'the file'!r}; name the key: key=NAME"
        )
    return found


def _reply(row: Row, key: str) -> str | None:
    if key not in row.content:
        raise DataError(
            f"{row.where}: wanted a reply in {key!r}, found the keys {sorted(row.content)}; correct the row"
        )
    reply = row.content[key]
    if reply is not None and not isinstance(reply, str):
        raise DataError(f"{row.where}: wanted a reply as text in {key!r}, found {reply!r:.60}; correct the row")
    return reply


def _first(content: Mapping[str, object], names: tuple[str, ...], where: str, what: str, option: str) -> str:
    name = next((name for name in names if name in content), None)
    if name is None:
        raise DataError(
            f"{where}: wanted the {what} under one of {names}, found the keys {sorted(content)}; name it: {option}NAME"
        )
    return name
