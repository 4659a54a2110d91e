"""The tiny Qwen2.5-VL with the vocabulary of the shapes world: counts, attributes, cells, edits and small sums."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.builtin.qwen_vl import tiny_tokenizer, write_tiny

WORDS = """
circles squares triangle triangles diamond diamonds cross crosses star stars large solid hollow
add subtract what picture width height area perimeter
"""

PIECES = (
    "think in <think>, answer in <answer>",
    "how many",
    ". how many",
    "subtract all",
    "are left?",
    "are there?",
    "what is",
    "name the objects",
    "of picture",
    "objects (",
    "). which calls lead from picture 1 to picture 2?",
    "change_size(",
    "change_color(",
    "change_material(",
    "change_shape(",
    "change_position(",
    ", '",
    "')",
)
"""The fixed phrases of the questions in data/worlds/shapes, one token each."""


def write_tiny_shapes(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network."""
    write_tiny(folder, seed, tiny_tokenizer(WORDS, PIECES))
