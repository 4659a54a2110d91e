"""The tiny model of `qwen_vl.py` with the vocabulary of the synthetic aerial images."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.builtin.qwen_vl import tiny_tokenizer, write_tiny

WORDS = """
airport baseball basketball boat bus car cars city farm field forest harbor here house houses how kind large long medium
place plane played pond round running scene shape soccer sport tennis train tree trees triangle vehicle village
"""
PIECES = (
    "think in <think>, answer in <answer>",
    "what color is the",
    "what shape is the",
    "how large is the",
    "are there?",
    "what vehicle is there?",
    "what sport is played here?",
    "what kind of place is this?",
    "where is the",
)
"""The fixed phrases of the questions, one token each."""


def write_tiny_aerial(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network."""
    write_tiny(folder, seed, tokenizer=tiny_tokenizer(WORDS, PIECES))
