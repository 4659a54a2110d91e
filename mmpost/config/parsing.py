"""Parse YAML and `key=value` arguments into nested mappings, and write them back. Does not import torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mmpost.errors import ConfigError

TEXT_KEYS = ("out", "resume", "config", "task", "task.name", "model", "model.name")
"""Keys whose value is always a name or path, even if it looks like a number."""
MAX_DIGITS = 1000


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `off`, `no` and `1:30` are strings, `1e-6` is a number."""

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


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    """Leading zeros are ignored; in YAML 1.1 they would make a number octal. What has more digits than any number here
    stays text: Python converts no more than 4300."""
    text = str(loader.construct_scalar(node))
    if len(text) > MAX_DIGITS:
        return text
    return int(text, 16 if "x" in text else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML document. Raises ConfigError with its origin `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{where} is not valid YAML: {e}") from e


def parse_argument(argument: str) -> dict[str, Any]:
    """A command-line argument `a.b=value` as a nested mapping. Raises ConfigError for any other form."""
    key, sep, value = argument.partition("=")
    if not sep or not key:
        raise ConfigError(f"wanted key=value, found {argument!r}; for example optim.lr=1e-6")
    if key in TEXT_KEYS:
        return nest(key, value)
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        parsed = value
    if isinstance(parsed, dict | list) and value.lstrip()[:1] not in ("{", "["):
        # "a: b" and "- a" are mappings and lists to YAML; on a command line they are text, unless in brackets.
        parsed = value
    return nest(key, parsed)


def nest(key: str, value: Any) -> dict[str, Any]:
    """Turn the dotted key "a.b" and a value v into {"a": {"b": v}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def parse_arguments(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The `key=value` arguments of a command that accepts only the keys `known`. Raises ConfigError for any other."""
    values: dict[str, str] = {}
    for argument in arguments:
        key, sep, value = argument.partition("=")
        if not sep or key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"unknown argument {argument!r}; this command takes {', '.join(known)}; did you mean {close[0]}=?"
            )
        values[key] = value
    return values


def dump(value: Mapping[str, Any]) -> str:
    """Write YAML that `parse_yaml` reads back to an equal value."""
    return yaml.safe_dump(_to_builtin(value), sort_keys=False, allow_unicode=True)


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _to_builtin(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_builtin(v) for v in value]
    return value
