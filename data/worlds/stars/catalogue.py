"""Made-up variable stars of ten classes, each with a light curve, a spectrum and a record of its catalogue entries.

Each modality alone tells the class imperfectly, and not of the same stars: spectra know temperatures but not periods,
light curves a shape behind noise and gaps, the record colours and a period that is sometimes an alias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator

from mmpost.data.media.media import media
from mmpost.data.signals import preprocess
from mmpost.data.signals.modalities import TIMES  # noqa: F401  (registers the kinds)
from mmpost.data.signals.points import Points
from mmpost.data.sources.base import Indexed
from mmpost.data.worlds.stars import physics as starlight
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

COUNTS: Mapping[str, int] = {
    "EW": 6168, "SR": 4590, "EA": 2916, "RRAB": 2351, "EB": 1976,
    "ROT": 1839, "RRC": 796, "HADS": 281, "M": 268, "DSCT": 255,
}  # fmt: skip
"""Objects of each class in the AstroM3 data set, which made-up stars share out in the same way."""
CLASSES = tuple(COUNTS)
KINDS = ("light_curve", "spectrum", "record")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
KEPT = 4096
"""Stars of a source that stay in memory (about 30 kB each), so that several passes draw each once."""


@dataclass(frozen=True)
class Type:
    """Where the stars of a class lie: means and standard deviations."""

    period: tuple[float, float]
    """log10 of days."""
    amplitude: tuple[float, float]
    """log10 of magnitudes."""
    kelvin: tuple[float, float]
    bright: tuple[float, float]
    """Absolute magnitude in V at the mean period; it falls by `slope` per dex of period."""
    slope: float = 0.0
    metals: tuple[float, float] = (-0.2, 0.25)
    dwarf: float = 1.0
    active: float = 0.0
    """Emission in hydrogen lines, at most."""
    speed: float = 35.0
    """Spread of the velocities, km/s."""


TYPES: Mapping[str, Type] = {
    "EW": Type((-0.45, 0.10), (-0.45, 0.20), (5700, 600), (4.3, 0.5), 7.0),
    "SR": Type((1.90, 0.35), (-0.40, 0.28), (3500, 230), (-0.6, 0.8), 1.0, (-0.2, 0.3), 0.0),
    "EA": Type((0.35, 0.42), (-0.30, 0.25), (7000, 1500), (2.6, 1.3), 0.5),
    "RRAB": Type((-0.25, 0.06), (-0.12, 0.16), (6500, 280), (0.65, 0.2), 1.5, (-1.4, 0.4), 0.3, speed=150),
    "EB": Type((-0.12, 0.30), (-0.38, 0.20), (7200, 1500), (2.3, 1.2), 2.0),
    "ROT": Type((0.70, 0.55), (-0.72, 0.22), (4900, 480), (4.5, 1.8), -1.0, (-0.1, 0.2), 0.8, 0.8),
    "RRC": Type((-0.48, 0.06), (-0.36, 0.12), (7100, 260), (0.6, 0.2), 1.5, (-1.4, 0.4), 0.3, speed=150),
    "HADS": Type((-0.98, 0.16), (-0.38, 0.16), (7400, 300), (1.7, 0.4), 3.0, (-0.8, 0.4), 0.8, speed=60),
    "M": Type((2.40, 0.14), (0.35, 0.16), (3000, 200), (0.0, 0.8), -1.0, (-0.2, 0.3), 0.0, 2.2, 50),
    "DSCT": Type((-1.05, 0.16), (-0.82, 0.20), (7500, 350), (1.9, 0.5), 3.0, (-0.2, 0.3), 0.9),
}
BANDS = {
    "phot_g": 6220, "phot_bp": 5110, "phot_rp": 7770, "j": 12350, "h": 16620, "k": 21590,
    "w1": 33526, "w2": 46028, "w3": 115608, "w4": 220883,
}  # fmt: skip
"""Wavelengths in Angstrom."""
DUST = np.array([0.85, 1.06, 0.63, 0.28, 0.18, 0.12, 0.07, 0.05, 0.04, 0.03])
"""Extinction in the bands, relative to V."""


@dataclass(frozen=True)
class Star:
    """What is true of one star; what is observed of it follows, with noise of its own."""

    name: str
    shape: str
    """How its light curve runs: its class, unless it is odd."""
    looks: str
    """Of which class its spectrum and colours are: its own, unless it is odd."""
    period: float
    amplitude: float
    kelvin: float
    absolute: float
    metals: float
    emission: float
    speed: float
    bright: float
    """Apparent V, between the survey's limits."""
    extinction: float
    latitude: float
    longitude: float


