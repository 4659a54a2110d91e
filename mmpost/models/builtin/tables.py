"""The tiny Qwen2.5-VL for tables: OTSL tokens are single tokens, and texts in cells are spelled."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmpost.models.builtin.qwen_vl import tiny_processor, tiny_tokenizer, write_tiny

WORDS = """
cell row rows column columns value of in the highest lowest what which how many is greater than table otsl html
"""

PIECES = ("<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>", "table as otsl")
"""The tokens of OTSL and the instruction, one token each."""

PAPER = 1.0
"""Brightness that becomes 0 in normalized pixels: an empty square of white paper then has no activation."""


def tables_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with OTSL, in which every digit is a token.

    A number is then copied from its picture character by character, as a name is; a token of two digits would be one of
    a hundred pairs of characters to learn.
    """
    tokenizer = tiny_tokenizer(WORDS, PIECES)
    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Split(Regex("[0-9]"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    return tokenizer


def write_tiny_tables(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network."""
    tokenizer = tables_tokenizer()
    write_tiny(folder, seed, tokenizer)
    processor = tiny_processor(tokenizer)
    for subprocessor in (processor.image_processor, processor.video_processor):
        subprocessor.image_mean = [PAPER] * 3
    processor.save_pretrained(folder)
