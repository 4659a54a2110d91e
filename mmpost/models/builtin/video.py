"""The tiny model with the words of `data/clips.py`, and the clock of the released Qwen2.5-VL."""

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
"""JSON as `json.dumps` writes it, the fixed phrases of the questions, and the halves of a second."""


def write_tiny_video(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, its tokenizer and its processor into `folder`; needs no network."""
    write_tiny(folder, seed, tokenizer=tiny_tokenizer(WORDS, PIECES))
    config = Path(folder) / "config.json"
    told = json.loads(config.read_text())
    # Time positions per second of video, as in the released checkpoints; the default of the class is 4.
    told["vision_config"]["tokens_per_second"] = 2
    config.write_text(json.dumps(told, indent=2))
