"""Lookup of names in a table, for settings whose values are rows of one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def require_known(name: str, known: Iterable[str], setting: str) -> None:
    """Raise ValueError, listing `known` and the nearest name in it, unless `name` is one of them."""
    names = list(known)
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"wanted {setting} to be one of {', '.join(names)}, found {name!r}{hint}")
