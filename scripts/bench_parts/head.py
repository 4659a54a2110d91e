"""The output layer alone, with the vocabulary of a large model: memory and time of log-probs and their gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from bench_parts.meters import Memory
from mmpost.config.settings import ComputeSettings
from mmpost.models.chat.logprobs import LanguageHead, processed_logprobs, token_statistics

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """Hidden widths, reply tokens of one micro-batch, and the vocabulary size of Qwen2.5-VL."""

    widths: Sequence[int] = (256, 1024)
    tokens: int = 2048
    vocabulary: int = 151936
    chunk: int = ComputeSettings().logits_per_chunk


def measure(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Memory and time of each path, for each width and with the head's weights trained or frozen.

    Memory is the peak beyond weights and inputs. It includes the resulting gradients, which no path can avoid: if the
    head trains, that of its weights grows with the width, unlike the logits.
    """
    rows = []
    for width in sizes.widths:
        for trains in (True, False):
            for path, log_probs in paths(sizes, width, trains, device).items():
                memory = Memory(device)
                memory.start()
                log_probs()
                peak = memory.stop()
                start = time.perf_counter()
                mean = log_probs()
                seconds = time.perf_counter() - start
                head = {"width": width, "trains": trains, "path": path}
                out = 4 * width * (sizes.tokens + sizes.vocabulary * trains)
                rows.append({**head, "bytes": peak, "gradients": out, "seconds": seconds, "logp": mean})
    return rows


def paths(sizes: Sizes, width: int, trains: bool, device: torch.device) -> dict[str, Callable[[], float]]:
    """Forward and backward passes with full logits and by mmpost's two paths; each returns the mean log-prob."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, sizes.vocabulary, bias=False, device=device).requires_grad_(trains)
    hidden = torch.randn(sizes.tokens, width, device=device, requires_grad=True)
    targets = torch.randint(0, sizes.vocabulary, (sizes.tokens,), device=device)
    temperature = torch.ones(sizes.tokens, device=device)
    banned = torch.zeros(sizes.vocabulary, dtype=torch.bool, device=device)
    head = LanguageHead(layer, lambda x: x)

    def whole() -> Tensor:
        return processed_logprobs(head(hidden), temperature, banned).gather(1, targets[:, None]).squeeze(1)

    def chunked(closed: bool) -> Tensor:
        return token_statistics(hidden, targets, temperature, head, banned, sizes.chunk, closed_form=closed)[0]

    def done(logp: Tensor) -> float:
        torch.autograd.grad(logp.sum(), [hidden, layer.weight] if trains else [hidden])
        return float(logp.detach().mean())

    return {
        "whole logits": lambda: done(whole()),
        "plain": lambda: done(chunked(closed=False)),
        "shared": lambda: done(chunked(closed=True)),
    }


def table(sizes: Sizes, lines: Sequence[dict[str, Any]]) -> Table:
    """The results of `measure`, with the memory of whole logits divided by that of each path."""
    title = f"{sizes.tokens:,} reply tokens, vocabulary {sizes.vocabulary:,}: log-probs and gradients"
    names = ("hidden", "head", "path", "MiB", "of it gradients", "times less", "seconds")
    out = Table(*names, title=title, title_justify="left")
    most = {(x["width"], x["trains"]): x["bytes"] for x in lines if x["path"] == "whole logits"}
    for x in lines:
        less = most[x["width"], x["trains"]] / x["bytes"]
        kind = "trains" if x["trains"] else "frozen"
        memory = (f"{x[name] / MIB:.0f}" for name in ("bytes", "gradients"))
        out.add_row(str(x["width"]), kind, x["path"], *memory, f"{less:.1f}", f"{x['seconds']:.2f}")
    return out