def draw(name: str, rng: Generator, odd: bool = False) -> Star:
    """A star of class `name`. An odd one has the light curve of no class, or spectrum and colours of another class."""
    strange = odd and rng.random() < 0.5
    others = [c for c in CLASSES if abs(TYPES[c].kelvin[0] - TYPES[name].kelvin[0]) > 1200]
    looks = str(rng.choice(others)) if odd and not strange else name
    t, seen = TYPES[name], TYPES[looks]
    dex = float(rng.normal(0, t.period[1]))
    wide = 2.0 if looks in ("RRAB", "RRC") else 1.0
    latitude = float(np.degrees(np.arcsin(np.clip(rng.laplace(0, 0.22 * wide), -0.98, 0.98))))
    absolute = float(rng.normal(*seen.bright) - t.slope * dex)
    bright = float(np.clip(rng.normal(14.0 if seen.dwarf > 0.2 else 12.3, 1.2), 10.5, 16.8))
    extinction = float(rng.gamma(2.0, 0.25) * (0.4 + np.exp(-abs(latitude) / 15)))
    return Star(
        name=name,
        shape="odd" if strange else name,
        looks=looks,
        period=10 ** (t.period[0] + dex),
        amplitude=float(np.clip(10 ** rng.normal(*t.amplitude), 0.04, 6.0)) * (1.5 if strange else 1.0),
        kelvin=float(np.clip(rng.normal(*seen.kelvin), 2500, 16000)),
        absolute=absolute,
        metals=float(rng.normal(*seen.metals)),
        emission=float(seen.active * rng.random() ** 2),
        speed=float(rng.normal(0, seen.speed)),
        bright=bright,
        extinction=extinction,
        latitude=latitude,
        longitude=float(rng.uniform(0, 360)),
    )


def colours(kelvin: float) -> np.ndarray:
    """Magnitudes in `BANDS` less V of a black body, 0 for one of 9,600 K."""
    wave = np.array([*BANDS.values(), 5500.0])
    magnitudes = -2.5 * np.log10(starlight.planck(wave, kelvin) / starlight.planck(wave, 9600.0))
    return magnitudes[:-1] - magnitudes[-1]


ALIASES = (0.5, 2.0, 0.0)
"""A wrong period is half, twice, or (0) the alias with one cycle a day."""


