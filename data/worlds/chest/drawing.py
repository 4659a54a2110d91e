"""Renders schematic chest X-rays from a list of findings, in random pose and exposure.

Lungs, heart, ribs and diaphragm are schematic rather than anatomical: each finding appears where a radiologist would
look for it. The patient's right side is on the left of the image, and dense tissue is bright. Coordinates run from -1
to 1 (left to right, top to bottom).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from PIL import Image

Grid = np.ndarray
"""Brightness or distance, [size, size] or broadcastable to it."""

SIDES = {"right": (-1.0,), "left": (1.0,), "bilateral": (-1.0, 1.0)}
ZONES = {"upper": -0.34, "middle": -0.04, "lower": 0.24}
"""Vertical center of each third of a lung."""

HEART = {"": 0.29, "mild": 0.39, "moderate": 0.48, "severe": 0.58}
"""Half the width of the heart, by severity of cardiomegaly."""
LEVEL = {"small": 0.38, "moderate": 0.13, "large": -0.2}
"""Vertical position of the upper edge of a pleural effusion."""
RIM = {"small": 0.2, "moderate": 0.34, "large": 0.5}
"""Fraction of the lung's radius that is free air in a pneumothorax."""


class FindingLike(Protocol):
    """The attributes of a finding that rendering reads."""

    @property
    def name(self) -> str: ...
    @property
    def side(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def severity(self) -> str: ...


def render_xray(findings: Sequence[FindingLike], view: str, size: int, rng: random.Random) -> Image.Image:
    """Render a grayscale X-ray of `size` x `size` pixels; `rng` decides build, pose, exposure and grain."""
    chest = _Chest(findings, view, size, rng)
    chest.anatomy()
    for finding in findings:
        if finding.name in _DRAW:  # cardiomegaly is part of `anatomy`
            _DRAW[finding.name](chest, finding)
    return chest.exposed()


@lru_cache(maxsize=8)
def _grain(size: int) -> Grid:
    """Gaussian noise [4 size, 4 size], correlated between neighboring pixels; images use random windows of it."""
    noise = np.random.default_rng(0).standard_normal((4 * size, 4 * size)).astype(np.float32)
    return (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 2


class _Chest:
    """Composes one X-ray."""

    def __init__(self, findings: Sequence[FindingLike], view: str, size: int, rng: random.Random) -> None:
        self.findings, self.view, self.size, self.rng = findings, view, size, rng
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        self.x, self.y = axis[None, :], axis[:, None]
        self.width = rng.uniform(0.34, 0.39)
        """Half the width of a lung."""
        self.base = rng.uniform(0.48, 0.58)
        """Vertical position of the top of the diaphragm."""
        self.lung = {side: self.edge(0.47 * side, -0.08, self.width, 0.72) for side in (-1.0, 1.0)}
        dome = {side: self.base + (0.04 if side > 0 else 0.0) + 0.9 * (self.x - 0.45 * side) ** 2 for side in self.lung}
        self.above = {side: _ramp((top - self.y) * 14) for side, top in dome.items()}
        self.air = {side: self.lung[side] * self.above[side] for side in self.lung}
        self.pixels = np.zeros((size, size), np.float32)

    def ellipse(self, x: float, y: float, wide: float, high: float) -> Grid:
        """Normalized distance from (x, y): 0 at the center, 1 on the ellipse."""
        return np.sqrt(((self.x - x) / wide) ** 2 + ((self.y - y) / high) ** 2)

    def edge(self, x: float, y: float, wide: float, high: float, soft: float = 0.12) -> Grid:
        """Soft mask of an ellipse: 1 inside, 0 outside, with an edge of relative width `soft`."""
        return _ramp((1 - self.ellipse(x, y, wide, high)) / soft)

    def blob(self, x: float, y: float, wide: float, high: float) -> Grid:
        """A soft cloud around (x, y), from 1 at its center to 0."""
        return np.clip(1 - self.ellipse(x, y, 1.7 * wide, 1.7 * high) ** 2, 0, None) ** 2

    def line(self, start: tuple[float, float], end: tuple[float, float], thick: float) -> Grid:
        """Soft mask of a straight line."""
        (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        along = np.clip(((self.x - x) * dx + (self.y - y) * dy) / (dx * dx + dy * dy), 0, 1)
        away = np.sqrt((self.x - x - along * dx) ** 2 + (self.y - y - along * dy) ** 2)
        return np.clip(1.5 - away / thick, 0, 1)

    def cover(self, where: Grid, value: float) -> None:
        """Raise the brightness to at least `value` where the mask `where` is 1."""
        self.pixels = np.maximum(self.pixels, value * where)

    def anatomy(self) -> None:
        """Render the chest without findings, except for the size of the heart (cardiomegaly)."""
        body = _ramp((1 - np.sqrt((self.x / 0.96) ** 2 + (np.clip(-self.y - 0.55, 0, None) / 0.5) ** 2)) * 10)
        both = self.air[-1.0] + self.air[1.0]
        self.pixels = body * (0.62 + 0.1 * self.y) - 0.44 * both
        ribs = 0.5 + 0.5 * np.cos((self.y + 0.55 * (np.abs(self.x) - 0.35) ** 2 - 0.25 * np.abs(self.x)) * 26)
        self.pixels = self.pixels + 0.07 * ribs * ribs * both
        self.pixels += 0.22 * _ramp((0.1 - np.abs(self.x)) * 18) * body
        for side in (-1.0, 1.0):
            self.pixels += 0.1 * self.blob(0.22 * side, -0.02, 0.1, 0.17)
            self.pixels += 0.15 * self.line((0.08 * side, -0.7), (0.8 * side, -0.84), 0.035)
        if self.view == "AP":
            for side in (-1.0, 1.0):
                self.pixels += 0.2 * self.line((0.74 * side, -0.6), (0.66 * side, 0.12), 0.05)
        severity = next((f.severity for f in self.findings if f.name == "cardiomegaly"), "")
        wide = HEART[severity] * self.rng.uniform(0.93, 1.07) * (1.05 if self.view == "AP" else 1.0)
        heart = self.edge(0.05 + 0.3 * wide, 0.3, wide, 0.19 + 0.3 * wide, 0.14)
        self.cover(heart, 0.8)
        for side in self.air:
            self.air[side] = self.air[side] * (1 - heart)

    def sides(self, finding: FindingLike) -> tuple[float, ...]:
        return SIDES[finding.side or "right"]

    def exposed(self) -> Image.Image:
        """Apply pose (rotation, shift), exposure and grain."""
        rng, size = self.rng, self.size
        noise = _grain(size)[rng.randrange(3 * size) :, rng.randrange(3 * size) :][:size, :size]
        exposed = self.pixels * rng.uniform(0.88, 1.12) + rng.uniform(-0.04, 0.04)
        gray = np.clip(exposed, 0, 1) * 225 + noise * rng.uniform(2, 6)
        image = Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8))
        shift = (rng.uniform(-0.03, 0.03) * size, rng.uniform(-0.03, 0.03) * size)
        # PIL accepts fractional shifts; only its annotation says int.
        return image.rotate(rng.gauss(0, 1.8), Image.Resampling.BILINEAR, translate=shift)  # pyright: ignore[reportArgumentType]


def _ramp(value: Grid) -> Grid:
    return np.clip(value + 0.5, 0, 1)


def _effusion(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        # The fluid rises toward the chest wall (meniscus sign).
        level = LEVEL[finding.severity] + chest.rng.uniform(-0.07, 0.07) - 0.3 * (chest.x * side - 0.47)
        chest.cover(chest.lung[side] * _ramp((chest.y - level) * 12), 0.74)


def _pneumothorax(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        remaining = 1 - RIM[finding.severity] * chest.rng.uniform(0.85, 1.15)
        # The lung collapses toward the hilum and downward.
        inner = chest.ellipse(
            (0.47 - 0.5 * (1 - remaining) * chest.width) * side, 0.1, remaining * chest.width, 0.72 * remaining + 0.1
        )
        outside = _ramp((inner - 1) * 8)
        chest.pixels -= 0.2 * outside * chest.air[side]
        chest.pixels += 0.32 * np.clip(1 - np.abs(inner - 1) * 12, 0, 1) * chest.air[side]
        chest.pixels += 0.1 * (1 - outside) * chest.air[side]


def _consolidation(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        x, y = side * chest.rng.uniform(0.4, 0.54), ZONES[finding.zone] + chest.rng.uniform(-0.05, 0.05)
        cloud = chest.blob(x, y, chest.rng.uniform(0.15, 0.2), chest.rng.uniform(0.13, 0.18))
        chest.cover(np.clip(1.4 * cloud, 0, 1) * chest.air[side], chest.rng.uniform(0.6, 0.7))


def _nodule(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        x, y = side * chest.rng.uniform(0.38, 0.6), ZONES[finding.zone] + chest.rng.uniform(-0.07, 0.07)
        radius = chest.rng.uniform(0.055, 0.08)
        chest.cover(chest.edge(x, y, radius, radius, 0.3), 0.78)


def _atelectasis(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        for up in (0.06, 0.15, 0.24)[: chest.rng.choice((2, 3))]:
            y = chest.base - up
            band = chest.line((0.26 * side, y + 0.02), (0.72 * side, y - 0.04), 0.028)
            chest.pixels += 0.34 * band * chest.air[side]


def _edema(chest: _Chest, finding: FindingLike) -> None:
    strength = {"mild": 0.2, "moderate": 0.3, "severe": 0.42}[finding.severity]
    for side in (-1.0, 1.0):
        haze = chest.blob(0.36 * side, 0.06, 0.26, 0.34)
        streaks = 0.75 + 0.25 * np.cos(60 * chest.y + 25 * chest.x * side)
        chest.pixels += strength * haze * streaks * chest.air[side]


def _fracture(chest: _Chest, finding: FindingLike) -> None:
    for side in chest.sides(finding):
        x, y = side * 0.76, chest.rng.choice((-0.3, -0.1, 0.1))
        chest.pixels -= 0.35 * chest.line((x - 0.05, y - 0.07), (x + 0.05, y + 0.07), 0.03)
        chest.cover(chest.line((x - 0.07 * side, y + 0.03), (x, y - 0.08), 0.03), 0.85)
        chest.cover(chest.line((x, y + 0.08), (x + 0.07 * side, y - 0.03), 0.03), 0.85)


def _pacemaker(chest: _Chest, finding: FindingLike) -> None:
    chest.cover(chest.edge(0.6, -0.55, 0.13, 0.1, 0.2), 1.0)
    chest.cover(chest.line((0.5, -0.6), (0.08, -0.5), 0.022), 1.0)
    chest.cover(chest.line((0.08, -0.5), (0.16, 0.34), 0.022), 1.0)


def _line(chest: _Chest, finding: FindingLike) -> None:
    chest.cover(chest.line((-0.3, -0.98), (-0.13, -0.6), 0.024), 1.0)
    chest.cover(chest.line((-0.13, -0.6), (-0.11, -0.02), 0.024), 1.0)


def _tube(chest: _Chest, finding: FindingLike) -> None:
    for x in (-0.025, 0.06):
        chest.cover(chest.line((x, -1.0), (x, -0.3 + chest.rng.uniform(-0.04, 0.04)), 0.02), 1.0)


_DRAW = {
    "pleural effusion": _effusion, "pneumothorax": _pneumothorax, "consolidation": _consolidation,
    "nodule": _nodule, "atelectasis": _atelectasis, "edema": _edema, "fracture": _fracture,
    "pacemaker": _pacemaker, "central line": _line, "endotracheal tube": _tube,
}  # fmt: skip
