"""Resolves references to media: a path, data URL or dict of a row becomes a file path or bytes. Nothing is opened."""

from __future__ import annotations

import base64
import binascii
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpost.errors import DataError

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+):")
_KEYS = ("bytes", "path", "url", "base64")


def locate(value: Any, root: str | Path | None, folder: str | Path | None) -> tuple[Path | bytes, str] | None:
    """Resolve a path, URL, bytes or dict of these to (file or content, name for messages); None for any other value.

    Relative paths start from `root`, or else from `folder`. With a root, paths that leave it raise DataError, also via
    symbolic links; but links of a Hugging Face cache, from snapshots/ to blobs/, are followed.
    """
    if isinstance(value, Mapping) and value and set(value) <= set(_KEYS):
        return _from_dict(value, root, folder)
    if isinstance(value, (bytes, bytearray, memoryview)):
        content = bytes(value)
        return content, f"<{len(content)} bytes>"
    if isinstance(value, Path):
        return _path(str(value), root, folder)
    if isinstance(value, str):
        return _from_text(value, root, folder)
    return None


def _from_dict(
    value: Mapping[str, Any], root: str | Path | None, folder: str | Path | None
) -> tuple[Path | bytes, str]:
    place = value.get("path") or value.get("url")
    content = value.get("bytes")
    if content is not None:
        try:
            # bytes(n) would make n zeros of a number; memoryview refuses it.
            content = bytes(content if isinstance(content, (list, tuple)) else memoryview(content))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"A medium's 'bytes' are bytes; found {type(content).__name__}: {content!r:.60}. Put base64 text under "
                "'base64', or give the path of the file."
            ) from error
        name = str(place) if place else f"<{len(content)} bytes>"
        return content, name
    if value.get("base64") is not None:
        if not isinstance(value["base64"], str):
            raise DataError(f"A medium's 'base64' is text; found {value['base64']!r:.60}. Encode the file again.")
        content = _decode(value["base64"], "base64 text")
        return content, f"<{len(content)} bytes>"
    if isinstance(place, Path):
        return _path(str(place), root, folder)
    if isinstance(place, str):
        return _from_text(place, root, folder)
    raise DataError(f"A medium needs bytes or a path; found {dict(value)!r:.200}. Set one of them, or drop the medium.")


def _from_text(text: str, root: str | Path | None, folder: str | Path | None) -> tuple[Path | bytes, str]:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _path(text, root, folder)
    if scheme[1].lower() == "data":
        return _data_url(text)
    if scheme[1].lower() == "file":
        parts = urllib.parse.urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise DataError(f"A file:// URL names a file on this machine; found host {parts.netloc!r} in {text}.")
        return _path(urllib.request.url2pathname(parts.path), root, folder)
    if not text[len(scheme[0]) :].startswith("//"):
        return _path(text, root, folder)
    raise DataError(
        f"Media are read from files, bytes or data URLs; found {text[:200]}. mmpost opens no network connection: "
        "download it and put its path into the row."
    )


def _path(text: str, root: str | Path | None, folder: str | Path | None) -> tuple[Path, str]:
    if not text or "\0" in text:
        raise DataError(f"A medium needs the path of a file; found {text!r:.200}.")
    start = Path(os.path.abspath(root if root is not None else folder or "."))
    path = Path(os.path.normpath(start / text))
    if root is not None:
        real, top = Path(os.path.realpath(path)), Path(os.path.realpath(start))
        blobs = [folder.parent / "blobs" for folder in (top, *top.parents) if folder.name == "snapshots"]
        if not any(real.is_relative_to(allowed) for allowed in (top, *blobs)):
            raise DataError(
                f"Media must lie inside the folder {start}; found {text}, which leads to {real}. "
                "Move the file, or choose a root (data.root) that holds it; without data.root, links may go anywhere."
            )
    return path, str(path)


def _data_url(text: str) -> tuple[bytes, str]:
    head, comma, body = text.partition(",")
    if not comma:
        raise DataError(f"A data URL has the form data:<type>;base64,<content>; found {text[:60]!r}.")
    content = _decode(body, head) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
    return content, f"{head[:60]},<{len(content)} bytes>"


def _decode(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name[:60]}: the content is not base64 ({error}). Encode the file again.") from error
