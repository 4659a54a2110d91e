"""The registry of modalities: it defines which media mmpost can open.

Adding a modality takes one call: `mp.register_modality(mp.Modality("spectrum", open=..., header=...))`. Rows may then
hold `<spectrum>` placeholders with a column `spectrum` or `spectrums`, and parts of `{"type": "spectrum"}`.
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
    """How media of one modality are read. Functions get a seekable binary stream, whether of a file or of bytes."""

    name: str
    """Lower-case word: the `modality` of a Part, the placeholder `<name>` and the column `name` or `names` of a row."""
    open: Callable[..., Any]
    """(file, **options) -> the decoded value; the options are those of `Media.open`."""
    header: Callable[[BinaryIO], Mapping[str, float]]
    """Sizes by name, without decoding the medium."""
    preview: Callable[[Any], bytes] | None = None
    """Decoded value -> small PNG for reports; None plots arrays with one to three axes."""
    encode: Callable[[Any], bytes] = _encode_array
    """Value in memory -> content of a file; by default an array in .npy format."""
    size: Callable[[Any], int] = _nbytes
    """Decoded value -> its size in bytes for the cache; by default its `nbytes`."""
    blank: Callable[[Any], Any] | None = None
    """Decoded value -> an uninformative value of the same size, which probes substitute for the medium."""
    sketch: Callable[[Any], str] | None = None
    """Decoded value (opened with `preview_options`) -> one line for terminals."""
    preview_options: Mapping[str, Any] | None = None
    """Options that previews add to those of the medium."""


_registry: dict[str, Modality] = {}


def register_modality(new: Modality) -> Modality:
    """Register a modality. The same name again replaces it, so that a module can be reloaded.

    Raises PluginError for an invalid name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", new.name) or new.name == "text":
        raise PluginError(f'A modality needs a lower-case name other than "text"; found {new.name!r}. Rename it.')
    _registry[new.name] = new
    return new


def modality(name: str) -> Modality:
    """Look up a modality by name. Raises DataError for an unknown one."""
    if name not in _registry:
        raise DataError(
            f"Wanted a registered modality ({', '.join(_registry)}), found {name!r}: "
            "register it with mmpost.register_modality(Modality(...)), or correct the name."
        )
    return _registry[name]


def modalities() -> tuple[Modality, ...]:
    """All registered modalities, in order of registration."""
    return tuple(_registry.values())
