"""Samples and replies for tests of rewards."""

from __future__ import annotations

from typing import Any

from mmpost.types import Part, Reply, Sample


def reply(text: str) -> Reply:
    return Reply((Part("text", text),))


def answered(text: str, thought: str = "so") -> Reply:
    """The answer after a thought, in their tags."""
    return reply(f"<think>{thought}</think><answer>{text}</answer>")


def asked(truth: Any) -> Sample:
    return Sample("s", (), truth=truth)
