"""Checkpoints of every supported family with two layers and random weights, made without a download.

Processors, special tokens and templates are shaped like the published ones; the vocabulary is that of the tiny model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import processors

from mmpost.models.builtin.qwen_vl import CHAT_TEMPLATE, tiny_tokenizer

SPREAD = 0.1

QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + CHAT_TEMPLATE
)
"""Adds a default system turn."""

SPACED_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + ' ' -}}
{%- for part in message.content if part.type == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}{{- '\\n' + part.text -}}{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
"""LLaVA-OneVision: images before all text, nothing after the end of a turn, replies of earlier turns after a space."""

INTERN_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<IMG_CONTEXT>\\n' -}}{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

UTTERANCE_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- message.role | capitalize + (':' if message.content[0].type == 'image' else ': ') -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<image>' -}}{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"""
"""Idefics3 and SmolVLM: a reply starts with a space, which is not part of the generation prompt."""

AUDIO_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}{{- '<|audio_bos|><|AUDIO|><|audio_eos|>\\n' -}}
{%- elif part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

GEMMA_TEMPLATE = """\
{{- bos_token -}}
{%- set start = namespace(prefix='', turns=messages) -%}
{%- if messages[0].role == 'system' -%}
{%- set start.prefix = messages[0].content[0].text + '\\n\\n' -%}
{%- set start.turns = messages[1:] -%}
{%- endif -%}
{%- for message in start.turns -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{{- start.prefix if loop.first else '' -}}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<start_of_image>' -}}{%- else -%}{{- part.text | trim -}}{%- endif -%}
{%- endfor -%}
{{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""


@dataclass(frozen=True)
class Family:
    """How to build a model of the family, and the values that tests expect."""

    make: Callable[[], tuple[hf.PreTrainedModel, Any]]
    end: str
    """Token that ends an assistant turn."""
    banned: tuple[str, ...]
    """Placeholder tokens that no reply may contain."""
    frame: str
    """Coordinate frame: "thousand", "resized" or "original"."""
    parts: frozenset[str] = frozenset({"vision", "projector", "language", "head"})
    pixels: bool = False
    """Whether it has a pixel budget."""
    modality: str = "image"
    """Modality of the media in its test prompts."""
    stable: bool = True
    """Whether the template renders the reply of an earlier turn exactly as generation prompt plus reply."""


def build(name: str, folder: Path) -> None:
    """Write a checkpoint of the family `name` into `folder`; noise on all weights, so that every part has an effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = FAMILIES[name].make()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=SPREAD / 2)
    tokenizer = processor.tokenizer
    ends = [tokenizer.convert_tokens_to_ids(FAMILIES[name].end), tokenizer.eos_token_id]
    model.generation_config.update(eos_token_id=list(dict.fromkeys(ends)), pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(template: str, special: tuple[str, ...] = (), bos: str | None = None, **named: str) -> Any:
    """The tiny tokenizer with more special tokens; `bos` is put before every text, as for Llama and Gemma."""
    inner = tiny_tokenizer().backend_tokenizer
    inner.add_special_tokens([*special, *([bos] if bos else []), *named.values()])
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    standard = {k: named.pop(k) for k in ("eos_token", "pad_token") if k in named}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=bos,
        **({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | standard),
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        chat_template=template,
    )


def _text(tokenizer: Any, **overrides: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + 5,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": SPREAD,
        "attention_dropout": 0.3,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **overrides,
    }


def _vision(**overrides: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    spread = {"initializer_range": SPREAD, "attention_dropout": 0.3}
    return {**sizes, **spread, "image_size": 28, "patch_size": 7, **overrides}


def _qwen(
    version: str, patch: int, text: Mapping[str, Any], vision: Mapping[str, Any]
) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        tokenizer = _tokenizer(QWEN_TEMPLATE)
        budget = {"shortest_edge": 4 * patch * patch, "longest_edge": 4 * patch * patch * 64}
        pixels = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "size": budget}
        video = "Qwen3VL" if version == "Qwen3VL" else "Qwen2VL"
        processor = getattr(hf, f"{version.replace('Qwen25', 'Qwen2_5_')}Processor")(
            image_processor=hf.Qwen2VLImageProcessor(**pixels),
            tokenizer=tokenizer,
            video_processor=getattr(hf, f"{video}VideoProcessor")(**pixels),
            chat_template=QWEN_TEMPLATE,
        )
        ids = tokenizer.convert_tokens_to_ids
        name = version.replace("Qwen25", "Qwen2_5_")
        config = getattr(hf, f"{name}Config")(
            text_config=_text(tokenizer, **text),
            vision_config={"depth": 2, "num_heads": 2, "initializer_range": SPREAD, "patch_size": patch, **vision},
            image_token_id=ids("<|image_pad|>"),
            video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids("<|vision_start|>"),
            vision_end_token_id=ids("<|vision_end|>"),
        )
        return getattr(hf, f"{name}ForConditionalGeneration")(config), processor

    return make


def _rotary(sections: list[int], **overrides: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **overrides}}


