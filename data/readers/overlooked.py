"""Media that a row probably means, but that are not read: in columns of other names, or placeholders without media."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.data.media.modalities import modalities
from mmpost.data.readers.rows import Row, is_empty
from mmpost.errors import DataError
from mmpost.types import Sample

MEDIA_WORDS = {
    **dict.fromkeys(("img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos"), "image"),
    **dict.fromkeys(("vid", "vids", "clip", "clips"), "video"),
    **dict.fromkeys(("wav", "wavs", "sound", "sounds"), "audio"),
}
"""Words in the names of columns that probably hold media, besides the names of modalities."""
_FILE = re.compile(r"(data:|file:|https?://)\S+|[^\n]*\.[A-Za-z][A-Za-z0-9]{1,4}")


def unread_media(row: Row, read: Sequence[Sample], known: Sequence[str]) -> str:
    """A sentence about a column that seems to hold media of a modality of which the samples have none; else empty.

    `known`: columns that whoever uses the samples reads. Raises DataError for a column that is named as media are, such
    as `imgs`; of others, such as `image_path`, only the user can know.
    """
    present = {part.modality for s in read for part in (*s.prompt, *(p for r in s.replies for p in r.parts))}
    for name, value in row.meta.items():
        modality, is_certain = _media_word(name)
        if modality and modality not in present and name not in known and _is_reference(value):
            message = (
                f"Wanted media in a column named {modality} or {modality}s, found {value!r:.80} in {name!r:.80}, which "
                "is not read. Rename the column, or drop it."
            )
            if is_certain:
                raise DataError(message)
            return message
    return ""


def _media_word(name: str) -> tuple[str, bool]:
    """The modality in the name of a column, if any, and whether nothing else is in it."""
    words = re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1_\2", str(name)).lower())
    names = {m.name for m in modalities()}
    guesses = [w if w in names else w[:-1] if w[:-1] in names else MEDIA_WORDS.get(w, "") for w in words]
    found = [guess for guess in guesses if guess in names]
    return (found[0] if found else ""), len(found) == len(words)


def _is_reference(value: Any) -> bool:
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    is_mapping = isinstance(first, Mapping) and not is_empty(first) and set(first) <= {"bytes", "path", "url", "base64"}
    return is_mapping or isinstance(first, bytes) or (isinstance(first, str) and bool(_FILE.fullmatch(first)))


def left_placeholder(read: Sequence[Sample]) -> str:
    """A sentence about a placeholder that is text in a prompt without media of its modality; empty if there is none."""
    for sample in read:
        present = {part.modality for part in sample.prompt}
        texts = [part.value for part in sample.prompt if part.modality == "text" and part.role != "assistant"]
        for name in (m.name for m in modalities() if m.name not in present):
            if any(f"<{name}>" in text for text in texts):
                return f"<{name}> stays text, since the row has no {name}. Add the column {name}, or remove <{name}>."
    return ""