def catalogue(star: Star, rng: Generator, wrong: float = 0.12) -> dict[str, float]:
    """The 38 numbers that surveys list of a star, before any preprocessing; `wrong` is the share of wrong periods."""
    far = 10 ** ((star.bright - star.absolute - star.extinction + 10) / 5)
    parallax_error = float(0.02 + 0.02 * 10 ** (0.25 * (star.bright - 15))) * rng.uniform(0.8, 1.6)
    parallax = 1000 / far + rng.normal(0, 1.5 * parallax_error)
    glow = np.array([0, 0, 0, 0, 0.05, 0.15, 0.25, 0.35, 1.1, 1.6]) * (star.kelvin < 3400) * rng.uniform(0.3, 1.5)
    bands = star.bright - star.extinction * (1 - DUST) + colours(star.kelvin) - glow
    errors = np.hypot([0.002, 0.006, 0.004, 0.022, 0.024, 0.022, 0.023, 0.021, 0.05, 0.2], 0.002 * rng.random(10))
    errors = errors * np.exp(0.15 * (star.bright - 14)) * (1 + 1.5 * star.amplitude * np.array([1, 1, 1, *[0] * 7]))
    # One epoch in the infrared, any phase; catalogues of long means in the optical.
    m = bands + errors * rng.standard_normal(10) + star.amplitude * 0.15 * rng.standard_normal()
    pm = np.hypot(abs(star.speed) + 30, 20) / 4.74 / far * 1000 * rng.standard_normal(2)
    pm_error = parallax_error * rng.uniform(0.9, 1.5, 2)
    pm = pm + pm_error * rng.standard_normal(2)
    found = dict(zip((f"{b}_mag" if len(b) < 4 else f"{b}_mean_mag" for b in BANDS), m.tolist(), strict=True))
    found |= {
        f"e_{name}": float(e) for name, e in zip(list(found), errors, strict=True) if name not in ("w3_mag", "w4_mag")
    }
    found |= {
        "mean_vmag": star.bright + rng.normal(0, 0.03),
        "bp_rp": m[1] - m[2],
        "parallax": parallax,
        "parallax_error": parallax_error,
        "parallax_over_error": parallax / parallax_error,
        "pmra": pm[0],
        "pmra_error": pm_error[0],
        "pmdec": pm[1],
        "pmdec_error": pm_error[1],
        "j_k": m[3] - m[5],
        "w1_w2": m[6] - m[7],
        "w3_w4": m[8] - m[9],
        "pm": float(np.hypot(*pm)),
        "ruwe": float(1 + abs(rng.normal(0, 0.08)) + (star.name in ("EA", "EB") and rng.random() < 0.3) * rng.random()),
        "l": star.longitude,
        "b": star.latitude,
    }
    found |= _variability(star, rng, wrong)
    return {name: float(found[name]) for name in (*preprocess.META, *preprocess.PHOTO)}


def _variability(star: Star, rng: Generator, wrong: float) -> dict[str, float]:
    """Amplitude, period, string length and fit score, as a period search would find them."""
    period = star.period
    if rng.random() < wrong:
        factor = ALIASES[rng.integers(len(ALIASES))]
        period = period * factor if factor else 1 / abs(1 / period - 1.0027) if abs(1 / period - 1.0027) > 1e-3 else 1.0
    irregular = {"SR": 0.25, "ROT": 0.15, "M": 0.05, "DSCT": 0.12}.get(star.name, 0.0)
    period *= 10 ** rng.normal(0, 0.12 * irregular)
    noise = 0.012 + 0.03 * 10 ** (0.4 * (star.bright - 15))
    share = noise**2 / (noise**2 + (star.amplitude / 3) ** 2)
    unclear = float(np.clip(share + irregular * rng.random() + (star.shape == "odd") * 0.4, 0, 1))
    return {
        "amplitude": star.amplitude * np.exp(rng.normal(0, 0.12)) + 2 * noise,
        "period": float(np.clip(period, 0.03, 900)),
        "lksl_statistic": float(np.clip(0.08 + 0.8 * unclear + rng.normal(0, 0.05), 0.02, 1.2)),
        "rfr_score": float(np.clip(0.97 - unclear + rng.normal(0, 0.05), -0.5, 1)),
    }


def shared(n: int, least: int = 1) -> dict[str, int]:
    """How many of `n` stars are of each class: in the proportions of `COUNTS`, at least `least` of each."""
    exact = np.array(list(COUNTS.values())) * n / sum(COUNTS.values())
    found = np.maximum(np.floor(exact), least).astype(int)
    found[0] += n - found.sum()
    return dict(zip(CLASSES, found.tolist(), strict=True))