def _onevision() -> tuple[Any, Any]:
    tokenizer = _tokenizer(SPACED_TEMPLATE, ("<image>", "<video>"))
    grid = [[h, w] for h in (28, 56, 84) for w in (28, 56, 84)]
    processor = hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(
            size={"height": 28, "width": 28}, image_grid_pinpoints=grid, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        video_processor=hf.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=SPACED_TEMPLATE,
    )
    config = hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_vision()},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _utterances(version: str) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        tiles = tuple(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))
        special = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *tiles)
        tokenizer = _tokenizer(UTTERANCE_TEMPLATE, special, bos="<|begin_of_text|>", eos_token="<end_of_utterance>")
        sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
        video_processor = {}
        if version == "SmolVLM":
            video = {**sizes, "video_sampling": {"max_frames": 4, "fps": 1, "video_size": {"longest_edge": 28}}}
            video_processor = {"video_processor": hf.SmolVLMVideoProcessor(**video)}
        processor = getattr(hf, f"{version}Processor")(
            image_processor=getattr(hf, f"{version}ImageProcessor")(**sizes),
            tokenizer=tokenizer,
            image_seq_len=4,
            chat_template=UTTERANCE_TEMPLATE,
            **video_processor,
        )
        config = getattr(hf, f"{version}Config")(
            text_config={"model_type": "llama", **_text(tokenizer)},
            vision_config=_vision(),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            pad_token_id=tokenizer.pad_token_id,
            scale_factor=2,
        )
        return getattr(hf, f"{version}ForConditionalGeneration")(config), processor

    return make


def _internvl() -> tuple[Any, Any]:
    tokenizer = _tokenizer(
        INTERN_TEMPLATE,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(size={"height": 28, "width": 28}),
        image_seq_length=4,
        chat_template=INTERN_TEMPLATE,
    )
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config=_vision(image_size=[28, 28], patch_size=[7, 7]),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _gemma() -> tuple[Any, Any]:
    special = ("<start_of_turn>", "<end_of_turn>")
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(GEMMA_TEMPLATE, special, bos="<bos>", eos_token="<eos>", pad_token="<pad>", **named)
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=4,
    )
    ids = tokenizer.convert_tokens_to_ids
    # The window is shorter than the prompts; the layers alternate.
    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 16}
    config = hf.Gemma3Config(
        text_config=_text(tokenizer, tie_word_embeddings=True, query_pre_attn_scalar=16, **layers),
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **_vision()},
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def _feature_extractor() -> hf.WhisperFeatureExtractor:
    return hf.WhisperFeatureExtractor(feature_size=20, chunk_length=1, sampling_rate=16000)


def _audio_config(**overrides: Any) -> dict[str, Any]:
    sizes = {
        "num_mel_bins": 20,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "d_model": 32,
    }
    dropouts = {"dropout": 0.3, "attention_dropout": 0.3, "activation_dropout": 0.3}
    return {**sizes, **dropouts, "max_source_positions": 50, "initializer_range": SPREAD, **overrides}


