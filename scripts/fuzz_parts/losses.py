"""What must hold of an input that was accepted."""

from __future__ import annotations


class SilentLoss(Exception):
    """An accepted input of which something got lost."""


def require(what: str, holds: bool) -> None:
    """Raise SilentLoss where something went wrong without an error."""
    if not holds:
        raise SilentLoss(what)
