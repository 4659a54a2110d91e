"""Converts turns of a conversation to Parts, matching placeholders and structured content with the media of the row."""

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

MediaFactory = Callable[[Any, str], Any]
"""(value in a row, modality) -> Media."""


@dataclass(frozen=True)
class Turn:
    """One message: text, or a list of content parts as in OpenAI and transformers messages."""

    role: str
    content: Any
    learn: bool = True
    """Whether an assistant turn is trained on."""


@dataclass(frozen=True)
class _Placeholder:
    """A position in the text for the next medium of the row's columns."""

    modality: str


def role_of(name: Any) -> str:
    """Map the role names in common use to mmpost's roles. Raises DataError for unknown ones."""
    if not isinstance(name, str) or name not in ROLES:
        raise DataError(
            f"Wanted a role among {', '.join(ROLES)}; found {name!r}. Rename it (turns of tools are not supported)."
        )
    return ROLES[name]


def fill(turns: Sequence[Turn], columns: Mapping[str, Sequence[Any]], create: MediaFactory) -> list[tuple[Part, ...]]:
    """Convert each turn to parts, with the media of `columns` (modality -> values) at their placeholders.

    If the row has no placeholder at all, its media precede the first user turn. `<image>` in a row without images is
    text. Raises DataError if the numbers of placeholders and media differ.
    """
    media = {modality: list(values) for modality, values in columns.items() if values}
    pieces = [list(_pieces(turn.content, media)) for turn in turns]
    placeholders = [piece.modality for turn in pieces for piece in turn if isinstance(piece, _Placeholder)]
    if media and not placeholders:
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
        if first is None:
            raise DataError("Wanted a turn of the user to put the media in front of, found none; add placeholders.")
        placeholders = [modality for modality, values in media.items() for _ in values]
        pieces[first] = [_Placeholder(modality) for modality in placeholders] + pieces[first]
    for modality in dict.fromkeys([*media, *placeholders]):
        count, expected = placeholders.count(modality), len(media.get(modality, ()))
        if count != expected:
            raise DataError(
                f"Wanted one <{modality}> placeholder for each {modality}, that is {expected}; found {count}. "
                "Add or remove placeholders in the text, or media in the column."
            )
    remaining = {modality: iter(values) for modality, values in media.items()}
    return [
        tuple(_part(piece, turn.role, remaining, create) for piece in content)
        for turn, content in zip(turns, pieces, strict=True)
    ]


def _part(
    piece: str | _Placeholder | tuple[str, Any], role: str, remaining: Mapping[str, Any], create: MediaFactory
) -> Part:
    if isinstance(piece, str):
        return Part("text", piece, role)
    if isinstance(piece, _Placeholder):
        modality, value = piece.modality, next(remaining[piece.modality])
    else:
        modality, value = piece
    return Part(modality, create(value, modality), role)


def _pieces(content: Any, modalities_in_row: Iterable[str]) -> Iterable[str | _Placeholder | tuple[str, Any]]:
    """Split content into text, placeholders for media of the columns, and (modality, value) of media in the content."""
    if isinstance(content, str):
        yield from _split(content, modalities_in_row)
        return
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise DataError(
            f"Wanted the content of a turn as text or a list of parts; found {type(content).__name__}: {content!r:.80}."
        )
    for item in content:
        if isinstance(item, str):
            yield from _split(item, modalities_in_row)
        elif isinstance(item, Mapping):
            yield from _item({k: v for k, v in item.items() if v is not None}, modalities_in_row)
        else:
            raise DataError(f"Wanted a part as text or as a mapping with a type; found {item!r:.80}.")


def _split(text: str, modalities_in_row: Iterable[str]) -> Iterable[str | _Placeholder]:
    names = "|".join(modalities_in_row)
    for i, piece in enumerate(re.split(f"<({names})>", text) if names else [text]):
        if i % 2:
            yield _Placeholder(piece)
        elif piece:
            yield piece


def _item(item: dict[str, Any], modalities_in_row: Iterable[str]) -> Iterable[str | _Placeholder | tuple[str, Any]]:
    """One part of structured content: {"type": "text" | modality | modality + "_url" | "input_audio", ...}."""
    known = {k.name: k.name for k in modalities()}
    known |= {f"{name}_url": name for name in known} | {f"input_{name}": name for name in known}
    name = item.get("type")
    if name is None:
        name = next((key for key in item if key in known), "text")
    if name == "text" and isinstance(item.get("text"), str):
        yield from _split(item["text"], modalities_in_row)
    elif isinstance(name, str) and name in known:
        value = _value(item, name, known[name])
        yield _Placeholder(known[name]) if value is None else (known[name], value)
    else:
        raise DataError(
            f"Wanted a part of type text with text, or of a modality ({', '.join(known)}); found {item!r:.120}."
        )


def _value(item: Mapping[str, Any], name: str, modality: str) -> Any:
    """The medium in a content part, under any of the usual keys; None if the part is only a placeholder."""
    value = item.get(name, item.get(modality))
    if isinstance(value, Mapping) and set(value) <= {"url", "detail"} and "url" in value:
        return value["url"]
    if isinstance(value, Mapping) and set(value) <= {"data", "format"} and "data" in value:
        return {"base64": value["data"]}
    if value is None:
        reference = {key: item[key] for key in ("bytes", "path", "url", "base64") if key in item}
        return reference or None
    return value
