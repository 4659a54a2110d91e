"""Read files of predictions, by keys that are named; a truth is never taken for a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def read_predictions(
    path: Path,
    key: str = "",
    id_key: str = "",
    row_id: Callable[[Mapping[str, Any]], str] | None = None,
    uid_in: Callable[[Path, str], str] = lambda path, uid: uid,
    uids: Sequence[str] = (),
) -> dict[str, str]:
    """The reply to each question, by its id.

    `path` is a file, or a folder of which all files are read. `key` and `id_key` name the keys of reply and id; a name
    with dots, as in "doc.id", is a path through objects. Without names they are the first of `TEXTS` and `IDS` that the
    first row has. Ids may be made by `row_id`, and completed by `uid_in`. With `id_key` "position", rows are in the
    order of the questions, `uids`, or of those of the split that `uid_in` reads in the name of the file; with
    "position:NAME", NAME holds the question's place, from 0. Rows of a JSON object are named by its keys, and its
    values may be the replies themselves. A list of one reply is that reply; rows with null are left out. Raises
    DataError for a file without predictions, a row without id, a reply that is not text, and two different replies to a
    question.
    """
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix in (".json", ".jsonl", ".csv", ".tsv", ".parquet")
        )
        if not files:
            raise DataError(f"{path}: wanted files of predictions (JSON, CSV, TSV, Parquet), found none; name a file")
        parts = [read_predictions(file, key, id_key, row_id, uid_in, uids) for file in files]
        return {uid: reply for part in parts for uid, reply in part.items()}
    if plain := texts_by_id(path):
        return {uid_in(path, uid): reply for uid, reply in plain.items() if reply is not None}
    found: dict[str, str] = {}
    by_place, place_key = id_key.split(":")[0] == POSITION, id_key.partition(":")[2]
    ordered = _questions_of(path, uids, uid_in) if by_place else []
    content = list(rows(path))
    for number, row in enumerate(content):
        key = key or _first(row.content, TEXTS, row.where, "reply", "key=")
        uid: Any = row.key
        if by_place:
            uid = _in_place(_at(row.content, place_key) if place_key else number, ordered, row.where)
        elif id_key or not row.key:
            if row_id is not None and not id_key and IDS[0] not in row.content:
                uid = row_id(row.content)
            else:
                id_key = id_key or _first(row.content, IDS, row.where, "id", "id=")
                uid = _at(row.content, id_key)
        reply = _reply(row, key)
        if reply is None:
            continue
        uid = uid if by_place else uid_in(path, _id(row, uid, id_key))
        if found.setdefault(uid, reply) != reply:
            raise DataError(f"{row.where}: wanted one reply to {uid!r}, found two different ones; remove one of them")
    if id_key == POSITION and len(content) != len(ordered):
        raise DataError(
            f"{path}: wanted a row for each of {len(ordered)} questions in their order (id={POSITION}), found "
            f"{len(content)}; name a key with ids, id=NAME"
        )
    if not found:
        raise DataError(
            f"{path}: wanted rows with replies, found none in {key or 'the file'!r}; name the key: key=NAME"
        )
    return found


def _id(row: Row, uid: Any, id_key: str) -> str:
    if uid is None or isinstance(uid, Mapping | list):
        raise DataError(f"{row.where}: wanted the id of a question in {id_key!r}, found {uid!r:.60}; correct the row")
    return str(uid)


def _reply(row: Row, key: str) -> str | None:
    reply = _at(row.content, key)
    while isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    if reply is None and key.partition(".")[0] not in row.content:
        raise DataError(
            f"{row.where}: wanted a reply in {key!r}, found the keys {sorted(row.content)}; correct the row"
        )
    if reply is not None and not isinstance(reply, str):
        raise DataError(f"{row.where}: wanted a reply as text in {key!r}, found {reply!r:.60}; correct the row")
    return reply


def _at(content: Mapping[str, Any], name: str) -> Any:
    """The value under a key, or on a path of keys with dots between them; None without one."""
    if name in content:
        return content[name]
    value: Any = content
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _questions_of(path: Path, uids: Sequence[str], uid_in: Callable[[Path, str], str]) -> list[str]:
    """The questions of the split that the file's name has in it; all, if it has none."""
    return [uid for uid in uids if "/" in uid and uid_in(path, uid.partition("/")[2]) == uid] or list(uids)


def _in_place(number: Any, uids: Sequence[str], where: str) -> str:
    if not str(number).isdecimal() or int(number) >= len(uids):
        raise DataError(
            f"{where}: wanted the place of a question, 0 to {len(uids) - 1}, found {number!r:.60}; correct the row"
        )
    return uids[int(number)]


def id_of_split(path: Path, uid: str, splits: Sequence[str]) -> str:
    """The id of a question of the split that the file's name has in it: "random/1" for 1 in pope_random.jsonl.

    It stays as it is where it names a split already, and where the name of the file has none.
    """
    if uid.partition("/")[0] in splits:
        return uid
    split = max((split for split in splits if split in path.stem), key=len, default="")
    return f"{split}/{uid}" if split else uid


def _first(content: Mapping[str, object], names: tuple[str, ...], where: str, what: str, option: str) -> str:
    name = next((name for name in names if name in content), None)
    if name is None:
        raise DataError(
            f"{where}: wanted the {what} under one of {names}, found the keys {sorted(content)}; name it: {option}NAME"
        )
    return name
