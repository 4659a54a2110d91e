"""Parses rows of JSON. What no later step could use is refused here, with its key: one line must not end a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmpost.errors import DataError

MAX_DEPTH = 64
"""Lists and mappings within each other, at most; rows go through code that recurses."""
MAX_DIGITS = 308
"""Of an integer; larger ones do not convert to floats."""

_HUGE = object()
"""Takes the place of an integer with more digits."""
_STRUCTURE = re.compile(rb'\\.|["\[\]{},:]', re.DOTALL)


def parse_row(text: bytes) -> Any:
    """Parse one JSON value. Raises DataError, with the key where there is one, for what cannot be used."""
    try:
        row = _loads(text)
    except RecursionError:
        raise DataError(_too_deep(_nested_key(text))) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"Wanted one JSON object on the line, found {text[:60]!r} ({error}). Correct the line."
        ) from error
    # Walking a row takes longer than parsing it, so that only rows that may have a problem are walked.
    suspect = b"\\ud" in text or b"\\uD" in text or text.count(b"[") + text.count(b"{") > MAX_DEPTH
    if (suspect or _has_long_number(text)) and (found := problem(row)):
        raise DataError(found)
    return row


def parse_list(text: bytes) -> Any:
    """Parse a JSON document. If it is a list, its unusable elements are replaced by DataErrors."""
    try:
        content = _loads(text)
    except RecursionError:
        if not text.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
            raise DataError(_too_deep(_nested_key(text))) from None
        return [_or_error(element) for element in _elements(text)]
    if not isinstance(content, list):
        return content
    return [DataError(found) if (found := problem(row)) else row for row in content]


def problem(row: Any) -> str:
    """What makes a parsed row unusable, with its key; empty for a usable one."""
    stack: list[tuple[tuple[Any, ...], Any]] = [((), row)]
    while stack:
        path, value = stack.pop()
        if len(path) > MAX_DEPTH:
            return _too_deep(_key(path))
        if value is _HUGE:
            return f"Wanted numbers of at most {MAX_DIGITS} digits, found a longer one in {_key(path)}. Correct it."
        if isinstance(value, str) and not _is_utf8(value):
            return (
                f"Wanted text, found {value[:40]!a} in {_key(path)}, of which a part is no character (a lone surrogate "
                "or bytes that are not UTF-8). Write it again as UTF-8."
            )
        if isinstance(value, Mapping):
            stack += [((*path, "its keys"), key) for key in value]
            stack += [((*path, key), child) for key, child in value.items()]
        elif isinstance(value, list | tuple):
            stack += [((*path, i), child) for i, child in enumerate(value)]
    return ""


def _loads(text: bytes) -> Any:
    return json.loads(text.decode("utf-8-sig"), parse_int=_integer)


def _integer(digits: str) -> Any:
    return int(digits) if len(digits) <= MAX_DIGITS else _HUGE


def _has_long_number(text: bytes) -> bool:
    return len(text) > MAX_DIGITS and re.search(rb"[0-9]{%d}" % MAX_DIGITS, text) is not None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(path: tuple[Any, ...]) -> str:
    return ascii(".".join(map(str, path[:4])))[:100] if path else "the row"


def _too_deep(key: str) -> str:
    return f"Wanted at most {MAX_DEPTH} lists and mappings within each other, found more in {key}. Drop or flatten it."


def _or_error(text: bytes) -> Any:
    try:
        return parse_row(text)
    except DataError as error:
        return error


def _outline(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(place, depth after it, character) of each structural character outside of strings, and of each quote."""
    depth, quoted = 0, False
    for match in _STRUCTURE.finditer(text):
        character = match[0]
        if character == b'"':
            quoted = not quoted
        elif quoted or len(character) > 1:
            continue
        depth += (character in b"[{") - (character in b"]}")
        yield match.start(), depth, character


def _nested_key(text: bytes) -> str:
    """The key of the row under which the nesting becomes too deep."""
    key, start, end = "the row", 0, 0
    for place, depth, character in _outline(text):
        if character == b'"':
            start, end = end, place
        elif character == b":" and depth == 1:
            key = ascii(text[start + 1 : end].decode(errors="replace"))[:100]
        elif depth > MAX_DEPTH:
            break
    return key


def _elements(text: bytes) -> Iterator[bytes]:
    """The elements of a JSON list, not parsed."""
    start = text.index(b"[") + 1
    for place, depth, character in _outline(text):
        if depth == (character == b",") and character in b",]" and text[start:place].strip():
            yield text[start:place]
            start = place + 1
