"""Turns of a conversation as Parts: placeholders and structured content meet the media of their row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpost.data.media.modalities import modalities
from mmpost.errors import DataError
from mmpost.types import Part

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}

Make = Callable[[Any, str], Any]
"""(value of a row, kind) -> Media."""


@dataclass(frozen=True)
class Turn:
    """What one role says: text, or a list of pieces as in OpenAI's and transformers' messages."""

    role: str
    content: Any
    learn: bool = True
    """Whether an assistant's turn may become a reply."""


@dataclass(frozen=True)
class _Slot:
    """A place in the text that takes the next medium of the row's columns."""

    kind: str


def role_of(name: Any) -> str:
    """One of mmpost's roles for the many names in use."""
    if not isinstance(name, str) or name not in ROLES:
        raise DataError(
            f"Wanted a role among {', '.join(ROLES)}; found {name!r}. Rename it (turns of tools are not supported)."
        )
    return ROLES[name]


def fill(turns: Sequence[Turn], columns: Mapping[str, Sequence[Any]], make: Make) -> list[tuple[Part, ...]]:
    """The parts of each turn, with the media of `columns` (kind -> values) where their placeholders are.

    Media without any placeholder in the row go in front of the first turn of the user. `<image>` in a row that has no
    images is text. Raises DataError when placeholders and media differ in number.
    """
    kept = {kind: list(values) for kind, values in columns.items() if values}
    pieces = [list(_pieces(turn.content, kept)) for turn in turns]
    slots = [piece.kind for turn in pieces for piece in turn if isinstance(piece, _Slot)]
    if kept and not slots:
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
        if first is None:
            raise DataError("Wanted a turn of the user to put the media in front of, found none; add placeholders.")
        slots = [kind for kind, values in kept.items() for _ in values]
        pieces[first] = [_Slot(kind) for kind in slots] + pieces[first]
    for kind in dict.fromkeys([*kept, *slots]):
        found, wanted = slots.count(kind), len(kept.get(kind, ()))
        if found != wanted:
            raise DataError(
                f"Wanted one <{kind}> placeholder for each {kind}, that is {wanted}; found {found}. "
                "Add or remove placeholders in the text, or media in the column."
            )
    left = {kind: iter(values) for kind, values in kept.items()}
    return [
        tuple(_part(piece, turn.role, left, make) for piece in found) for turn, found in zip(turns, pieces, strict=True)
    ]


def _part(piece: str | _Slot | tuple[str, Any], role: str, left: Mapping[str, Any], make: Make) -> Part:
    if isinstance(piece, str):
        return Part("text", piece, role)
    kind, value = (piece.kind, next(left[piece.kind])) if isinstance(piece, _Slot) else piece
    return Part(kind, make(value, kind), role)


def _pieces(content: Any, kept: Iterable[str]) -> Iterable[str | _Slot | tuple[str, Any]]:
    """Text, slots for media of the row's columns, and (kind, value) of media that stand in the content itself."""
    if isinstance(content, str):
        yield from _split(content, kept)
        return
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise DataError(
            f"Wanted the content of a turn as text or a list of parts; found {type(content).__name__}: {content!r:.80}."
        )
    for item in content:
        if isinstance(item, str):
            yield from _split(item, kept)
        elif isinstance(item, Mapping):
            yield from _item({k: v for k, v in item.items() if v is not None}, kept)
        else:
            raise DataError(f"Wanted a part as text or as a mapping with a type; found {item!r:.80}.")


def _split(text: str, kept: Iterable[str]) -> Iterable[str | _Slot]:
    names = "|".join(kept)
    for i, piece in enumerate(re.split(f"<({names})>", text) if names else [text]):
        if i % 2:
            yield _Slot(piece)
        elif piece:
            yield piece


def _item(item: dict[str, Any], kept: Iterable[str]) -> Iterable[str | _Slot | tuple[str, Any]]:
    """One part of structured content: {"type": "text" | kind | kind + "_url" | "input_audio", ...}."""
    known = {k.name: k.name for k in modalities()}
    known |= {f"{name}_url": name for name in known} | {f"input_{name}": name for name in known}
    name = item.get("type")
    if name is None:
        name = next((key for key in item if key in known), "text")
    if name == "text" and isinstance(item.get("text"), str):
        yield from _split(item["text"], kept)
    elif name in known:
        value = _value(item, name, known[name])
        yield _Slot(known[name]) if value is None else (known[name], value)
    else:
        raise DataError(
            f"Wanted a part of type text with text, or of a kind of media ({', '.join(known)}); found {item!r:.120}."
        )


def _value(item: Mapping[str, Any], name: str, kind: str) -> Any:
    """What a part says about its medium, wherever it says it; None if it only marks the place."""
    value = item.get(name, item.get(kind))
    if isinstance(value, Mapping) and set(value) <= {"url", "detail"} and "url" in value:
        return value["url"]
    if isinstance(value, Mapping) and set(value) <= {"data", "format"} and "data" in value:
        return {"base64": value["data"]}
    if value is None:
        given = {key: item[key] for key in ("bytes", "path", "url", "base64") if key in item}
        return given or None
    return value
