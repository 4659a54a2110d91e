"""Synthetic variable stars of ten classes, each with a light curve, a spectrum and a record of catalog entries.

No single modality identifies every class: spectra show temperatures but no periods, light curves have noise and gaps,
and the period in a record is sometimes an alias.
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
from mmpost.data.signals.modalities import TIMES  # noqa: F401  (registers the modalities)
from mmpost.data.signals.points import Points
from mmpost.data.sources.base import Generated, check_names
from mmpost.data.worlds.stars import physics
from mmpost.errors import ConfigError
from mmpost.types import Part, Sample, Split

COUNTS: Mapping[str, int] = {
    "EW": 6168, "SR": 4590, "EA": 2916, "RRAB": 2351, "EB": 1976,
    "ROT": 1839, "RRC": 796, "HADS": 281, "M": 268, "DSCT": 255,
}  # fmt: skip
"""Objects per class in the AstroM3 dataset; synthetic stars have the same class proportions."""
CLASSES = tuple(COUNTS)
MODALITIES = ("light_curve", "spectrum", "record")
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Type:
    """Physical parameters of a class: pairs are means and standard deviations."""

    period: tuple[float, float]
    """log10 of the period in days."""
    amplitude: tuple[float, float]
    """log10 of the amplitude in magnitudes."""
    kelvin: tuple[float, float]
    bright: tuple[float, float]
    """Absolute V magnitude at the mean period; it decreases by `slope` per dex of period."""
    slope: float = 0.0
    metals: tuple[float, float] = (-0.2, 0.25)
    dwarf: float = 1.0
    active: float = 0.0
    """Maximum emission in the hydrogen lines."""
    speed: float = 35.0
    """Standard deviation of the radial velocity in km/s."""


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
"""Wavelengths of the photometric bands in Angstrom."""
DUST = np.array([0.85, 1.06, 0.63, 0.28, 0.18, 0.12, 0.07, 0.05, 0.04, 0.03])
"""Extinction in the bands relative to V."""


@dataclass(frozen=True)
class Star:
    """The true parameters of one star, which each modality observes with independent noise."""

    name: str
    shape: str
    """The shape of the light curve: that of the class, or "odd"."""
    looks: str
    """The class of the spectrum and colors: another than that of the star for some anomalies."""
    period: float
    amplitude: float
    kelvin: float
    absolute: float
    metals: float
    emission: float
    speed: float
    bright: float
    """Apparent V magnitude, within the limits of the survey."""
    extinction: float
    latitude: float
    longitude: float


def sample_star(name: str, rng: Generator, odd: bool = False) -> Star:
    """Sample a star of class `name`. If `odd`, its light curve fits no class, or its spectrum fits another."""
    odd_shape = odd and rng.random() < 0.5
    others = [c for c in CLASSES if abs(TYPES[c].kelvin[0] - TYPES[name].kelvin[0]) > 1200]
    looks = str(rng.choice(others)) if odd and not odd_shape else name
    t, appearance = TYPES[name], TYPES[looks]
    dex = float(rng.normal(0, t.period[1]))
    spread = 2.0 if looks in ("RRAB", "RRC") else 1.0
    latitude = float(np.degrees(np.arcsin(np.clip(rng.laplace(0, 0.22 * spread), -0.98, 0.98))))
    absolute = float(rng.normal(*appearance.bright) - t.slope * dex)
    bright = float(np.clip(rng.normal(14.0 if appearance.dwarf > 0.2 else 12.3, 1.2), 10.5, 16.8))
    extinction = float(rng.gamma(2.0, 0.25) * (0.4 + np.exp(-abs(latitude) / 15)))
    return Star(
        name=name,
        shape="odd" if odd_shape else name,
        looks=looks,
        period=10 ** (t.period[0] + dex),
        amplitude=float(np.clip(10 ** rng.normal(*t.amplitude), 0.04, 6.0)) * (1.5 if odd_shape else 1.0),
        kelvin=float(np.clip(rng.normal(*appearance.kelvin), 2500, 16000)),
        absolute=absolute,
        metals=float(rng.normal(*appearance.metals)),
        emission=float(appearance.active * rng.random() ** 2),
        speed=float(rng.normal(0, appearance.speed)),
        bright=bright,
        extinction=extinction,
        latitude=latitude,
        longitude=float(rng.uniform(0, 360)),
    )


def colors(kelvin: float) -> np.ndarray:
    """Magnitudes in `BANDS` minus V of a black body, relative to one of 9,600 K (as for the Vega system)."""
    wave = np.array([*BANDS.values(), 5500.0])
    magnitudes = -2.5 * np.log10(physics.planck(wave, kelvin) / physics.planck(wave, 9600.0))
    return magnitudes[:-1] - magnitudes[-1]


ALIASES = (0.5, 2.0, 0.0)
"""Factors of wrong periods; 0: the alias of the true period with one cycle per sidereal day."""


def catalogue(star: Star, rng: Generator, wrong: float = 0.12) -> dict[str, float]:
    """The 38 numbers that surveys list for a star, before preprocessing; `wrong` is the fraction of wrong periods."""
    distance = 10 ** ((star.bright - star.absolute - star.extinction + 10) / 5)
    parallax_error = float(0.02 + 0.02 * 10 ** (0.25 * (star.bright - 15))) * rng.uniform(0.8, 1.6)
    parallax = 1000 / distance + rng.normal(0, 1.5 * parallax_error)
    glow = np.array([0, 0, 0, 0, 0.05, 0.15, 0.25, 0.35, 1.1, 1.6]) * (star.kelvin < 3400) * rng.uniform(0.3, 1.5)
    bands = star.bright - star.extinction * (1 - DUST) + colors(star.kelvin) - glow
    errors = np.hypot([0.002, 0.006, 0.004, 0.022, 0.024, 0.022, 0.023, 0.021, 0.05, 0.2], 0.002 * rng.random(10))
    errors = errors * np.exp(0.15 * (star.bright - 14)) * (1 + 1.5 * star.amplitude * np.array([1, 1, 1, *[0] * 7]))
    # Infrared magnitudes are from one epoch at a random phase, optical ones means over many epochs.
    m = bands + errors * rng.standard_normal(10) + star.amplitude * 0.15 * rng.standard_normal()
    pm = np.hypot(abs(star.speed) + 30, 20) / 4.74 / distance * 1000 * rng.standard_normal(2)
    pm_error = parallax_error * rng.uniform(0.9, 1.5, 2)
    pm = pm + pm_error * rng.standard_normal(2)
    record = dict(zip((f"{b}_mag" if len(b) < 4 else f"{b}_mean_mag" for b in BANDS), m.tolist(), strict=True))
    record |= {
        f"e_{name}": float(e) for name, e in zip(list(record), errors, strict=True) if name not in ("w3_mag", "w4_mag")
    }
    record |= {
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
    record |= _variability(star, rng, wrong)
    return {name: float(record[name]) for name in (*preprocess.META, *preprocess.PHOTO)}


def _variability(star: Star, rng: Generator, wrong: float) -> dict[str, float]:
    """Amplitude, period, string length (Lafler-Kinman) and fit score, as a period search would report them."""
    period = star.period
    if rng.random() < wrong:
        factor = ALIASES[rng.integers(len(ALIASES))]
        period = period * factor if factor else 1 / abs(1 / period - 1.0027) if abs(1 / period - 1.0027) > 1e-3 else 1.0
    irregular = {"SR": 0.25, "ROT": 0.15, "M": 0.05, "DSCT": 0.12}.get(star.name, 0.0)
    period *= 10 ** rng.normal(0, 0.12 * irregular)
    noise = 0.012 + 0.03 * 10 ** (0.4 * (star.bright - 15))
    noise_fraction = noise**2 / (noise**2 + (star.amplitude / 3) ** 2)
    unclear = float(np.clip(noise_fraction + irregular * rng.random() + (star.shape == "odd") * 0.4, 0, 1))
    return {
        "amplitude": star.amplitude * np.exp(rng.normal(0, 0.12)) + 2 * noise,
        "period": float(np.clip(period, 0.03, 900)),
        "lksl_statistic": float(np.clip(0.08 + 0.8 * unclear + rng.normal(0, 0.05), 0.02, 1.2)),
        "rfr_score": float(np.clip(0.97 - unclear + rng.normal(0, 0.05), -0.5, 1)),
    }


def class_counts(n: int, minimum: int = 1) -> dict[str, int]:
    """Split `n` stars over the classes in the proportions of `COUNTS`, with at least `minimum` of each."""
    exact = np.array(list(COUNTS.values())) * n / sum(COUNTS.values())
    counts = np.maximum(np.floor(exact), minimum).astype(int)
    counts[0] += n - counts.sum()
    return dict(zip(CLASSES, counts.tolist(), strict=True))


class Stars(Generated):
    """`n` synthetic stars without replies: parts of the requested `modalities`; the class is the truth.

    The column "label" holds the class by number. Fractions: `missing` of the parts are left out (never all of a star),
    `mislabelled` stars have a wrong label (column "wrong" is 1; the truth stays right), `odd` ones are anomalies
    (column "odd" is 1). Values are as measured, without preprocessing.
    """

    name = "stars"
    cache_size = 4096  # a star takes about 30 kB

    def __init__(
        self,
        split: Split,
        n: int = 2048,
        seed: int = 0,
        modalities: Sequence[str] = MODALITIES,
        missing: float = 0.0,
        mislabelled: float = 0.0,
        odd: float = 0.0,
    ) -> None:
        super().__init__(split, n, seed)
        check_names("modalities", modalities, MODALITIES)
        if n < len(CLASSES):
            raise ConfigError(f"wanted at least one star of each of {len(CLASSES)} classes, found n={n}")
        self.modalities = tuple(modalities)
        self.missing, self.mislabelled, self.odd = missing, mislabelled, odd

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each star by number, in a fixed shuffle."""
        numbers = np.repeat(np.arange(len(CLASSES)), list(class_counts(self.n).values()))
        return self._generator(-1, 0).permutation(numbers)

    @cached_property
    def labels(self) -> list[int]:
        """The label of each star by number; wrong for a fraction `mislabelled`."""
        rng = self._generator(-1, 1)
        wrong = rng.random(self.n) < self.mislabelled
        other = (self.classes + rng.integers(1, len(CLASSES), self.n)) % len(CLASSES)
        return np.where(wrong, other, self.classes).tolist()

    def star(self, index: int) -> Star:
        """The true parameters of star `index`."""
        rng = self._generator(index, 0)
        odd = bool(rng.random() < self.odd)
        return sample_star(CLASSES[self.classes[index]], rng, odd)

    def generate(self, index: int) -> Sample:
        star = self.star(index)
        record = catalogue(star, self._generator(index, 1))
        about = {name: record[name] for name in preprocess.PHOTO}
        label = self.labels[index]
        odd = star.shape == "odd" or star.looks != star.name
        columns = {"label": float(label), "odd": float(odd), "wrong": float(label != self.classes[index])}
        parts = tuple(Part(m, media(self._value(m, star, index, record, about), m)) for m in self._present(index))
        return Sample(self.uid(index), parts, truth=star.name, meta={"class": star.name}, columns=columns)

    def _value(
        self, modality: str, star: Star, index: int, record: Mapping[str, float], about: Mapping[str, float]
    ) -> Any:
        if modality == "light_curve":
            rng = self._generator(index, 2)
            return Points(physics.observed(star.shape, star.period, star.amplitude, star.bright, rng), about)
        if modality == "spectrum":
            rng = self._generator(index, 3)
            snr = float(np.clip(60 * 10 ** (-0.28 * (star.bright - 12.5)) * rng.uniform(0.3, 1.0), 3, 100))
            dwarf = TYPES[star.looks].dwarf
            parameters = (star.kelvin, star.metals, dwarf, star.emission, star.speed, star.extinction)
            return physics.spectrum(*parameters, snr, rng).astype(np.float32)
        return record

    def _present(self, index: int) -> Sequence[str]:
        if not self.missing:
            return self.modalities
        rng = self._generator(index, 4)
        present = [m for m in self.modalities if rng.random() >= self.missing]
        return present or [self.modalities[rng.integers(len(self.modalities))]]

    def _generator(self, index: int, stream: int) -> Generator:
        # Philox uses its key directly; expanding a seed (SeedSequence) would take longer than sampling a star.
        key = (self.seed * 3 + SPLITS.index(self.split)) % 2**64 << 64 | (index + 1) * 8 + stream
        return np.random.Generator(np.random.Philox(key=key))
