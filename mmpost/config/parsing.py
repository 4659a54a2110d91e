"""YAML text and `key=value` arguments as nested mappings, and back. No torch here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mmpost.errors import ConfigError

TEXT_KEYS = ("out", "resume", "config", "task", "task.name", "model", "model.name")
"""Words whose value is a name or path, whatever it looks like."""


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `off`, `no` and `1:30` are text, `1e-6` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """A leading zero is just a zero (version 1.1 made it octal)."""
    text = str(loader.construct_scalar(node))
    return int(text, 16 if "x" in text else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, where: str) -> Any:
    """The YAML document in `text`; raises ConfigError with `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{where} is not valid YAML: {e}") from e


def parse_argument(word: str) -> dict[str, Any]:
    """One `a.b=value` of the command line as a nested mapping."""
    key, sep, value = word.partition("=")
    if not sep or not key:
        raise ConfigError(f"expected key=value, found {word!r}; write it as e.g. optim.lr=1e-6")
    if key in TEXT_KEYS:
        return nest(key, value)
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        parsed = value
    if isinstance(parsed, dict | list) and value.lstrip()[:1] not in ("{", "["):
        parsed = value  # text with a colon or dash in it
    return nest(key, parsed)


def nest(key: str, value: Any) -> dict[str, Any]:
    """{"a.b": v} as {"a": {"b": v}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def parse_arguments(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The key=value words of a command that takes only the keys `known`; raises ConfigError for any other."""
    found: dict[str, str] = {}
    for word in given:
        key, sep, value = word.partition("=")
        if not sep or key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"unknown word {word!r}; this command takes {', '.join(known)}; did you mean {close[0]}=?"
            )
        found[key] = value
    return found


def dump(value: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads back equal."""
    return yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return value
