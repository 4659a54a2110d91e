"""Samples and replies for reward tests."""

from __future__ import annotations

from typing import Any

from mmpost.types import Part, Reply, Sample


def reply(text: str) -> Reply:
    return Reply((Part("text", text),))


def tagged_reply(text: str, thought: str = "so") -> Reply:
    """A reply with thought and answer in tags."""
    return reply(f"<think>{thought}</think><answer>{text}</answer>")


def sample_with_truth(truth: Any) -> Sample:
    return Sample("s", (), truth=truth)
