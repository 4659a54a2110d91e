"""The registry of media kinds: what mmpost can open is what is registered here.

A new sensor is one call, from anywhere: `register(Modality("spectrum", open=..., header=...))`. From then on rows
may hold
`<spectrum>` placeholders with a `spectrum` or `spectrums` column, and parts of `{"type": "spectrum"}`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from mmpost.errors import DataError, PluginError


def _encode_array(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
    return buffer.getvalue()


def _nbytes(value: Any) -> int:
    return int(getattr(value, "nbytes", 1 << 20))


@dataclass(frozen=True)
class Modality:
    """How one kind of medium is read. Files are handed over as seekable binary streams, whatever they came from."""

    name: str
    """Lower-case word: the `kind` of a Part, the placeholder `<name>` and the column `name` or `names` of a row."""
    open: Callable[..., Any]
    """(file, **options) -> the decoded value; the options are those of `Media.open`."""
    header: Callable[[BinaryIO], Mapping[str, float]]
    """Sizes by name, without decoding."""
    preview: Callable[[Any], bytes] | None = None
    """Decoded value -> small PNG for reports; None draws arrays of one to three axes."""
    encode: Callable[[Any], bytes] = _encode_array
    """A value in memory -> what a file of it would hold; by default the .npy format of an array."""
    size: Callable[[Any], int] = _nbytes
    """Bytes that a decoded value takes, for the bound of the cache; by default its `nbytes`."""
    blank: Callable[[Any], Any] | None = None
    """Decoded value -> a decoded one of the same sizes that says nothing; probes put it in a medium's place."""
    sketch: Callable[[Any], str] | None = None
    """Decoded value (opened with `preview_options`) -> one line for terminals."""
    preview_options: Mapping[str, Any] | None = None
    """Options with which a medium is opened for its preview, over those of its own."""


_kinds: dict[str, Modality] = {}


def register(new: Modality) -> Modality:
    """Add a kind; the same name again replaces it (so that a module may be reloaded)."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", new.name) or new.name == "text":
        raise PluginError(f'A kind needs a lower-case name other than "text"; found {new.name!r}. Rename it.')
    _kinds[new.name] = new
    return new


def modality(name: str) -> Modality:
    """Look a kind up by name."""
    if name not in _kinds:
        raise DataError(
            f"Wanted a registered kind of media ({', '.join(_kinds)}), found {name!r}: "
            "register it with mmpost.data.media.modalities.register(Modality(...)), or correct the name."
        )
    return _kinds[name]


def modalities() -> tuple[Modality, ...]:
    """All registered kinds, the first registered first."""
    return tuple(_kinds.values())