def _qwen_audio() -> tuple[Any, Any]:
    tokenizer = _tokenizer(AUDIO_TEMPLATE, ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"))
    processor = hf.Qwen2AudioProcessor(
        feature_extractor=_feature_extractor(),
        tokenizer=tokenizer,
        chat_template=AUDIO_TEMPLATE,
        audio_token="<|AUDIO|>",
    )
    config = hf.Qwen2AudioConfig(
        audio_config=_audio_config(encoder_layerdrop=0.3),
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return hf.Qwen2AudioForConditionalGeneration(config), processor


def _omni() -> tuple[Any, Any]:
    named = {
        **{"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "audio_token": "<|AUDIO|>"},
        **{"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"},
        **{"audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"},
    }
    tokenizer = _tokenizer(AUDIO_TEMPLATE, (), **named)
    pixels: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    pixels["size"] = {"shortest_edge": 4 * 196, "longest_edge": 4 * 196 * 64}
    processor = hf.Qwen2_5OmniProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**pixels),
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        feature_extractor=_feature_extractor(),
        tokenizer=tokenizer,
        chat_template=AUDIO_TEMPLATE,
    )
    ids = tokenizer.convert_tokens_to_ids
    vision = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
    vision |= {"fullatt_block_indexes": [1], "window_size": 56, "patch_size": 14, "initializer_range": SPREAD}
    config = hf.Qwen2_5OmniThinkerConfig(
        audio_config=_audio_config(n_window=10, output_dim=64),
        vision_config=vision,
        text_config=_text(tokenizer, **_rotary([4, 2, 2])),
        **{f"{modality}_token_index": ids(named[f"{modality}_token"]) for modality in ("audio", "image", "video")},
        audio_start_token_id=ids("<|audio_bos|>"),
        audio_end_token_id=ids("<|audio_eos|>"),
        **{"vision_start_token_id": ids("<|vision_start|>")},
        user_token_id=ids("user"),
    )
    return hf.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


QWEN_BANNED = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
IDEFICS_BANNED = ("<fake_token_around_image>", "<image>", "<global-img>")

FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(
        _qwen("Qwen2VL", 14, _rotary([4, 2, 2]), {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}),
        end="<|im_end|>",
        banned=QWEN_BANNED,
        frame="thousand",
        pixels=True,
    ),
    "qwen2_5_vl": Family(
        _qwen(
            "Qwen25VL",
            14,
            _rotary([4, 2, 2]),
            {
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "fullatt_block_indexes": [1],
                "window_size": 56,
            },
        ),
        end="<|im_end|>",
        banned=QWEN_BANNED,
        frame="resized",
        pixels=True,
    ),
    "qwen3_vl": Family(
        _qwen(
            "Qwen3VL",
            16,
            _rotary([4, 2, 2], mrope_interleaved=True) | {"head_dim": 16},
            {
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
        ),
        end="<|im_end|>",
        banned=QWEN_BANNED,
        frame="thousand",
        pixels=True,
    ),
    "llava_onevision": Family(
        _onevision, end="<|im_end|>", banned=("<image>", "<video>"), frame="original", stable=False
    ),
    "idefics3": Family(_utterances("Idefics3"), end="<end_of_utterance>", banned=IDEFICS_BANNED, frame="original"),
    "smolvlm": Family(_utterances("SmolVLM"), end="<end_of_utterance>", banned=IDEFICS_BANNED, frame="original"),
    "internvl": Family(
        _internvl, end="<|im_end|>", banned=("<img>", "</img>", "<IMG_CONTEXT>", "<video>"), frame="thousand"
    ),
    "gemma3": Family(
        _gemma,
        end="<end_of_turn>",
        banned=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        frame="thousand",
        parts=frozenset({"vision", "projector", "language"}),  # the head is tied to the embedding
    ),
    "qwen2_audio": Family(
        _qwen_audio,
        end="<|im_end|>",
        banned=("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        frame="original",
        parts=frozenset({"audio", "projector", "language", "head"}),
        modality="audio",
    ),
    "qwen2_5_omni": Family(
        _omni,
        end="<|im_end|>",
        banned=(*("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|image_pad|>", "<|video_pad|>"), *QWEN_BANNED[:2]),
        frame="original",
        parts=frozenset({"audio", "vision", "projector", "language", "head"}),
        modality="audio",
    ),
}
