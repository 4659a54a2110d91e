"""How long prompts are, from the processor and the headers of the media: no weights are read."""

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
    """Tokens of a prompt."""

    tokens: int
    """All of them."""
    media: int
    """Those that stand for media; as estimated from headers, with the brackets that some families put around them."""


class PromptLengths:
    """Lengths and frames of prompts as a model would see them, from its folder or hub id without its weights.

    Raises ConfigError where configuration or processor cannot be loaded, and for a model without a chat template.
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
        self._count = getattr(self.processor, "_get_num_multimodal_tokens", None)
        self._placeholders = families.placeholder_ids(self.config, self.processor)

    @property
    def limit(self) -> int | None:
        """Most positions of the model, where it says so."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def estimate(self, sample: Sample) -> Length | None:
        """From header sizes; None where the processor has no rule for its media. Raises DataError for a bad header."""
        media = [part for part in sample.prompt if part.modality != "text"]
        if media and (self._count is None or {part.modality for part in media} != {"image"}):
            return None
        headers = [self.prompt.medium(part).header() for part in media]
        sizes = [[int(h["height"]), int(h["width"])] for h in headers]
        seen = sum(self._count(image_sizes=sizes).num_image_tokens) if sizes and self._count else 0
        text = self.prompt.text(sample.prompt)
        ids = self.prompt.tokenizer(text, add_special_tokens=self.prompt.adds_bos(text)).input_ids
        return Length(len(ids) - len(media) + seen, seen)

    def exact(self, sample: Sample) -> Length:
        """Through the processor itself. Raises DataError for a sample that cannot be given to the model."""
        ids = self.prompt(sample).ids
        return Length(len(ids), sum(int(i) in self._placeholders for i in ids))

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        """The frame in which the model writes coordinates for `sample`; None for a prompt without image."""
        return self.prompt.coordinate_frame(sample, self.config)
