"""Position ids of prompts: by the installed transformers, or by the rule that the family published.

Releases of transformers disagree on text after a video. As published, it resumes after the largest position on all
three axes ("max"). Since transformers 5.3 it resumes after the larger side of a frame ("spatial"), so that the end of a
long video has larger positions than the text after it. For images, and for Qwen3-VL, the two agree.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mmpost.errors import ConfigError, DataError

Resume = Literal["max", "spatial"]
PLAIN = "plain"
"""One axis, one step per token."""

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


class PositionIds:
    """Computes the position ids of one model's prompts."""

    def __init__(self, module: Any, setting: Literal["installed", "original"] = "installed") -> None:
        """`setting`: model.positions. Raises ConfigError for `original` with a family whose rule is not known here."""
        self.function = getattr(getattr(module, "model", None), "get_rope_index", None)
        self.rule = published_rule(getattr(module, "config", None))
        if setting == "original" and self.rule is None:
            raise ConfigError(
                f"model.positions=original: wanted a family whose published rule is known (Qwen2-VL, Qwen2.5-VL, "
                f"Qwen3-VL), found {type(module).__name__}; leave it out"
            )
        self.setting = setting
        self.name = PLAIN if self.function is None else f"{setting} {self._detect_resume()}".strip()
        """The rule in force, for the recipe."""

    def __call__(
        self, ids: Int[Tensor, "1 len"], aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis len"]:
        """Of one unpadded prompt; `aligned`: inputs with one value per token, `media`: grids and the like."""
        plain = torch.arange(ids.shape[1])[None]
        if self.function is None:
            return plain
        if not media:
            return plain.expand(3, -1)
        if self.setting == "original" and self.rule is not None:
            return published_positions(self.rule, aligned["mm_token_type_ids"], media)
        if self.name.endswith("unknown") and "video_grid_thw" in media:
            raise ConfigError(
                "the installed transformers places the tokens of a video by a rule that is neither the published one "
                "nor that of its later releases (5.3.0 to 5.5.4 do): set model.positions=original, or update it"
            )
        return self._installed(ids, aligned, media)

    def _installed(self, ids: Tensor, aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]) -> Tensor:
        """By the module's own `get_rope_index`, whose arguments differ between families and releases."""
        assert self.function is not None
        accepted = inspect.signature(self.function).parameters
        arguments = dict(media) | {k: v[None] for k, v in aligned.items()}
        # Qwen2.5-Omni uses different names from its processor's outputs.
        if GRID_SECONDS[1] in media:
            arguments["second_per_grids"] = media[GRID_SECONDS[1]]
        if "feature_attention_mask" in media:
            arguments["audio_seqlens"] = media["feature_attention_mask"].sum(-1)
        arguments = {k: v for k, v in arguments.items() if k in accepted}
        positions, _ = self.function(ids, attention_mask=torch.ones_like(ids), **arguments)
        return positions[:, 0]

    def _detect_resume(self) -> str:
        """Which rule the installed function follows, by trying it on an image and a video of ten seconds per grid.

        "unknown" where it follows neither; empty for families without a published rule here.
        """
        if self.rule is None:
            return ""
        if self.setting == "original":
            return "max"
        side = 2 * self.rule.merge_size
        media = {
            "image_grid_thw": torch.tensor([[1, side, 2 * side]]),
            "video_grid_thw": torch.tensor([[6, side, side]]),
            GRID_SECONDS[0]: torch.tensor([10.0]),
        }
        # Six grids of four tokens: each after a text token (its time), or all in one run.
        video = [0, *[2] * 4] * 6 if self.rule.separate_grids else [0, *[2] * 24]
        types = torch.tensor([0, 0, 0, *[1] * 8, *video, 0, 0, 0])
        ids = torch.zeros(1, len(types), dtype=torch.long)
        try:
            positions = self._installed(ids, {"mm_token_type_ids": types}, media)
        except (TypeError, ValueError, RuntimeError, IndexError, StopIteration):
            return "unknown"
        rules: tuple[Resume, Resume] = ("max", "spatial")
        matching = [r for r in rules if torch.equal(positions, published_positions(self.rule, types, media, r))]
        return matching[0] if matching else "unknown"
