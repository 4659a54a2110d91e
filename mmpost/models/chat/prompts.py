"""From the parts of a prompt to the model's inputs: chat template, processor, position ids."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import weakref
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor

from mmpost.config.settings import ModelSettings
from mmpost.data.media.cache import Cache
from mmpost.data.media.media import Media, media
from mmpost.errors import ConfigError, DataError
from mmpost.models.chat import templates
from mmpost.models.chat.position_ids import GRID_SECONDS, followed_rule, published_positions, published_rule
from mmpost.models.media.processed_cache import (
    MediaInput,
    ProcessedMediaCache,
    ProcessorStub,
    media_inputs,
    merge_outputs,
)
from mmpost.models.media.processors import media_processors
from mmpost.types import CoordinateFrame, Part, Sample

PROBE = "mmpost"
PROMPT_CACHE_BYTES = 1 << 28
"""For encoded prompts; their processed media have a cache of their own."""

THOUSAND = {
    *("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "internvl", "gemma3"),
    *("glm4v", "glm4v_moe", "glm46v"),
}
"""Families trained to write coordinates on a scale of 0 to 1000 (model cards)."""

PIXELS = {"qwen2_5_omni_thinker", "llava_onevision", "idefics3", "smolvlm"}
"""Families whose coordinates are taken as pixels of the original image."""

_QUESTION = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]


@dataclass(frozen=True)
class PromptRecipe:
    """How text and media become tokens: the same in training, in every rollout engine and in evaluation."""

    template: str
    system: str | None
    min_pixels: int | None
    max_pixels: int | None
    video: tuple[float | int | None, ...]
    """Frames per second, fewest and most frames, and the limits on pixels (per frame twice, per video)."""
    positions: str
    """The rule that position ids follow (`PositionIds.name`)."""
    banned: tuple[int, ...]
    """Tokens that the model must not write."""
    end: tuple[int, ...]
    """Tokens that end a reply. The first one closes replies that were not sampled."""
    lead: str = ""
    """White space that the template writes between the generation prompt and a reply."""

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EncodedPrompt:
    """The tokens and media of one prompt, not yet padded or packed."""

    ids: Int[Tensor, " len"]
    aligned: dict[str, Tensor]
    """Further inputs with one value per token (token types)."""
    media_inputs: tuple[MediaInput, ...]
    """Its media, in order of modality and then of appearance."""
    positions: Int[Tensor, "axis len"]
    """Position ids; one axis, or three for multimodal rotary positions."""

    @property
    def next_position(self) -> int:
        """The position of the first reply token: one more than that of the last prompt token, which is text."""
        return int(self.positions[:, -1].max()) + 1

    @property
    def nbytes(self) -> int:
        tensors = (self.ids, self.positions, *self.aligned.values())
        return sum(t.nbytes for t in tensors) + sum(m.nbytes for m in self.media_inputs)

    @property
    def media(self) -> dict[str, Tensor]:
        """Pixel values, grids and the like of all media; rows are concatenated along the first dimension."""
        modalities = dict.fromkeys(m.modality for m in self.media_inputs)
        outputs = [
            merge_outputs([m.load() for m in self.media_inputs if m.modality == modality]) for modality in modalities
        ]
        return {name: tensor for output in outputs for name, tensor in output.items()}


class PositionIds:
    """Computes the position ids of one model's prompts: by the installed transformers, or by the published rule."""

    def __init__(self, module: Any, setting: Literal["installed", "original"] = "installed") -> None:
        """`setting`: model.positions. Raises ConfigError for `original` with a family whose rule is not known here."""
        self.function = getattr(getattr(module, "model", None), "get_rope_index", None)
        self.rule = published_rule(getattr(module, "config", None))
        if setting == "original" and self.rule is None:
            raise ConfigError(
                f"model.positions=original: wanted a family whose published rule is known (Qwen2-VL, Qwen2.5-VL, "
                f"Qwen3-VL), found {type(module).__name__}; leave it out"
            )
        self.setting = setting
        resume = ""
        if self.rule is not None and self.function is not None:
            resume = "max" if setting == "original" else followed_rule(self.rule, self._installed)
        self.name = "plain" if self.function is None else f"{setting} {resume}".strip()
        """The rule in force, for the recipe; "plain": one axis, one step per token."""

    def __call__(
        self, ids: Int[Tensor, "1 len"], aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis len"]:
        """Of one unpadded prompt; `aligned`: inputs with one value per token, `media`: grids and the like."""
        plain = torch.arange(ids.shape[1])[None]
        if self.function is None:
            return plain
        if not media:
            return plain.expand(3, -1)
        if self.setting == "original" and self.rule is not None:
            return published_positions(self.rule, aligned["mm_token_type_ids"], media)
        if self.name.endswith("unknown") and "video_grid_thw" in media:
            raise ConfigError(
                "the installed transformers places the tokens of a video by a rule that is neither the published one "
                "nor that of its later releases (5.3.0 to 5.5.4 do): set model.positions=original, or update it"
            )
        return self._installed(ids, aligned, media)

    def _installed(self, ids: Tensor, aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]) -> Tensor:
        """By the module's own `get_rope_index`, whose arguments differ between families and releases."""
        assert self.function is not None
        accepted = inspect.signature(self.function).parameters
        arguments = dict(media) | {k: v[None] for k, v in aligned.items()}
        # Qwen2.5-Omni uses different names from its processor's outputs.
        if GRID_SECONDS[1] in media:
            arguments["second_per_grids"] = media[GRID_SECONDS[1]]
        if "feature_attention_mask" in media:
            arguments["audio_seqlens"] = media["feature_attention_mask"].sum(-1)
        arguments = {k: v for k, v in arguments.items() if k in accepted}
        positions, _ = self.function(ids, attention_mask=torch.ones_like(ids), **arguments)
        return positions[:, 0]


