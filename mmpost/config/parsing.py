"""Parse YAML and `key=value` arguments into nested mappings, and write them back. Does not import torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmpost.errors import ConfigError

Keys = tuple[str, ...]
"""The path of a setting."""
TEXT_KEYS = ("out", "resume", "config", "task", "task.name", "model", "model.name")
"""Keys whose value is always a name or path, even if it looks like a number."""
MAX_DIGITS = 1000


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: `off`, `no` and `1:30` are strings, `1e-6` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Keys are text as written, `0:` like `"0":`, as on the command line and in the JSON that a run writes."""
        text = "tag:yaml.org,2002:str"
        pairs = [(yaml.ScalarNode(text, k.value) if isinstance(k, yaml.ScalarNode) else k, v) for k, v in node.value]
        return super().construct_mapping(yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark), deep)


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


MAX_VALUES = 100_000
"""Of a document, counting each alias as often as it is used."""
MAX_DEPTH = 64


class _Refused(yaml.YAMLError):
    """YAML that is well-formed but has no finite or clear value."""


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML document. Raises ConfigError with its origin `where` and the line."""
    try:
        return _load(text)
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as e:
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else f"{e}"[:500]
        raise ConfigError(f"{where} is not valid YAML: {reason}") from None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file. Raises ConfigError where it cannot be read or is not valid."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: wanted a YAML file in UTF-8, found one that cannot be read ({e})") from None


def _load(text: str) -> Any:
    """Raises YAMLError, and for scalars that do not fit their tag ValueError or KeyError."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, (), {}) > MAX_VALUES:
            raise _Refused(f"wanted at most {MAX_VALUES} values, found more; write fewer aliases")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, parents: tuple[yaml.Node, ...], sizes: dict[int, int]) -> int:
    """The number of values under a node, with aliases expanded. Raises _Refused for what has no finite or clear value:
    an alias within what it refers to, deep nesting, a key that a mapping has twice.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if any(node is parent for parent in parents):
        raise _Refused(f"an alias refers to a value that contains it; write the value out{node.start_mark}")
    if len(parents) > MAX_DEPTH:
        raise _Refused(f"wanted at most {MAX_DEPTH} levels, found more{node.start_mark}")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _Refused(f"the key {key.value[:80]!r} occurs twice; remove one{key.start_mark}")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            children += [key, value]
    sizes[id(node)] = 1 + sum(_size(child, (*parents, node), sizes) for child in children)
    return sizes[id(node)]


def parse_argument(argument: str) -> dict[str, Any]:
    """A command-line argument `a.b=value` as a nested mapping. Raises ConfigError for any other form."""
    key, sep, value = argument.partition("=")
    if not sep or not key:
        raise ConfigError(f"wanted key=value, found {argument!r}; for example optim.lr=1e-6")
    if key in TEXT_KEYS:
        return nest(key, value)
    try:
        parsed = _load(value)
    except _Refused as e:
        raise ConfigError(f"{key}: {e}") from None
    except yaml.YAMLError:
        parsed = value
    except (ValueError, KeyError, RecursionError) as e:
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else f"{e}"[:200]
        raise ConfigError(f"{key}: wanted a value in YAML, found {value[:60]!r}: {reason}; correct it") from None
    if isinstance(parsed, dict | list) and value.lstrip()[:1] not in ("{", "["):
        # "a: b" and "- a" are mappings and lists to YAML; on a command line they are text, unless in brackets.
        parsed = value
    return nest(key, parsed)


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a key that `key=value` arguments set twice, also in sections (`model=a model.name=b`)."""
    keys = [argument.partition("=")[0] for argument in arguments if "=" in argument]
    for key in keys:
        if keys.count(key) > 1:
            values = ", ".join(repr(a.partition("=")[2][:60]) for a in arguments if a.startswith(f"{key}="))
            raise ConfigError(f"{key[:80]}: wanted one value, found {values}; remove the other arguments")
    _refuse_overlaps([(argument, list(_leaves(argument))) for argument in arguments if "=" in argument])


def _refuse_overlaps(settings: Sequence[tuple[str, Sequence[tuple[Keys, Any]]]]) -> None:
    """Raise ConfigError for arguments of which one sets a setting to another value, or replaces a section."""
    leaves: dict[Keys, tuple[str, Any]] = {}
    within: dict[Keys, str] = {}
    for argument, own in settings:
        for path, value in own:
            parents = [path[:end] for end in range(1, len(path))]
            found = [(parent, leaves[parent][0]) for parent in parents if parent in leaves]
            if path in within:
                found.append((path, within[path]))
            if path in leaves and leaves[path][1] != value:
                found.append((path, leaves[path][0]))
            if found and found[0][1] != argument:
                key, earlier = ".".join(found[0][0]), found[0][1]
                raise ConfigError(
                    f"{key[:80]}: wanted one value, found {earlier[:80]} and {argument[:80]}; remove one of them"
                )
            leaves[path] = (argument, value)
            within |= dict.fromkeys(parents, argument)


def _leaves(argument: str) -> Iterator[tuple[Keys, Any]]:
    """The settings of a `key=value` argument with their values; none of one that the command itself will refuse."""
    try:
        yield from _flat(parse_argument(argument), ())
    except ConfigError:
        return


def _flat(value: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    elif isinstance(value, str) and (path == ("model",) or path[-1:] == ("task",)):
        yield (*path, "name"), value  # as `run_config.merge` reads it
    else:
        yield path, value


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


class _Dumper(yaml.SafeDumper):
    """Writes text with Unicode's own line breaks in double quotes, which escape them; plain text folds them."""

    def represent_str(self, data: str) -> yaml.Node:
        has_breaks = any(c in data for c in "\x85\u2028\u2029")
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if has_breaks else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump(value: Mapping[str, Any]) -> str:
    """Write YAML that `parse_yaml` reads back to an equal value."""
    return yaml.dump(_to_builtin(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _to_builtin(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_builtin(v) for v in value]
    return value
