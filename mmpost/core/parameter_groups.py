"""Which part of a model (vision, projector, language, ...) a name belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def under(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def owner(name: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The part of the longest prefix that fits a parameter or module; "other" where none does.

    `parts` is what `Model.parts` says: prefixes by part.
    """
    fits = [(len(prefix), part) for part, prefixes in parts.items() for prefix in prefixes if under(name, prefix)]
    return max(fits)[1] if fits else "other"
