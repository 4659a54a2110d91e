"""The position rules that families published, and which of them the installed transformers follows.

Releases of transformers disagree on text after a video. As published, it resumes after the largest position on all
three axes ("max"). Since transformers 5.3 it resumes after the larger side of a frame ("spatial"), so that the end of a
long video has larger positions than the text after it. For images, and for Qwen3-VL, the two agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mmpost.errors import DataError

Resume = Literal["max", "spatial"]
GRID_SECONDS = ("second_per_grid_ts", "video_second_per_grid")
"""Names that processors give to the seconds from one grid of a video to the next; only positions depend on them."""


@dataclass(frozen=True)
class PositionRule:
    """How a Qwen-VL family places media on three axes (time, height, width)."""

    merge_size: int
    """Patches along each side of a frame that are merged into one token."""
    tokens_per_second: float | None
    """Steps on the time axis per second of video; None: one per grid."""
    separate_grids: bool
    """Whether each grid of a video is a block of its own, after its time as text (Qwen3-VL)."""


def published_rule(config: Any) -> PositionRule | None:
    """The published rule of the family with this configuration; None where it is not implemented here."""
    vision: Any = getattr(config, "vision_config", None)
    family = getattr(config, "model_type", "")
    if family == "qwen2_vl":
        return PositionRule(vision.spatial_merge_size, None, False)
    if family == "qwen2_5_vl":
        return PositionRule(vision.spatial_merge_size, float(vision.tokens_per_second), False)
    if family in ("qwen3_vl", "qwen3_vl_moe"):
        return PositionRule(vision.spatial_merge_size, None, True)
    return None


def published_positions(
    rule: PositionRule, token_types: Int[Tensor, " len"], media: Mapping[str, Tensor], resume: Resume = "max"
) -> Int[Tensor, "3 len"]:
    """Positions of a prompt from the types of its tokens (0 text, 1 image, 2 video) and the grids of its media.

    Grid k of a video is at floor(k * c) on the time axis after its start, with c in float32: 1, or tokens per second
    times seconds per grid (Qwen2.5-VL, arXiv 2502.13923). Raises DataError where grids and tokens do not fit.
    """
    grids = {1: _grids(media, "image_grid_thw", False), 2: _grids(media, "video_grid_thw", rule.separate_grids)}
    seconds = iter(media.get(GRID_SECONDS[0], torch.ones(len(token_types))).tolist())
    blocks, at = [], 0
    for token_type, run in itertools.groupby(token_types.tolist()):
        n = len(list(run))
        if token_type == 0:
            blocks.append((at + torch.arange(n)).expand(3, -1))
            at += n
            continue
        t, h, w = next(grids[token_type], (0, 0, 0))
        h, w = h // rule.merge_size, w // rule.merge_size
        if t * h * w != n:
            raise DataError(f"wanted {t * h * w} tokens for a grid of {t} x {h} x {w}, found {n} in the prompt")
        timed = token_type == 2 and rule.tokens_per_second is not None and not rule.separate_grids
        step = torch.tensor(rule.tokens_per_second * next(seconds) if timed else 1.0, dtype=torch.float32)
        time = (torch.arange(t) * step).long()
        axes = torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")
        block = at + torch.stack(axes).reshape(3, -1)
        blocks.append(block)
        at = int(block.max()) + 1 if resume == "max" else at + max(h, w)
    return torch.cat(blocks, dim=1)


def _grids(media: Mapping[str, Tensor], name: str, separate: bool) -> Iterator[tuple[int, int, int]]:
    for t, h, w in media.get(name, torch.zeros(0, 3, dtype=torch.long)).tolist():
        yield from [(1, h, w)] * t if separate else [(t, h, w)]


def followed_rule(
    rule: PositionRule, compute: Callable[[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
) -> Resume | Literal["unknown"]:
    """Where text after a video resumes by `compute`, tried on an image and a video of ten seconds per grid.

    `compute` takes ids, token types and media, as `PositionIds` does; "unknown" where it follows neither rule.
    """
    side = 2 * rule.merge_size
    media = {
        "image_grid_thw": torch.tensor([[1, side, 2 * side]]),
        "video_grid_thw": torch.tensor([[6, side, side]]),
        GRID_SECONDS[0]: torch.tensor([10.0]),
    }
    # Six grids of four tokens: each after a text token (its time), or all in one run.
    video = [0, *[2] * 4] * 6 if rule.separate_grids else [0, *[2] * 24]
    types = torch.tensor([0, 0, 0, *[1] * 8, *video, 0, 0, 0])
    try:
        positions = compute(torch.zeros(1, len(types), dtype=torch.long), {"mm_token_type_ids": types}, media)
    except (TypeError, ValueError, RuntimeError, IndexError, StopIteration):
        return "unknown"
    rules: tuple[Resume, Resume] = ("max", "spatial")
    matching: list[Resume] = [r for r in rules if torch.equal(positions, published_positions(rule, types, media, r))]
    return matching[0] if matching else "unknown"
