"""Prompt lengths from the processor and the headers of media, without loading any weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError
from mmpost.models.chat import families
from mmpost.models.chat.prompts import PromptEncoder
from mmpost.models.loading import load_processor, quiet
from mmpost.types import CoordinateFrame, Sample


@dataclass(frozen=True)
class Length:
    """The length of one prompt in tokens."""

    tokens: int
    """All tokens."""
    media: int
    """Placeholders of media; an estimate from headers includes the brackets that some families put around them."""


class PromptLengths:
    """Lengths and coordinate frames of prompts for the model in a folder, or with a hub id.

    Raises ConfigError where its configuration or processor cannot be loaded, and for a model without chat template.
    """

    def __init__(self, folder: str, settings: ModelSettings) -> None:
        self.settings = settings
        self.processor = load_processor(folder, settings)
        try:
            with quiet():
                self.config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        except (OSError, ValueError) as e:
            raise ConfigError(f"model={settings.name}: its configuration cannot be loaded: {e}") from e
        self.prompt = PromptEncoder(None, self.processor, settings, families.banned_ids(self.config, self.processor))
        self._count_media_tokens = getattr(self.processor, "_get_num_multimodal_tokens", None)
        self._placeholders = families.placeholder_ids(self.config, self.processor)

    @property
    def limit(self) -> int | None:
        """The model's maximum number of positions; None where its configuration does not state one."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def estimate(self, sample: Sample) -> Length | None:
        """From media headers alone; None where the processor has no rule. Raises DataError for a bad header."""
        media = [part for part in sample.prompt if part.modality != "text"]
        if media and (self._count_media_tokens is None or {part.modality for part in media} != {"image"}):
            return None
        headers = [self.prompt.medium(part).header() for part in media]
        sizes = [[int(h["height"]), int(h["width"])] for h in headers]
        media_tokens = 0
        if sizes and self._count_media_tokens:
            media_tokens = sum(self._count_media_tokens(image_sizes=sizes).num_image_tokens)
        text = self.prompt.text(sample.prompt)
        ids = self.prompt.tokenizer(text, add_special_tokens=self.prompt.needs_bos(text)).input_ids
        # The template writes one placeholder for each medium, which the processor replaces by its tokens.
        return Length(len(ids) - len(media) + media_tokens, media_tokens)

    def exact(self, sample: Sample) -> Length:
        """From the processor itself. Raises DataError for a sample that cannot be given to the model."""
        ids = self.prompt(sample).ids
        return Length(len(ids), sum(int(i) in self._placeholders for i in ids))

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        """The frame in which the model writes coordinates for `sample`; None for a prompt without image."""
        return self.prompt.coordinate_frame(sample, self.config)
