"""Where the tokens of a prompt stand: the installed model's own function, or the rule that its family published.

Releases of transformers disagree on text after a video. As published, it goes on after the largest position of all
three axes ("max"); since transformers 5.3 it goes on after the larger side of a frame ("spatial"), so that a long video
lies partly behind the text that follows it. For images, and for Qwen3-VL, both are the same.
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

SECONDS = ("second_per_grid_ts", "video_second_per_grid")
"""Seconds from one grid of a video to the next, as processors put them out; only positions depend on them."""


@dataclass(frozen=True)
class Rule:
    """How a family of Qwen's lays out pictures on three axes (time, height, width)."""

    merge: int
    """Patches that make one token, along each side of a frame."""
    per_second: float | None
    """Steps in time per second of a video; None: one per grid."""
    split: bool
    """Each grid of a video is a block of its own, with its time written before it (Qwen3-VL)."""


def rule(config: Any) -> Rule | None:
    """The published rule of a model's family, where it is known here."""
    vision: Any = getattr(config, "vision_config", None)
    kind = getattr(config, "model_type", "")
    if kind == "qwen2_vl":
        return Rule(vision.spatial_merge_size, None, False)
    if kind == "qwen2_5_vl":
        return Rule(vision.spatial_merge_size, float(vision.tokens_per_second), False)
    if kind in ("qwen3_vl", "qwen3_vl_moe"):
        return Rule(vision.spatial_merge_size, None, True)
    return None


def by_rule(
    rule: Rule, kinds: Int[Tensor, " len"], media: Mapping[str, Tensor], resume: Resume = "max"
) -> Int[Tensor, "3 len"]:
    """Positions of a prompt by the types of its tokens (0 text, 1 image, 2 video) and the grids of its pictures.

    Token k of a video's time axis stands floor(k * c) after its start, c in float32: 1 per grid, or steps per second
    times seconds per grid (Qwen2.5-VL, arXiv 2502.13923). Raises DataError where grids and tokens do not fit.
    """
    grids = {1: _grids(media, "image_grid_thw", False), 2: _grids(media, "video_grid_thw", rule.split)}
    seconds = iter(media.get(SECONDS[0], torch.ones(len(kinds))).tolist())
    found, at = [], 0
    for kind, run in itertools.groupby(kinds.tolist()):
        n = len(list(run))
        if kind == 0:
            found.append((at + torch.arange(n)).expand(3, -1))
            at += n
            continue
        t, h, w = next(grids[kind], (0, 0, 0))
        h, w = h // rule.merge, w // rule.merge
        if t * h * w != n:
            raise DataError(f"wanted {t * h * w} tokens for a picture of {t} x {h} x {w}, found {n} in the prompt")
        moves = kind == 2 and rule.per_second is not None and not rule.split
        step = torch.tensor(rule.per_second * next(seconds) if moves else 1.0, dtype=torch.float32)
        time = (torch.arange(t) * step).long()
        axes = torch.meshgrid(time, torch.arange(h), torch.arange(w), indexing="ij")
        block = at + torch.stack(axes).reshape(3, -1)
        found.append(block)
        at = int(block.max()) + 1 if resume == "max" else at + max(h, w)
    return torch.cat(found, dim=1)


def _grids(media: Mapping[str, Tensor], name: str, split: bool) -> Iterator[tuple[int, int, int]]:
    for t, h, w in media.get(name, torch.zeros(0, 3, dtype=torch.long)).tolist():
        yield from [(1, h, w)] * t if split else [(t, h, w)]


class Positions:
    """The position function in force for a model."""

    def __init__(self, module: Any, chosen: Literal["installed", "original"] = "installed") -> None:
        """Raises ConfigError where `original` is asked of a family whose rule is not known here."""
        self.function = getattr(getattr(module, "model", None), "get_rope_index", None)
        self.rule = rule(getattr(module, "config", None))
        if chosen == "original" and self.rule is None:
            raise ConfigError(
                f"model.positions=original: wanted a family whose published rule is known (Qwen2-VL, Qwen2.5-VL, "
                f"Qwen3-VL), found {type(module).__name__}; leave it out"
            )
        self.chosen = chosen
        self.name = PLAIN if self.function is None else f"{chosen} {self._resume()}".strip()
        """What a recipe records: which rule gives the positions."""

    def __call__(
        self, ids: Int[Tensor, "1 len"], aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis len"]:
        """Of one unpadded prompt; `aligned` has one value per token, `media` what its pictures bring."""
        plain = torch.arange(ids.shape[1])[None]
        if self.function is None:
            return plain
        if not media:
            return plain.expand(3, -1)
        if self.chosen == "original" and self.rule is not None:
            return by_rule(self.rule, aligned["mm_token_type_ids"], media)
        if self.name.endswith("unknown") and "video_grid_thw" in media:
            raise ConfigError(
                "the installed transformers places the tokens of a video by a rule that is neither the published one "
                "nor that of its later releases (5.3.0 to 5.5.4 do): set model.positions=original, or update it"
            )
        return self._installed(ids, aligned, media)

    def _installed(self, ids: Tensor, aligned: Mapping[str, Tensor], media: Mapping[str, Tensor]) -> Tensor:
        assert self.function is not None
        takes = inspect.signature(self.function).parameters
        given = dict(media) | {k: v[None] for k, v in aligned.items()}
        # Qwen2.5-Omni's names for what others call otherwise.
        if SECONDS[1] in media:
            given["second_per_grids"] = media[SECONDS[1]]
        if "feature_attention_mask" in media:
            given["audio_seqlens"] = media["feature_attention_mask"].sum(-1)
        known = {k: v for k, v in given.items() if k in takes}
        positions, _ = self.function(ids, attention_mask=torch.ones_like(ids), **known)
        return positions[:, 0]

    def _resume(self) -> str:
        """Which rule the function in force follows: tried on an image, and a video of ten seconds per grid."""
        if self.rule is None:
            return ""
        if self.chosen == "original":
            return "max"
        side = 2 * self.rule.merge
        media = {
            "image_grid_thw": torch.tensor([[1, side, 2 * side]]),
            "video_grid_thw": torch.tensor([[6, side, side]]),
            SECONDS[0]: torch.tensor([10.0]),
        }
        films = [2] * 4 if self.rule.split else [2] * 24
        between = [0, *films] * 6 if self.rule.split else [0, *films]
        kinds = torch.tensor([0, 0, 0, *[1] * 8, *between, 0, 0, 0])
        try:
            found = self._installed(torch.zeros(1, len(kinds), dtype=torch.long), {"mm_token_type_ids": kinds}, media)
        except (TypeError, ValueError, RuntimeError, IndexError, StopIteration):
            return "unknown"
        rules: tuple[Resume, Resume] = ("max", "spatial")
        same = [r for r in rules if torch.equal(found, by_rule(self.rule, kinds, media, r))]
        return same[0] if same else "unknown"
