"""A Qwen2-Audio of less than a million parameters, built in code; it takes clips of up to two seconds."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    AddedToken,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from mmpost.models.builtin.qwen_vl import SPREAD, tiny_tokenizer

RATE = 16_000
"""Hz. Whisper's mel bands reach up to 8 kHz at any rate."""
SECONDS = 2
"""Of the longest clip. Every clip is padded to it, but only the clip itself becomes tokens (25 per second)."""
MELS = 40

AUDIO = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
"""Qwen2-Audio's placeholder and the brackets around it."""

WORDS = """
beep beeps bell buzz came choose click clicks falling flat hear heard hiss horn knock knocks listen long longest loud
loudest low music noise option options pitch quiet rising said short silence siren sound sounds speaker spoken tone
tones voice was were word
"""
"""Words of questions about sounds, besides those of `qwen_vl.WORDS`."""

PIECES = ("']", "['", "', '", "; answer in <answer>", "; think in <think>, answer in <answer>")
"""A list of options as Python writes it, and the fixed phrases of the built-in prompts."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}
{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}
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
"""Qwen2-Audio's template, without its default system turn and the numbering of clips."""


def tiny_audio_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with words about sounds, and the placeholder of audio with its brackets."""
    tokenizer = tiny_tokenizer(WORDS, PIECES)
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in AUDIO], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_audio_processor() -> Qwen2AudioProcessor:
    """Qwen2-Audio's processor: 100 frames of `MELS` bands per second, two frames per encoder position."""
    features = WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, chunk_length=SECONDS, return_attention_mask=True
    )
    return Qwen2AudioProcessor(features, tiny_audio_tokenizer(), chat_template=CHAT_TEMPLATE)


def tiny_audio_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2AudioConfig:
    """Sizes at which the model learns real spoken digits within a minute on two cores."""
    vocab = tokenizer.get_vocab()
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": SPREAD,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": vocab["<|im_end|>"],
        "pad_token_id": vocab["<|endoftext|>"],
    }
    audio = {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": MELS,
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "max_source_positions": 50 * SECONDS,
        "initializer_range": SPREAD,
    }
    common = {"initializer_range": SPREAD, "tie_word_embeddings": False}
    return Qwen2AudioConfig(text_config=text, audio_config=audio, audio_token_index=vocab[AUDIO[0]], **common)


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Whisper's fixed position embeddings (arXiv 2212.04356): sines and cosines, periods from 2 pi to 20,000 pi."""
    periods = torch.exp(math.log(10000) * torch.arange(dim // 2) / (dim // 2 - 1))
    angles = torch.arange(length)[:, None] / periods
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def write_tiny_audio(folder: Path | str, seed: int = 0) -> None:
    """Write the model with random weights, tokenizer and processor into `folder`; needs no network.

    Does not change the caller's random state. The encoder's position embeddings are fixed, as in the published model.
    """
    processor = tiny_audio_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(tiny_audio_config(processor.tokenizer))
    with torch.no_grad():
        positions = model.model.audio_tower.embed_positions.weight
        positions.copy_(sinusoids(*positions.shape))
    model.generation_config = GenerationConfig(
        eos_token_id=processor.tokenizer.eos_token_id, pad_token_id=processor.tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