class PromptEncoder:
    """Encodes the prompts of one model, and caches them: a group and later epochs need the same ones again."""

    def __init__(
        self,
        module: torch.nn.Module | None,
        processor: Any,
        settings: ModelSettings = ModelSettings(),
        banned: Sequence[int] = (),
        processed_cache_bytes: int = 1 << 30,
    ) -> None:
        """`module`: None where only lengths matter; positions are then those of text.

        Raises ConfigError for a model without chat template.
        """
        self.module, self.processor, self.settings = module, processor, settings
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.processors = media_processors(processor, settings)
        self.media_cache = ProcessedMediaCache(self.processors, processed_cache_bytes)
        self.positions = PositionIds(module, settings.positions)
        self._cache = Cache(PROMPT_CACHE_BYTES)
        self._media: dict[int, tuple[weakref.ref[Part], Media]] = {}
        # Older checkpoints keep the template in the tokenizer.
        templating = next((o for o in (processor, self.tokenizer) if getattr(o, "chat_template", None)), None)
        if templating is None:
            raise ConfigError(
                "the model has no chat template: choose an instruction-tuned checkpoint, or put a chat_template.jinja "
                "into its folder"
            )
        self._templating: Any = templating
        self.template: str = str(templating.chat_template)
        special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        self._special = sorted({*special, *self.token_strings(banned)} - {""}, key=len, reverse=True)

    def __call__(self, sample: Sample) -> EncodedPrompt:
        """The encoded prompt of `sample`; raises DataError naming the sample where it cannot be encoded."""
        try:
            parts, key = self._identify(sample)
            return self._cache.get(key, lambda: self._encode(parts), lambda prompt: prompt.nbytes)
        except (ValueError, IndexError, TemplateError) as e:
            raise DataError(f"{sample.label}: its prompt cannot be given to the model: {e}") from e

    def prefetch(self, sample: Sample, always: bool) -> None:
        """Open and process the media of `sample`, on a worker thread; `always`: also where its prompt is cached.

        An error will occur again where the sample is used. Tokenization is left out: tokenizers are not thread-safe.
        """
        parts, key = self._identify(sample)
        if always or key not in self._cache:
            self.media_cache.prefetch([p.value for p in parts if p.modality in self.processors])

    def medium(self, part: Part) -> Media:
        """The lazy medium of a part. Where a source gave a bare image or array, it is encoded once for each part."""
        if isinstance(part.value, Media):
            return part.value
        known = self._media.get(id(part))
        # An id may come back for another part once the first is gone; the weak reference tells.
        if known is None or known[0]() is not part:
            place = id(part)
            known = weakref.ref(part, lambda _: self._media.pop(place, None)), media(part.value, part.modality)
            self._media[place] = known
        return known[1]

    def _identify(self, sample: Sample) -> tuple[list[Part], str]:
        """The parts with lazy media, and a hash of their contents."""
        parts = [p if p.modality == "text" else Part(p.modality, self.medium(p), p.role) for p in sample.prompt]
        identity = [(p.role, p.modality, p.value if p.modality == "text" else p.value.hash) for p in parts]
        return parts, hashlib.sha256(repr(identity).encode()).hexdigest()

    def text(self, parts: Sequence[Part]) -> str:
        """The prompt with the template applied, up to where the reply starts."""
        # Without `templates.probe` and its timer, which `reply_delimiters` has shown to be needless for this template.
        messages = self._messages(parts)
        return self._templating.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def reply_delimiters(self) -> tuple[str, list[int]]:
        """White space that the template writes before a reply, and the tokens that end one.

        These are the token that the template writes after a reply, and every end-of-text token that the model declares.
        Raises ConfigError where there is none.
        """
        reply = [{"role": "assistant", "content": [{"type": "text", "text": PROBE}]}]
        prompt = templates.probe(self._templating, _QUESTION, add_generation_prompt=True)
        both = templates.probe(self._templating, _QUESTION + reply, add_generation_prompt=False)
        head, _, tail = both.rpartition(PROBE)
        lead = head[len(prompt) :] if head.startswith(prompt) else ""
        ids = self.tokenizer(tail.strip(), add_special_tokens=False).input_ids[:1]
        end = [i for i in ids if i in self.tokenizer.added_tokens_decoder]
        declared = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        for eos in (declared, self.tokenizer.eos_token_id):
            end += [i for i in (eos if isinstance(eos, list) else [eos]) if i is not None and i not in end]
        if wrong := [i for i in end if not isinstance(i, int) or not 0 <= i < len(self.tokenizer)]:
            raise ConfigError(
                f"wanted end-of-turn tokens of the vocabulary's {len(self.tokenizer)}, found {wrong}: correct "
                "eos_token_id in the model's generation_config.json"
            )
        if not end:
            raise ConfigError(
                "the model has no end-of-turn token: set eos_token in its tokenizer_config.json, or eos_token_id in "
                "its generation_config.json"
            )
        return lead if lead.isspace() else "", end

    def generation_prompt(self) -> str:
        """What the template writes to open the assistant's turn; empty where it ignores `add_generation_prompt`."""
        closed = templates.probe(self._templating, _QUESTION, add_generation_prompt=False)
        return templates.probe(self._templating, _QUESTION, add_generation_prompt=True).removeprefix(closed)

    def _messages(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.settings.system is not None and not any(p.role == "system" for p in parts):
            messages.append({"role": "system", "content": [{"type": "text", "text": self.settings.system}]})
        for part in parts:
            if not messages or messages[-1]["role"] != part.role:
                messages.append({"role": part.role, "content": []})
            text = {"text": self.escape(part.value)} if part.modality == "text" else {}
            messages[-1]["content"].append({"type": part.modality, **text})
        return messages

    def escape(self, text: str, special: Sequence[str] | None = None) -> str:
        """Text in which no special token is recognized: a zero-width space breaks up each of `special` (None: all)."""
        for token in self._special if special is None else special:
            text = text.replace(token, token[0] + "\u200b" + token[1:])
        return text

    def count_escaped_tokens(self, sample: Sample) -> int:
        """How many special tokens the prompt's texts spell out, which `escape` turns into plain text."""
        return sum(len(self.escape(p.value)) - len(p.value) for p in sample.prompt if p.modality == "text")

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The strings that tokenize to these special tokens, longest first. Raises ConfigError for ids of no token."""
        strings = [self.tokenizer.convert_ids_to_tokens(i) if isinstance(i, int) and i >= 0 else None for i in ids]
        if unknown := [i for i, text in zip(ids, strings, strict=True) if text is None]:
            raise ConfigError(
                f"wanted special tokens of the tokenizer, found the ids {unknown[:9]}, which it does not have: correct "
                "image_token_id and the like in the model's config.json"
            )
        return sorted((text for text in strings if text is not None), key=len, reverse=True)

    def coordinate_frame(self, sample: Sample, config: Any) -> CoordinateFrame | None:
        """The frame in which a model with this `config` writes coordinates; None for a prompt without image."""
        for part in sample.prompt:
            if part.modality == "image":
                header = self.medium(part).header()
                width, height = int(header["width"]), int(header["height"])
                return coordinate_frame(config, self.processor, width, height, self.settings.coordinates)
        return None

    def needs_bos(self, text: str) -> bool:
        """Whether the tokenizer must add its first token: no longer where the template has written it."""
        bos = getattr(self.tokenizer, "bos_token", None)
        return not (bos and text.startswith(bos))

    def _encode(self, parts: Sequence[Part]) -> EncodedPrompt:
        unsupported = sorted({part.modality for part in parts} - {"text", *self.processors})
        if unsupported:
            supported = ", ".join(("text", *self.processors))
            raise DataError(f"this model takes {supported}, but the prompt has {', '.join(unsupported)}")
        text = self.text(parts)
        # A copy of the processor that reads media from the cache. The processor itself counts placeholders, applies its
        # family's rules and tokenizes, so that none of that is repeated here.
        processor, arguments, stubs, grid_seconds = copy(self.processor), {}, [], []
        for modality, media_processor in self.processors.items():
            of_modality = [part.value for part in parts if part.modality == modality]
            if not of_modality:
                continue
            stubs.append(ProcessorStub(self.media_cache, modality, of_modality))
            setattr(processor, media_processor.attribute, stubs[-1])
            opened = [media_processor.open(m) for m in of_modality]
            values, description = media_processor.call(opened)
            arguments[media_processor.argument] = values
            if description:
                arguments[f"{media_processor.argument}_kwargs"] = description
            grid_seconds += media_processor.grid_seconds(opened)
        # Some processors take only a list of texts.
        add_special = self.needs_bos(text)
        features = dict(processor(text=[text], **arguments, return_tensors="pt", add_special_tokens=add_special))
        ids = features.pop("input_ids")
        config = getattr(self.module, "config", None)
        limit = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
        if limit is not None and ids.shape[1] > limit:
            raise DataError(
                f"wanted at most {limit} tokens, the positions of the model, found {ids.shape[1]}; prompts are never "
                "truncated: lower model.max_pixels, or drop such rows (data.on_error=skip)"
            )
        features.pop("attention_mask", None)
        tensors = {k: v for k, v in features.items() if isinstance(v, Tensor)}
        aligned = {k: v[0] for k, v in tensors.items() if k.endswith("token_type_ids") and v.shape == ids.shape}
        timing = {k: torch.tensor(grid_seconds) for k in GRID_SECONDS if k in features}
        rest = {k: v for k, v in tensors.items() if k not in aligned and k not in GRID_SECONDS}
        inputs = media_inputs(stubs, rest) if stubs else ()
        return EncodedPrompt(ids[0], aligned, inputs, self.positions(ids, aligned, rest | timing))


def coordinate_frame(config: Any, processor: Any, width: int, height: int, setting: str) -> CoordinateFrame:
    """The frame in which a model of this family writes coordinates for an image of `width` x `height` pixels.

    Qwen2.5-VL: pixels of the image after its own resizing; families in `THOUSAND`: 0 to 1000; in `PIXELS`: pixels
    of the original image; others: a frame that refuses to convert. `setting` (model.coordinates) overrides this.
    """
    if setting == "thousand" or (setting == "auto" and config.model_type in THOUSAND):
        return CoordinateFrame(1000, 1000)
    if setting == "auto" and config.model_type == "qwen2_5_vl":
        image = processor.image_processor
        min_pixels, max_pixels = int(image.size["shortest_edge"]), int(image.size["longest_edge"])
        return CoordinateFrame(
            *_qwen_resize(width, height, image.patch_size * image.merge_size, min_pixels, max_pixels)
        )
    known = setting == "pixels" or config.model_type in PIXELS
    return CoordinateFrame(width, height, "" if known else str(config.model_type))


def _qwen_resize(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Qwen-VL's `smart_resize`: sides are multiples of `factor`, the area is within the limits, the shape is kept."""
    w, h = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    if w * h > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        w, h = (max(factor, math.floor(v / scale / factor) * factor) for v in (width, height))
    elif w * h < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        w, h = (math.ceil(v * scale / factor) * factor for v in (width, height))
    return w, h
