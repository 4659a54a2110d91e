"""Loads a module and its processor from a folder or hub id, with errors that say what to change."""

from __future__ import annotations

import logging as python_logging
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
from transformers.utils import logging

from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError
from mmpost.models import hub
from mmpost.models.media.processors import media_processors


def load(folder: str, settings: ModelSettings) -> tuple[Any, Any]:
    """The module, in fp32, and its processor.

    Raises ConfigError where transformers cannot load them, for weights that do not fit the model or are not finite, and
    for settings that they do not support.
    """
    processor = load_processor(folder, settings)
    with _explained(folder, settings), _without_load_report():
        module, info = AutoModelForMultimodalLM.from_pretrained(
            folder,
            **_thinker_config(folder, settings),
            trust_remote_code=settings.trust_remote_code,
            dtype=torch.float32,
            attn_implementation=settings.attn_implementation,
            output_loading_info=True,
            # Refused below, by name.
            ignore_mismatched_sizes=True,
        )
    found = f"model={settings.name}"
    ignored = settings.ignore_unexpected
    unexpected = [name for name in info["unexpected_keys"] if not any(re.search(one, name) for one in ignored)]
    require_all_weights(found, info["missing_keys"], unexpected, info["mismatched_keys"], _ignoring(unexpected))
    require_finite(found, dict(module.named_parameters()))
    if not isinstance(getattr(module, "model", None), torch.nn.Module) or module.get_output_embeddings() is None:
        raise ConfigError(
            f"model={settings.name}: wanted a module made of `model` and a language head, found "
            f"{type(module).__name__}; choose a family with transformers' usual layout"
        )
    _require_same_patches(processor, module.config, settings.name)
    if getattr(module, "peft_config", None):
        # transformers loads adapters frozen; here training continues with them.
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if settings.gradient_checkpointing:
        # Newer releases of transformers have the former name, and warn about the latter.
        enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return module, processor


PATCHES = (
    ("patch_size", "patch_size"),
    ("temporal_patch_size", "temporal_patch_size"),
    ("merge_size", "spatial_merge_size"),
)
"""How a processor cuts pictures, and the names under which the configuration of the vision encoder has the same."""


def _require_same_patches(processor: Any, config: Any, name: str) -> None:
    """Raise ConfigError where a processor cuts pictures otherwise than the encoder of the model `name` takes them."""
    vision = getattr(config, "vision_config", None)
    for attribute in ("image_processor", "video_processor"):
        subprocessor = getattr(processor, attribute, None)
        for inner, outer in PATCHES:
            found, wanted = getattr(subprocessor, inner, None), getattr(vision, outer, None)
            # Other families count patches in other ways.
            if hasattr(vision, "spatial_merge_size") and None not in (found, wanted) and found != wanted:
                raise ConfigError(
                    f"model={name}: wanted {inner}={wanted} in its {attribute}, as its vision encoder has it, found "
                    f"{found!r}; correct processor_config.json (or preprocessor_config.json), or copy it again"
                )


def _ignoring(names: Sequence[str]) -> str:
    """What to do about tensors with these names if the model needs none of them: to be appended to a message."""
    if not names:
        return ""
    starts = sorted({re.escape(name.split(".")[0]) for name in names})
    patterns = ", ".join(f"'^{start}'" for start in starts[:4])
    return f'; if the model needs none of what has no place, leave it out by model.ignore_unexpected="[{patterns}]"'


def _thinker_config(folder: str, settings: ModelSettings) -> dict[str, Any]:
    """The configuration of the text-generating part of models that also speak (Qwen2.5-Omni), as keyword arguments."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except Exception:  # noqa: BLE001 - loading reports it; adapters have none, and loading finds that of their base
        return {}
    thinker = getattr(config, "thinker_config", None)
    return {} if thinker is None else {"config": thinker}


@contextmanager
def _explained(folder: str, settings: ModelSettings) -> Iterator[None]:
    """Turns transformers' loading errors into ConfigErrors with what to do about them."""
    try:
        with quiet():
            yield
    except Exception as e:  # of a damaged config.json transformers, tokenizers and torch raise whatever comes first
        hint = ""
        if isinstance(e, pickle.UnpicklingError):
            hint = "Its weights are pickled with Python objects, which could run code: convert them to safetensors. "
        if "trust_remote_code" in str(e):
            hint = "Its code is part of the checkpoint: set model.trust_remote_code=true if you trust its author. "
        raise ConfigError(
            f"model={settings.name}: wanted a multimodal chat model of transformers, found {folder}, which it cannot "
            f"load. {hint}transformers says: {shortened(e)}"
        ) from e


