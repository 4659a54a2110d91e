"""From prompt parts to what the model reads: the chat template, the processor, the position ids."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor

from mmpost.config.settings import ModelSettings
from mmpost.data.media.cache import Cache
from mmpost.data.media.media import Media, media
from mmpost.errors import ConfigError, DataError
from mmpost.models.chat import families
from mmpost.models.chat.position_ids import SECONDS, Positions
from mmpost.models.media.processed_cache import MediaInput, ProcessedMediaCache, merged, pictures
from mmpost.models.media.processors import media_processors
from mmpost.types import CoordinateFrame, Part, Sample

PROBE = "mmpost"
PROMPT_BYTES = 1 << 28
"""Of prompts that stay in memory, without their pixels."""


@dataclass(frozen=True)
class PromptRecipe:
    """How text and media become tokens: the same in training, in every rollout engine and in evaluation."""

    template: str
    system: str | None
    min_pixels: int | None
    max_pixels: int | None
    video: tuple[float | int | None, ...]
    """Frames per second, fewest and most frames, and the bounds on their pixels."""
    positions: str
    """The rule by which tokens are placed, as found in force."""
    banned: tuple[int, ...]
    end: tuple[int, ...]
    """Tokens that end a reply; the first is the one written after replies that were not sampled."""
    lead: str = ""
    """White space that the template writes between the generation prompt and a reply."""

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EncodedPrompt:
    """A rendered prompt, ready to be put into rows."""

    ids: Int[Tensor, " len"]
    aligned: dict[str, Tensor]
    """Further inputs with one value per token (token types)."""
    media_inputs: tuple[MediaInput, ...]
    """Its media, in their order."""
    positions: Int[Tensor, "axis len"]
    """Position ids; one axis, or three for multimodal rotary positions."""

    @property
    def next_position(self) -> int:
        """The position of the first reply token: one more than that of the last token, which is text."""
        return int(self.positions[:, -1].max()) + 1

    @property
    def nbytes(self) -> int:
        held = (self.ids, self.positions, *self.aligned.values())
        return sum(t.nbytes for t in held) + sum(p.nbytes for p in self.media_inputs)

    @property
    def media(self) -> dict[str, Tensor]:
        """Pixels, grids and the like of all pictures; rows are concatenated along the first dimension."""
        kinds = dict.fromkeys(p.modality for p in self.media_inputs)
        of = [merged([p.load() for p in self.media_inputs if p.modality == kind]) for kind in kinds]
        return {name: tensor for media in of for name, tensor in media.items()}


class PromptEncoder:
    """Renders prompts of one model; keeps the last ones, since a group and its epochs ask for the same again."""

    def __init__(
        self,
        module: torch.nn.Module | None,
        processor: Any,
        settings: ModelSettings = ModelSettings(),
        banned: Sequence[int] = (),
        pixel_bytes: int = 1 << 30,
    ) -> None:
        self.module, self.processor, self.settings = module, processor, settings
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.processors = media_processors(processor, settings)
        self.media_cache = ProcessedMediaCache(self.processors, pixel_bytes)
        self.positions = Positions(module, settings.positions)
        self._kept = Cache(PROMPT_BYTES)
        self._media: dict[int, tuple[weakref.ref[Part], Media]] = {}
        self._owner = next((o for o in (processor, self.tokenizer) if getattr(o, "chat_template", None)), None)
        if self._owner is None:
            raise ConfigError(
                "the model has no chat template: choose an instruction-tuned checkpoint, or put a chat_template.jinja "
                "into its folder"
            )
        self.template: str = str(self._owner.chat_template)
        special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        self._special = sorted({*special, *self.strings(banned)} - {""}, key=len, reverse=True)

    def __call__(self, sample: Sample) -> EncodedPrompt:
        """The prompt of `sample`; the processor runs once per distinct prompt. Raises DataError naming the sample."""
        try:
            parts, key = self._identity(sample)
            return self._kept.get(key, lambda: self._render(parts), lambda p: p.nbytes)
        except (ValueError, IndexError, TemplateError) as e:
            raise DataError(f"sample {sample.uid!r}: its prompt cannot be given to the model: {e}") from e

    def ahead(self, sample: Sample, pixels: bool) -> None:
        """Read and process what `sample` will need, on a worker thread; `pixels`: also where its prompt is known.

        What it raises is raised again where the sample is used. Text is left alone: tokenizers are for one thread.
        """
        parts, key = self._identity(sample)
        if pixels or key not in self._kept:
            self.media_cache.ahead([p.value for p in parts if p.modality in self.processors])

    def medium(self, part: Part) -> Media:
        """The lazy medium of a part, also where a source gave a bare picture or array, which is encoded once."""
        if isinstance(part.value, Media):
            return part.value
        known = self._media.get(id(part))
        if known is None or known[0]() is not part:
            place = id(part)
            known = weakref.ref(part, lambda _: self._media.pop(place, None)), media(part.value, part.modality)
            self._media[place] = known
        return known[1]

    def _identity(self, sample: Sample) -> tuple[list[Part], str]:
        """The parts with lazy media, and a hash of their contents."""
        parts = [p if p.modality == "text" else Part(p.modality, self.medium(p), p.role) for p in sample.prompt]
        identity = [(p.role, p.modality, p.value if p.modality == "text" else p.value.hash) for p in parts]
        return parts, hashlib.sha256(repr(identity).encode()).hexdigest()

    def text(self, parts: Sequence[Part]) -> str:
        """The prompt as the template writes it, up to where the reply starts."""
        return self._template(self._messages(parts), add_generation_prompt=True)

    def turn(self) -> tuple[str, list[int]]:
        """What stands around an assistant's reply: white space before it, and the tokens that close it.

        These are what the template writes after the reply, and every end-of-text token.
        """
        turn = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        reply = [{"role": "assistant", "content": [{"type": "text", "text": PROBE}]}]
        prompt = self._template(turn, add_generation_prompt=True)
        head, _, tail = self._template(turn + reply, add_generation_prompt=False).rpartition(PROBE)
        lead = head[len(prompt) :] if head.startswith(prompt) else ""
        ids = self.tokenizer(tail.strip(), add_special_tokens=False).input_ids[:1]
        found = [i for i in ids if i in self.tokenizer.added_tokens_decoder]
        declared = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        for more in (declared, self.tokenizer.eos_token_id):
            found += [i for i in (more if isinstance(more, list) else [more]) if i is not None and i not in found]
        if not found:
            raise ConfigError(
                "the model has no end-of-turn token: set eos_token in its tokenizer_config.json, or eos_token_id in "
                "its generation_config.json"
            )
        return lead if lead.isspace() else "", found

    def _template(self, messages: list[dict[str, Any]], **kwargs: Any) -> str:
        assert self._owner is not None
        return self._owner.apply_chat_template(messages, tokenize=False, **kwargs)

    def _messages(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.settings.system is not None and not any(p.role == "system" for p in parts):
            messages.append({"role": "system", "content": [{"type": "text", "text": self.settings.system}]})
        for part in parts:
            if not messages or messages[-1]["role"] != part.role:
                messages.append({"role": part.role, "content": []})
            content = (
                {"type": part.modality, "text": self.plain(part.value)}
                if part.modality == "text"
                else {"type": part.modality}
            )
            messages[-1]["content"].append(content)
        return messages

    def plain(self, text: str, special: Sequence[str] | None = None) -> str:
        """Text in which none of `special` (by default: no special token) is read; a zero-width space breaks each up."""
        for token in self._special if special is None else special:
            text = text.replace(token, token[0] + "\u200b" + token[1:])
        return text

    def escapes(self, sample: Sample) -> int:
        """How many special tokens stand in the prompt's texts, which are written so that they are plain text."""
        return sum(len(self.plain(p.value)) - len(p.value) for p in sample.prompt if p.modality == "text")

    def strings(self, ids: Sequence[int]) -> list[str]:
        """The strings that these tokens are read from, longest first."""
        return sorted((self.tokenizer.convert_ids_to_tokens(i) for i in ids), key=len, reverse=True)

    def _render(self, parts: Sequence[Part]) -> EncodedPrompt:
        others = sorted({part.modality for part in parts} - {"text", *self.processors})
        if others:
            takes = ", ".join(("text", *self.processors))
            raise DataError(f"this model takes {takes}, but the prompt has {', '.join(others)}")
        text = self.text(parts)
        # The same processor, but for who it asks for pixels.
        processor, given, bounds, seconds = copy(self.processor), {}, [], []
        for kind, intake in self.processors.items():
            media = [part.value for part in parts if part.modality == kind]
            if not media:
                continue
            bounds.append(self.media_cache.bound(kind, media))
            setattr(processor, intake.owner, bounds[-1])
            opened = [intake.open(m) for m in media]
            values, about = intake.call(opened)
            given[intake.argument] = values
            if about:
                given[f"{intake.argument}_kwargs"] = about
            seconds += intake.seconds(opened)
        # Processors prefer the text as a list; the template has written the first token if the tokenizer would.
        features = dict(processor(text=[text], **given, return_tensors="pt", add_special_tokens=self.adds_bos(text)))
        ids = features.pop("input_ids")
        features.pop("attention_mask", None)
        tensors = {k: v for k, v in features.items() if isinstance(v, Tensor)}
        aligned = {k: v[0] for k, v in tensors.items() if k.endswith("token_type_ids") and v.shape == ids.shape}
        timing = {k: torch.tensor(seconds) for k in SECONDS if k in features}
        rest = {k: v for k, v in tensors.items() if k not in aligned and k not in SECONDS}
        known = pictures(bounds, rest) if bounds else ()
        return EncodedPrompt(ids[0], aligned, known, self.positions(ids, aligned, rest | timing))

    def coordinate_frame(self, sample: Sample, config: Any) -> CoordinateFrame | None:
        """The frame in which a model with this `config` writes coordinates; None for a prompt without image."""
        for part in sample.prompt:
            if part.modality == "image":
                header = self.medium(part).header()
                width, height = int(header["width"]), int(header["height"])
                return families.coordinate_frame(config, self.processor, width, height, self.settings.coordinates)
        return None

    def marker(self) -> str:
        """What the template writes to open the assistant's turn; empty where it does not care to."""
        turn = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
        closed = self._template(turn, add_generation_prompt=False)
        return self._template(turn, add_generation_prompt=True).removeprefix(closed)

    def adds_bos(self, text: str) -> bool:
        """Whether the tokenizer must write the first token: not where the template has written it already."""
        bos = getattr(self.tokenizer, "bos_token", None)
        return not (bos and text.startswith(bos))
