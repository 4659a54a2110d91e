"""Counters and memory measurement inside an arm."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


class Counters:
    """Hooks that count tokens, encoded images and processed images, separately in rollout and training.

    Forward passes with gradients enabled count as training.
    """

    def __init__(self, module: Any, processor: Any, patches: int) -> None:
        """`patches`: patches per image, where all images have the same size; 0 without images."""
        self.counts: Counter[str] = Counter()
        self._patches = patches
        language = module.model.language_model
        language.layers[0].register_forward_pre_hook(self._tokens, with_kwargs=True)
        module.model.visual.patch_embed.register_forward_pre_hook(self._encoder, with_kwargs=True)
        self._wrap(processor.image_processor)

    def take(self) -> dict[str, int]:
        """Counts since the last call."""
        counts, self.counts = dict(self.counts), Counter()
        return counts

    def _add(self, name: str, number: int) -> None:
        self.counts[f"{name}/{'training' if torch.is_grad_enabled() else 'rollout'}"] += number

    def _tokens(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self._add("tokens", hidden.numel() // hidden.shape[-1])

    def _encoder(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["hidden_states"]
        self._add("tower", len(pixels) // self._patches)

    def _wrap(self, image_processor: Any) -> None:
        preprocess = image_processor.preprocess

        def counted(images: Any, *args: Any, **kwargs: Any) -> Any:
            self.counts["processor"] += _pictures(images)
            return preprocess(images, *args, **kwargs)

        image_processor.preprocess = counted


def _pictures(images: Any) -> int:
    return sum(_pictures(i) for i in images) if isinstance(images, list | tuple) else 1


class Memory:
    """Peak memory of tensors between `start` and `stop`, beyond that before; exact, from the allocator.

    On a CPU it uses the profiler's allocation events, which slows the code down: do not time it meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._profile: Any = None
        self._before = 0

    def start(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.start()

    def stop(self) -> int:
        """The peak in bytes."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() - self._before
        self._profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        self._profile = None
        moves = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
        level = peak = 0
        for _, size in moves:
            level += size
            peak = max(peak, level)
        return peak


def resident(device: torch.device) -> int:
    """Peak in bytes: resident memory of the process, or memory reserved by torch on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