class Stars(Indexed):
    """`n` stars without replies: parts of the `kinds` asked for, the class as truth and as column "label".

    Shares: `missing` of the parts are left out (never all), `mislabelled` stars have a wrong label (column "wrong" 1,
    the truth is still right), `odd` ones are anomalies (column "odd" 1). Values are as measured.
    """

    name = "stars"

    def __init__(
        self,
        split: Split,
        n: int = 2048,
        seed: int = 0,
        kinds: Sequence[str] = KINDS,
        missing: float = 0.0,
        mislabelled: float = 0.0,
        odd: float = 0.0,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise ConfigError(f"wanted kinds among {', '.join(KINDS)}, found {', '.join(unknown) or 'none'}")
        if n < len(CLASSES):
            raise ConfigError(f"wanted at least one star of each of {len(CLASSES)} classes, found n={n}")
        self.split, self.n, self.seed, self.kinds = split, n, seed, tuple(kinds)
        self.missing, self.mislabelled, self.odd = missing, mislabelled, odd
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.n

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each star, by its number; a fixed shuffle of the unbalanced classes."""
        numbers = np.repeat(np.arange(len(CLASSES)), list(shared(self.n).values()))
        return self._rng(-1, 0).permutation(numbers)

    @cached_property
    def labels(self) -> list[int]:
        """The label of each star; wrong for a share."""
        rng = self._rng(-1, 1)
        wrong = rng.random(self.n) < self.mislabelled
        other = (self.classes + rng.integers(1, len(CLASSES), self.n)) % len(CLASSES)
        return np.where(wrong, other, self.classes).tolist()

    def star(self, index: int) -> Star:
        """What is true of star `index`."""
        rng = self._rng(index, 0)
        odd = bool(rng.random() < self.odd)
        return draw(CLASSES[self.classes[index]], rng, odd)

    def sample(self, index: int) -> Sample:
        found = self._kept.get(index)
        if found is None:
            found = self._made(index)
            if len(self._kept) < KEPT:
                self._kept[index] = found
        return found

    def _made(self, index: int) -> Sample:
        star = self.star(index)
        record = catalogue(star, self._rng(index, 1))
        about = {name: record[name] for name in preprocess.PHOTO}
        label = self.labels[index]
        odd = star.shape == "odd" or star.looks != star.name
        columns = {"label": float(label), "odd": float(odd), "wrong": float(label != self.classes[index])}
        parts = tuple(
            Part(kind, media(self._value(kind, star, index, record, about), kind)) for kind in self._present(index)
        )
        return Sample(
            f"{self.split}-{self.seed}-{index}", parts, truth=star.name, meta={"class": star.name}, columns=columns
        )

    def _value(self, kind: str, star: Star, index: int, record: Mapping[str, float], about: Mapping[str, float]) -> Any:
        if kind == "light_curve":
            rng = self._rng(index, 2)
            return Points(starlight.observed(star.shape, star.period, star.amplitude, star.bright, rng), about)
        if kind == "spectrum":
            rng = self._rng(index, 3)
            snr = float(np.clip(60 * 10 ** (-0.28 * (star.bright - 12.5)) * rng.uniform(0.3, 1.0), 3, 100))
            dwarf = TYPES[star.looks].dwarf
            physics = (star.kelvin, star.metals, dwarf, star.emission, star.speed, star.extinction)
            return starlight.spectrum(*physics, snr, rng).astype(np.float32)
        return record

    def _present(self, index: int) -> Sequence[str]:
        if not self.missing:
            return self.kinds
        rng = self._rng(index, 4)
        kept = [kind for kind in self.kinds if rng.random() >= self.missing]
        return kept or [self.kinds[rng.integers(len(self.kinds))]]

    def _rng(self, index: int, what: int) -> Generator:
        # A key, because to stretch a seed into a state takes longer than to draw a star.
        key = (self.seed * 3 + SPLITS.index(self.split)) % 2**64 << 64 | (index + 1) * 8 + what
        return np.random.Generator(np.random.Philox(key=key))
