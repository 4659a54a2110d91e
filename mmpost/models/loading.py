"""From a folder or hub id to a module and its processor, with messages that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
from transformers.utils import logging

from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError
from mmpost.models.media.processors import media_processors


def load(folder: str, settings: ModelSettings) -> tuple[Any, Any]:
    """Module (fp32) and processor. Raises ConfigError where transformers cannot load them, and for unfit settings."""
    processor = load_processor(folder, settings)
    with _explained(folder, settings):
        module = AutoModelForMultimodalLM.from_pretrained(
            folder,
            **_writer(folder, settings),
            trust_remote_code=settings.trust_remote_code,
            dtype=torch.float32,
            attn_implementation=settings.attn_implementation,
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


def _writer(folder: str, settings: ModelSettings) -> dict[str, Any]:
    """The configuration of the part that writes, for models that also speak (Qwen2.5-Omni)."""
    try:
        whole = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError):
        # Adapters have none of their own: the model finds that of its base, or says again what is wrong.
        return {}
    thinker = getattr(whole, "thinker_config", None)
    return {} if thinker is None else {"config": thinker}


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
            f"model={settings.name}: wanted a multimodal chat model of transformers, found {folder}, which it cannot "
            f"load. {hint}transformers says: {e}"
        ) from e


def load_processor(folder: str, settings: ModelSettings) -> Any:
    """The processor alone, with the settings' pixel budgets."""
    with _explained(folder, settings):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    if not media_processors(processor, settings):
        raise ConfigError(
            f"model={settings.name}: wanted a processor for text and media, found {type(processor).__name__}: put the "
            "processor's files (processor_config.json or preprocessor_config.json) beside the weights"
        )
    _set_pixels(processor, "image_processor", "", settings.min_pixels, settings.max_pixels, settings.name)
    _set_pixels(
        processor, "video_processor", "video_", settings.video_min_pixels, settings.video_max_pixels, settings.name
    )
    part: Any = getattr(processor, "video_processor", None)
    if settings.video_total_pixels is not None:
        _set_video_budget(processor, settings)
    elif getattr(part, "cap_pixels_per_frame", False) is None:
        # Left open, releases of transformers differ in it, and warn of it.
        part.cap_pixels_per_frame = False
    return processor


def device_of(name: str) -> torch.device:
    """The device that `model.device` names."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


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


def _set_pixels(processor: Any, owner: str, prefix: str, low: int | None, high: int | None, name: str) -> None:
    """The least and most pixels of one part of the processor."""
    if low is None and high is None:
        return
    part: Any = getattr(processor, owner, None)
    size: dict[str, Any] = dict(getattr(part, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys() or not hasattr(part, "merge_size"):
        raise ConfigError(
            f"model.{prefix}min_pixels and model.{prefix}max_pixels need a processor with a pixel budget (Qwen-VL); "
            f"that of {name} is {type(part).__name__}: leave them out"
        )
    least, most = size["shortest_edge"] if low is None else low, size["longest_edge"] if high is None else high
    if least > most:
        raise ConfigError(
            f"model.{prefix}min_pixels={least} is more than model.{prefix}max_pixels={most}; the latter must be larger"
        )
    part.size = type(part.size)(shortest_edge=least, longest_edge=most)


def _set_video_budget(processor: Any, settings: ModelSettings) -> None:
    """A budget of pixels over a whole video: the processor reckons it as 0.9 of so many tokens."""
    part = getattr(processor, "video_processor", None)
    if not hasattr(part, "cap_pixels_per_frame"):
        raise ConfigError(
            f"model.video_total_pixels needs a video processor with a budget over all frames (Qwen2-VL, Qwen2.5-VL); "
            f"that of "
            f"{settings.name} is {type(part).__name__}: set model.video_max_pixels instead"
        )
    assert part is not None
    assert settings.video_total_pixels is not None
    part.cap_pixels_per_frame = True
    # Half a pixel more, so that rounding down inside gives the number that was asked for.
    part.max_video_tokens = (settings.video_total_pixels + 0.5) / (0.9 * (part.patch_size * part.merge_size) ** 2)
