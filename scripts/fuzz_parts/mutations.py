"""Random changes of valid values, texts and bytes."""

from __future__ import annotations

import random
from typing import Any

MOST = 100_000
"""Characters of a text."""

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**400, float("nan"), float("inf"), "", " ", "\x00", "\u202e", "\ud800", "é" * 3000),
    *(
        [],
        {},
        [[]],
        [None],
        {"": 0},
        {"bytes": "x"},
        "data:image/png;base64,AAAA",
        "file:///dev/zero",
        "../../etc/passwd",
    ),
    *("<image>", "<image><image>", "<video>", "https://example.invalid/a.png", "a" * 100_000, [[[[[[[[1]]]]]]]]),
)
"""Values that take the place of others."""


def mutate_value(value: Any, rng: random.Random) -> Any:
    """The JSON value with one random part replaced, removed, repeated or nested."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        kind = rng.randrange(4)
        if kind == 0:
            return [value] * rng.choice((1, 2, 50))
        if kind == 1 and isinstance(value, str):
            return mutate_text(value, rng)
        return rng.choice(ODD)
    if isinstance(value, list):
        i = rng.randrange(len(value))
        return value[:i] + ([mutate_value(value[i], rng)] if rng.random() < 0.8 else []) + value[i + 1 :]
    key = rng.choice(list(value))
    kind = rng.randrange(4)
    rest = {k: v for k, v in value.items() if k != key}
    if kind == 0:
        return rest
    if kind == 1:
        return {**rest, mutate_text(key, rng): value[key]}
    return {**value, key: mutate_value(value[key], rng)}


def mutate_text(text: str, rng: random.Random) -> str:
    """The text with a random piece removed, repeated, replaced or inserted."""
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    inserted = rng.choice(
        ("", " ", "\n", ":", "=", "{", "[", "]", "&a ", "*a", "!!", "'", '"', "\x00", "\u202e", "9" * 400, "-")
    )
    mutated = text[:a] + rng.choice((inserted, text[a:b] * rng.choice((0, 2, 100)), inserted * 2000)) + text[b:]
    return mutated[:MOST]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some flipped, cut off, or a piece repeated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        out[rng.randrange(min(len(out), rng.choice((32, 200, len(out)))))] = rng.randrange(256)
    if rng.random() < 0.3:
        out = out[: rng.randrange(len(out))]
    return bytes(out)
