"""The words of a command that trains a study: its own, and settings of all its cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError


def split(words: Sequence[str], known: Collection[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The command's own words (`known`), and all others as settings."""
    own: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for word in words:
        key, sep, value = word.partition("=")
        if sep and key in known:
            own[key] = value
        else:
            settings = run_config.merge(settings, parsing.parse_argument(word))
    return own, settings


def count(own: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from 1 among the command's own words."""
    text = own.get(name, str(default))
    if not text.isdigit() or not int(text):
        raise ConfigError(f"{name}={text}: wanted a whole number from 1")
    return int(text)
