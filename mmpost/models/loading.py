"""From a folder or hub id to a module and its processor, with messages that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from mmpost.errors import ConfigError
from mmpost.settings import ModelSettings


def load(folder: str, settings: ModelSettings) -> tuple[Any, Any]:
    """Module (fp32) and processor. Raises ConfigError where transformers cannot load them, and for unfit settings."""
    processor = load_processor(folder, settings)
    with _explained(folder, settings):
        module = AutoModelForImageTextToText.from_pretrained(
            folder,
            trust_remote_code=settings.trust_remote_code,
            dtype=torch.float32,
            attn_implementation=settings.attention,
        )
    if not isinstance(getattr(module, "model", None), torch.nn.Module) or module.get_output_embeddings() is None:
        raise ConfigError(
            f"model={settings.name}: wanted a module made of `model` and a language head, found "
            f"{type(module).__name__}; choose a family with transformers' usual layout"
        )
    if getattr(module, "peft_config", None):
        # transformers loads adapters frozen; here they are what goes on training.
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if settings.gradient_checkpointing:
        # Newer releases of transformers call it so, and warn of the older name.
        enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return module, processor


@contextmanager
def _explained(folder: str, settings: ModelSettings) -> Iterator[None]:
    """What transformers raises on loading, with what to do about it."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as e:
        hint = ""
        if "trust_remote_code" in str(e):
            hint = "Its code comes with the checkpoint: set model.trust_remote_code=true if you trust its author. "
        raise ConfigError(
            f"model={settings.name}: wanted an image chat model of transformers, found {folder}, which it cannot load. "
            f"{hint}transformers says: {e}"
        ) from e


def load_processor(folder: str, settings: ModelSettings) -> Any:
    """The processor alone, with the settings' pixel budget."""
    with _explained(folder, settings):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    if getattr(processor, "image_processor", None) is None:
        raise ConfigError(
            f"model={settings.name}: wanted a processor for text and images, found {type(processor).__name__}: put the "
            "processor's files (processor_config.json or preprocessor_config.json) beside the weights"
        )
    if settings.min_pixels is not None or settings.max_pixels is not None:
        _set_pixels(processor, settings)
    return processor


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars: they cut through ours, and take no time worth one."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _set_pixels(processor: Any, settings: ModelSettings) -> None:
    image = processor.image_processor
    size = dict(getattr(image, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys() or not hasattr(image, "merge_size"):
        raise ConfigError(
            f"model.min_pixels and model.max_pixels need a processor with a pixel budget (Qwen-VL); "
            f"that of {settings.name} is {type(image).__name__}: leave them out"
        )
    low = size["shortest_edge"] if settings.min_pixels is None else settings.min_pixels
    high = size["longest_edge"] if settings.max_pixels is None else settings.max_pixels
    if low > high:
        raise ConfigError(f"model.min_pixels={low} is more than model.max_pixels={high}; the latter must be the larger")
    image.size = type(image.size)(shortest_edge=low, longest_edge=high)
