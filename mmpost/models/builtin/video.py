"""The tiny Qwen2.5-VL with the vocabulary of `data/worlds/clips.py`, and the time scale of the released models."""

from __future__ import annotations

import json
from pathlib import Path

from mmpost.models.builtin.qwen_vl import tiny_tokenizer, write_tiny

WORDS = " comes flash there when"
PIECES = (
    '{"answer": "',
    '", "start_time": "',
    '{"start_time": "',
    '", "end_time": "',
    '"}',
    "which digit",
    "is there",
    "comes first",
    "comes last",
    "when is the",
    "when does the square flash",
    ", and when?",
    ".5",
    ".0",
)
"""One token each: fragments of JSON as `json.dumps` writes it, fixed phrases of the questions, halves of a second."""


def write_tiny_video(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network."""
    write_tiny(folder, seed, tokenizer=tiny_tokenizer(WORDS, PIECES))
    config = Path(folder) / "config.json"
    fields = json.loads(config.read_text())
    # As in the released checkpoints; the class defaults to 4.
    fields["vision_config"]["tokens_per_second"] = 2
    config.write_text(json.dumps(fields, indent=2))
