"""A Qwen2.5-VL of a million parameters with tokenizer and processor, built in code: the model of tests and demos.

`write_tiny(folder)` writes a checkpoint that transformers' Auto classes load like a published one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

PIECES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    '[{"bbox_2d": [',
    '], "point_2d": [',
    ']}, {"bbox_2d": [',
    "]}]",
    "[]",
    ", ",
    "\\boxed{",
    'find "',
    '" with box and point; think in <think>, answer in <answer>, like',
    '[{"bbox_2d": [10, 20, 30, 40], "point_2d": [20, 30]}]',
)
"""One token each: fragments of JSON as `json.dumps` writes it, and the fixed phrases of the built-in prompts.

They keep a prompt near 30 tokens and an answer under 20, which decides the cost of a step on a CPU.
"""

WORDS = """
a above after all an and answer are at before below between big biggest black blue bottom box boxes brown but by center
circle color colour corner count counts different digit digits does each eight equal even every example false fewer find
first five form four frame frames from gray green has highest how i image in is it its json largest last left leftmost
less like look lower lowest many middle more most moves near nearest next nine no none not number object objects odd of
on one or orange other over pink point points purple red reply right rightmost row same second see seven shape six small
smallest sorry square step sum that the their then there these they thing things think third this three tiny to top
total true two under up upper video what when where which white wide with yellow yes you zero assistant system user
"""
"""One token each, with and without a leading space; other text is spelled out in bytes."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""
"""Qwen's template, without its default system turn: a system message is written only where one is given."""


SPREAD = 0.08
"""Standard deviation of initial weights. At the usual 0.02 a model this small hardly learns to use images."""


def tiny_tokenizer(more_words: str = "", more_pieces: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Words, numbers below 100 and fragments of JSON as single tokens, other text as bytes: a lossless tokenizer.

    `more_words` (separated by spaces) and `more_pieces` extend the vocabulary for another domain.
    """
    numbers = [str(n) for n in range(100)]
    words, pieces = (WORDS + more_words).split(), (*PIECES, *more_pieces)
    spaced = [*(f" {w}" for w in (*words, *pieces, *numbers)), *(f", {n}" for n in numbers)]
    symbols = [*pieces, *words, *numbers, *spaced]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    in_bytes = [as_bytes.pre_tokenize_str(s)[0][0] for s in symbols]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*alphabet, *in_bytes]))}
    longest_first = "|".join(re.escape(p) for p in sorted(pieces, key=len, reverse=True))
    pattern = f"(?:, | )?[0-9]{{1,2}}| ?(?:{longest_first})| ?[A-Za-z]+|[\\s\\S]"
    # With ignore_merges a pre-token in the vocabulary is one token: words need no chain of merges.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_processor(tokenizer: PreTrainedTokenizerFast | None = None) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor over a tiny tokenizer; images whose sides are multiples of 28 keep their size."""
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4096}
    vision = {
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": size,
        # Black becomes 0, so that an empty patch has no activation: this learns several times faster than CLIP's mean.
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [0.25, 0.25, 0.25],
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**vision),
        tokenizer=tokenizer or tiny_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**vision),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Sizes at which the model learns from real images within two minutes on two cores."""
    ids = {name: tokenizer.get_vocab()[name] for name in SPECIAL}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": SPREAD,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [0, 1],
        "initializer_range": SPREAD,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


@torch.no_grad()
def _order_numbers(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give close numbers close embeddings, input and output, as pretrained models have: sinusoids with 32 periods.

    Only for numbers in the form of coordinates ("36" and ", 36"), not after a space, as in "the 7".
    """
    periods = torch.exp(torch.linspace(math.log(12), math.log(250), 32))
    angles = 2 * math.pi * torch.arange(100)[:, None] / periods
    waves = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(32)
    for weight, scale in ((model.model.language_model.embed_tokens.weight, 1.0), (model.lm_head.weight, 2.0)):
        dim = weight.shape[1]
        shared = 0.9 * scale * SPREAD * waves @ torch.randn(waves.shape[1], dim)
        for form in ("{}", ", {}"):
            ids = [tokenizer.encode(form.format(n))[0] for n in range(100)]
            weight[ids] = shared + 0.4 * SPREAD * torch.randn(dim)


def write_tiny(folder: Path | str, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network.

    `tokenizer`: that of `tiny_tokenizer`, perhaps with more words. Does not change the caller's random state.
    """
    processor = tiny_processor(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(processor.tokenizer))
        _order_numbers(model, processor.tokenizer)
    model.generation_config = GenerationConfig(
        eos_token_id=processor.tokenizer.eos_token_id, pad_token_id=processor.tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
