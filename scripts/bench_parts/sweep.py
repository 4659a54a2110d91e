"""Scaling of step time with group size and prompt length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_parts.work import Shape

GROUPS = [Shape(288, group, 32, prompts=2) for group in (2, 4, 8, 16, 32)]
LENGTHS = [Shape(prompt, 8, 32, prompts=1) for prompt in (60, 288, 1056, 2048, 4000)]
SHAPES = [*GROUPS, *LENGTHS]
COLOURS = {"plain": "#4477aa", "shared": "#228833", "trl": "#cc6677"}


def picture(result: dict[str, Any], path: Path) -> None:
    """Plot time per prompt against group size and against prompt length, one line with its range per arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    by_name = {m["name"]: m for m in result["shapes"]}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=False)
    for ax, shapes, field, label in (
        (axes[0], GROUPS, "group", "replies per prompt (288 prompt tokens, 32 reply tokens)"),
        (axes[1], LENGTHS, "prompt", "prompt tokens (8 replies of 32 tokens)"),
    ):
        measured = [by_name[s.name] for s in shapes if s.name in by_name]
        for arm in measured[0]["arms"] if measured else ():
            spans = [m["arms"][arm]["seconds"]["step"] for m in measured]
            x = [m[field] for m in measured]
            per_prompt = [{k: v / m["prompts"] for k, v in s.items()} for s, m in zip(spans, measured, strict=True)]
            ax.plot(x, [s["median"] for s in per_prompt], "o-", ms=3, color=COLOURS[arm], label=arm)
            low, high = [s["low"] for s in per_prompt], [s["high"] for s in per_prompt]
            ax.fill_between(x, low, high, color=COLOURS[arm], alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds per prompt")
        ax.set_xticks([getattr(s, field) for s in shapes], [str(getattr(s, field)) for s in shapes])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
