"""Which part of a model (vision, projector, language, ...) a parameter or module belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def under(name: str, prefix: str) -> bool:
    """Whether a dotted name equals `prefix` or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def owner(name: str, parts: Mapping[str, Sequence[str]]) -> str:
    """The part of a parameter or module: that of the longest matching prefix, or "other".

    `parts`: prefixes by part, as `Model.parameter_groups` returns them.
    """
    matches = [(len(prefix), part) for part, prefixes in parts.items() for prefix in prefixes if under(name, prefix)]
    return max(matches)[1] if matches else "other"