def load_processor(folder: str, settings: ModelSettings) -> Any:
    """The processor, with the pixel limits of the settings. Raises ConfigError like `load`."""
    hub.require_available(folder, settings.name)
    with _explained(folder, settings):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        # Most values of tokenizer_config.json are not looked at before the first use.
        getattr(processor, "tokenizer", processor)("a")
    if not media_processors(processor, settings):
        raise ConfigError(
            f"model={settings.name}: wanted a processor for text and media, found {type(processor).__name__}: put the "
            "processor's files (processor_config.json or preprocessor_config.json) beside the weights"
        )
    _set_pixels(processor, "image_processor", "", settings.min_pixels, settings.max_pixels, settings.name)
    _set_pixels(
        processor, "video_processor", "video_", settings.video_min_pixels, settings.video_max_pixels, settings.name
    )
    video: Any = getattr(processor, "video_processor", None)
    if settings.video_total_pixels is not None:
        _set_video_budget(video, settings)
    elif getattr(video, "cap_pixels_per_frame", False) is None:
        # Releases of transformers treat None differently, and warn about it.
        video.cap_pixels_per_frame = False
    return processor


def require_all_weights(
    found: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    other_shapes: Iterable[tuple[Any, ...]] = (),
    advice: str = "",
) -> None:
    """Raise ConfigError, from `found` to `advice`, for tensors that a checkpoint lacks, or has and should not.

    `other_shapes`: (name, shape in the checkpoint, shape in the model). Tensors that share the weights of others, such
    as a tied head, are not missing.
    """
    problems = []
    if names := sorted(missing):
        problems.append(f"the weights lack {listed(names)}")
    if shapes := sorted(other_shapes):
        texts = [f"{name} ({list(stored)}, wanted {list(wanted)})" for name, stored, wanted in shapes]
        problems.append(f"the weights have other shapes than the model's: {listed(texts)}")
    if names := sorted(unexpected):
        problems.append(f"the weights hold what the model has no place for: {listed(names)}")
    if problems:
        raise ConfigError(
            f"{found}: {'; '.join(problems)}. Copy the checkpoint again, or correct its configuration{advice}"
        )


def require_finite(found: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ConfigError, which begins with `found`, for weights that are NaN or infinite."""
    # One number per tensor is fast; only where it is not finite are the elements looked at.
    suspects = [k for k, v in weights.items() if v.is_floating_point() and not bool(torch.isfinite(v.sum()))]
    counts = {name: int((~torch.isfinite(weights[name])).sum()) for name in suspects}
    broken = [f"{name} ({count} of {weights[name].numel()})" for name, count in counts.items() if count]
    if broken:
        raise ConfigError(
            f"{found}: its weights are NaN or infinite in {listed(broken)}; the run that wrote them diverged, or the "
            "file is damaged: take an earlier checkpoint, or copy it again"
        )


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names for a message: the first few, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def shortened(error: BaseException, most: int = 400) -> str:
    """The message of another library, in one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."


class _NoLoadReport(python_logging.Filter):
    """Drops transformers' table of tensors that do not fit, which are refused with a message of our own."""

    def filter(self, record: python_logging.LogRecord) -> bool:
        text = record.getMessage()
        # An error during the conversion of weights refers to the table.
        return "LOAD REPORT" not in text or "CONVERSION" in text


@contextmanager
def _without_load_report() -> Iterator[None]:
    logger, no_report = logging.get_logger("transformers.modeling_utils"), _NoLoadReport()
    logger.addFilter(no_report)
    try:
        yield
    finally:
        logger.removeFilter(no_report)


def device_of(name: str) -> torch.device:
    """The device that `model.device` names."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars, which would break into those of a run."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _set_pixels(processor: Any, attribute: str, prefix: str, low: int | None, high: int | None, name: str) -> None:
    """Set the minimum and maximum pixels of one sub-processor; `prefix`: of the settings, `name`: of the model."""
    if low is None and high is None:
        return
    subprocessor: Any = getattr(processor, attribute, None)
    size: dict[str, Any] = dict(getattr(subprocessor, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys() or not hasattr(subprocessor, "merge_size"):
        raise ConfigError(
            f"model.{prefix}min_pixels and model.{prefix}max_pixels need a processor with a pixel budget (Qwen-VL); "
            f"that of {name} is {type(subprocessor).__name__}: leave them out"
        )
    least, most = size["shortest_edge"] if low is None else low, size["longest_edge"] if high is None else high
    if least > most:
        raise ConfigError(
            f"model.{prefix}min_pixels={least} is more than model.{prefix}max_pixels={most}; the latter must be larger"
        )
    subprocessor.size = type(subprocessor.size)(shortest_edge=least, longest_edge=most)


def _set_video_budget(video_processor: Any, settings: ModelSettings) -> None:
    """Limit the pixels of all frames of a video together; the processor allows 0.9 of those of `max_video_tokens`."""
    if not hasattr(video_processor, "cap_pixels_per_frame"):
        raise ConfigError(
            f"model.video_total_pixels needs a video processor with a budget over all frames (Qwen2-VL, Qwen2.5-VL); "
            f"that of {settings.name} is {type(video_processor).__name__}: set model.video_max_pixels instead"
        )
    assert settings.video_total_pixels is not None
    video_processor.cap_pixels_per_frame = True
    token_side = video_processor.patch_size * video_processor.merge_size
    # Half a pixel more, so that the processor's rounding down gives the pixels of the setting.
    video_processor.max_video_tokens = (settings.video_total_pixels + 0.5) / (0.9 * token_side**2)
