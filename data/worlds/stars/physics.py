"""Observations of variable stars: sampling in time, brightness by class and phase, and spectra with absorption lines.

Shapes, periods and temperatures roughly follow the classes of the ASAS-SN catalog.
Times are in days, wavelengths in Angstrom, magnitudes in V, fluxes in mJy (light curves) or relative (spectra).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator
from scipy.special import expit

Series = Float64[np.ndarray, " epoch"]
ZERO = 3.636e6
"""Flux of V magnitude 0 in mJy."""
FIRST = 2_456_600.0
"""The first night as heliocentric Julian date (HJD)."""
NIGHTS = 1600
"""Approximate length of the survey."""


def epochs(rng: Generator) -> Series:
    """Sample observation times: yearly seasons, clear of bad weather, no full moon, one or two exposures a night."""
    night = np.cumsum(rng.integers(1, 6, NIGHTS // 3))
    year, month, season = rng.random(), rng.random(), rng.uniform(0.55, 0.85)
    clear = rng.random(len(night) // 3 + 1).repeat(3)[: len(night)] < rng.uniform(0.5, 0.95)
    dark = np.abs((night / 29.53 + month) % 1 - 0.5) < 0.45
    observed_nights = night[((night / 365.25 + year) % 1 < season) & clear & dark]
    start = observed_nights + 0.35 + 0.3 * rng.random(len(observed_nights))
    exposures = rng.integers(1, 3, len(observed_nights))
    number = np.arange(exposures.sum()) - np.repeat(exposures.cumsum() - exposures, exposures)
    return FIRST + np.repeat(start, exposures) + 0.0013 * number


def bump(phase: Series, at: float, width: float) -> Series:
    """A dip of depth 1 centered at phase `at` (phases wrap around at 1)."""
    distance = np.abs(np.mod(phase - at + 0.5, 1) - 0.5)
    return np.exp(-0.5 * (distance / width) ** 4)


def saw(phase: Series, rise: float) -> Series:
    """Sawtooth from 0 (maximum light) to 1: a slow decline, then a rise within the fraction `rise` of the period."""
    p = np.mod(phase, 1)
    falling = 1 - np.exp(-3.2 * p / (1 - rise))
    rising = 1 - (p - (1 - rise)) / rise
    return np.where(p < 1 - rise, falling / (1 - np.exp(-3.2)), np.clip(rising, 0, 1))


def _contact(t: Series, phase: Series, rng: Generator) -> Series:
    shallow = np.where(np.mod(phase + 0.25, 1) < 0.5, 1.0, rng.uniform(0.85, 1.0))
    return shallow * (0.5 + 0.5 * np.cos(4 * np.pi * phase)) ** rng.uniform(0.9, 1.5)


def _close(t: Series, phase: Series, rng: Generator) -> Series:
    tide, second, width = rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.8), rng.uniform(0.07, 0.11)
    eclipses = bump(phase, 0, width) + second * bump(phase, 0.5, width)
    return tide * (0.5 + 0.5 * np.cos(4 * np.pi * phase)) + (1 - tide) * eclipses


def _detached(t: Series, phase: Series, rng: Generator) -> Series:
    width, second = rng.uniform(0.02, 0.06), rng.uniform(0.05, 0.9)
    return bump(phase, 0, width) + second * bump(phase, 0.5 + rng.normal(0, 0.03), width)


def _saw(low: float, high: float) -> Callable[[Series, Series, Generator], Series]:
    def shape(t: Series, phase: Series, rng: Generator) -> Series:
        return saw(phase, rng.uniform(low, high))

    return shape


def _overtone(t: Series, phase: Series, rng: Generator) -> Series:
    second = 0.5 + 0.1 * np.sin(4 * np.pi * phase + rng.uniform(0, 6.28))
    return second - 0.45 * np.cos(2 * np.pi * phase)


def _modes(t: Series, phase: Series, rng: Generator) -> Series:
    total = np.sin(2 * np.pi * phase)
    for _ in range(rng.integers(1, 4)):
        total = total + rng.uniform(0.2, 0.7) * np.sin(2 * np.pi * (phase * rng.uniform(0.75, 1.4) + rng.random()))
    return 0.5 + 0.3 * total


def _spots(t: Series, phase: Series, rng: Generator) -> Series:
    slow = (t - t[0]) / rng.uniform(500, 1500)
    strength = 1 + 0.35 * np.sin(2 * np.pi * (slow + rng.random()))
    drift = 0.15 * np.sin(2 * np.pi * (slow * 0.7 + rng.random()))
    second = rng.uniform(0, 0.5) * np.sin(4 * np.pi * (phase + drift) + rng.uniform(0, 6.28))
    return 0.5 + 0.4 * strength * (np.sin(2 * np.pi * (phase + drift)) + second)


def _semiregular(t: Series, phase: Series, rng: Generator) -> Series:
    drift = 0.25 * np.sin(2 * np.pi * (t - t[0]) / rng.uniform(400, 1200) + rng.uniform(0, 6.28))
    other = rng.uniform(0.3, 0.8) * np.sin(2 * np.pi * (phase * rng.uniform(0.3, 0.65) + rng.random()))
    return 0.5 + 0.3 * (np.sin(2 * np.pi * (phase + drift)) + other)


def _mira(t: Series, phase: Series, rng: Generator) -> Series:
    cycle = np.floor(phase).astype(int) - int(np.floor(phase.min()))
    strength = rng.uniform(0.85, 1.1, cycle.max() + 1)[cycle]
    rise = rng.uniform(0.38, 0.5)
    p = np.mod(phase, 1)
    bent = np.where(p < 1 - rise, p / (1 - rise) / 2, 0.5 + (p - 1 + rise) / rise / 2)
    return strength * (0.5 - 0.5 * np.cos(2 * np.pi * bent))


def _odd(t: Series, phase: Series, rng: Generator) -> Series:
    """An anomaly: deep aperiodic dips of a few weeks on a slow decline."""
    centers = rng.uniform(t[0], t[-1], rng.integers(3, 7))
    dips = sum(rng.uniform(0.4, 1) * np.exp(-0.5 * ((t - c) / rng.uniform(8, 40)) ** 2) for c in centers)
    return np.asarray(dips + 0.3 * (t - t[0]) / (t[-1] - t[0]))


SHAPES: Mapping[str, Callable[[Series, Series, Generator], Series]] = {
    "EW": _contact, "SR": _semiregular, "EA": _detached, "RRAB": _saw(0.13, 0.22), "EB": _close,
    "ROT": _spots, "RRC": _overtone, "HADS": _saw(0.25, 0.38), "M": _mira, "DSCT": _modes, "odd": _odd,
}  # fmt: skip
"""Dimming as a function of times and phases by class, nominally from 0 (brightest) to 1."""


def observed(
    name: str, period: float, amplitude: float, bright: float, rng: Generator
) -> Float64[np.ndarray, "epoch 3"]:
    """Observe a star with mean V magnitude `bright`: HJD, flux and its error (mJy), with a noise floor of 1.2 %."""
    t = epochs(rng)
    dim = SHAPES[name](t, (t - FIRST) / period + rng.random(), rng)
    flux = ZERO * 10 ** (-0.4 * (bright + amplitude * (dim - 0.5)))
    error = np.hypot(0.012 * flux, rng.uniform(0.06, 0.12))
    # One percent of the exposures are outliers, which their reported errors do not reflect.
    noise = rng.standard_normal(len(t)) * np.where(rng.random(len(t)) < 0.01, 6.0, 1.0)
    return np.column_stack([t, flux + error * noise, error])


POINTS = 1500
"""Points of a spectrum."""
LINES: tuple[tuple[float, float, str], ...] = (
    (6562.8, 7, "H"), (4861.3, 8, "H"), (4340.5, 8, "H"), (4101.7, 8, "H"), (3970.1, 7, "H"),
    (3933.7, 7, "Ca"), (3968.5, 6, "Ca"), (8498.0, 5, "Ca3"), (8542.1, 6, "Ca3"), (8662.1, 6, "Ca3"),
    (5889.9, 6, "Na"), (5175.0, 14, "Mg"), (4304.0, 14, "CH"), (5270.0, 9, "Fe"), (4383.0, 8, "Fe"),
    (4226.7, 6, "CaI"), (4471.5, 6, "He"), (5875.6, 5, "He"), (4026.2, 5, "He"),
)  # fmt: skip
"""Wavelength and width (standard deviation) in Angstrom, and the species that absorbs."""
BANDS = (4761.0, 4954.0, 5167.0, 5448.0, 5847.0, 6158.0, 6651.0, 7053.0, 7589.0, 8206.0, 8432.0)
"""Heads of the titanium oxide bands, which extend to the red."""
SPECIES = ("H", "Ca", "Ca3", "Na", "Mg", "CH", "Fe", "CaI", "He", "TiO")


@cache
def _profiles() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Wavelengths; optical depth per unit of strength of each species; of air and of dust; relative sky noise."""
    wave = np.geomspace(3840.0, 9060.0, POINTS)
    depth = np.zeros((len(SPECIES), POINTS))
    for at, width, species in LINES:
        depth[SPECIES.index(species)] += np.exp(-0.5 * ((wave - at) / width) ** 2)
    for head in BANDS:
        past = wave - head
        depth[-1] += np.exp(-np.maximum(past, 0) / 130) * expit(past / 4)
    air = 0.6 * np.exp(-np.abs(wave - 7620) / 18) + 0.3 * np.exp(-np.abs(wave - 6880) / 14)
    sky = 1.2 * (wave > 8200) * (wave % 60 < 20) + 0.6 * np.exp((3950 - wave) / 60)
    return wave, depth, air, 0.92 * ((5500 / wave) ** 1.3 - 1), sky


def strengths(kelvin: float, metals: float, dwarf: float) -> Float64[np.ndarray, " species"]:
    """Central optical depth of each species' lines; `metals` is [Fe/H], `dwarf` is 1 (high gravity) to 0 (low)."""
    t = kelvin / 1000
    rich = 10 ** (0.6 * metals)
    cool = 1 / (1 + np.exp((t - 6.3) / 0.55))
    hydrogen = 1.5 * np.exp(-((np.log(t / 9.2) / 0.33) ** 2)) + 0.05
    helium = 0.35 / (1 + np.exp((12.5 - t) / 1.2))
    oxide = max(0.0, 3.95 - t) * 1.1
    return np.array(
        [
            hydrogen,
            rich * (0.25 + 1.6 * cool),
            rich * (0.2 + 0.45 * cool) * (1.3 - 0.4 * dwarf),
            rich * (0.05 + 0.5 * cool) * (0.6 + 0.8 * dwarf),
            rich * (0.05 + 0.4 * cool) * (0.6 + 0.8 * dwarf),
            rich * 0.45 * cool,
            rich * (0.1 + 0.35 * cool),
            rich * 0.9 / (1 + np.exp((t - 4.5) / 0.3)),
            helium,
            rich * oxide,
        ]
    )


def planck(wave: np.ndarray | float, kelvin: float) -> np.ndarray:
    """Planck's law: black-body radiance per wavelength (Angstrom), in arbitrary units."""
    x = np.asarray(wave)
    return np.asarray(1e20 / (x * x * x * x * x) / np.expm1(1.4388e8 / (x * kelvin)))


def spectrum(
    kelvin: float,
    metals: float,
    dwarf: float,
    emission: float,
    speed: float,
    reddening: float,
    snr: float,
    rng: Generator,
) -> Float64[np.ndarray, "point 3"]:
    """Wavelength, flux (median 1) and error of a star that recedes at `speed` km/s.

    `emission` is subtracted from the optical depth of the hydrogen lines, `reddening` is A_V, `snr` the signal-to-noise
    ratio. Noise grows at the blue end, and in the far red because of the night sky.
    """
    wave, depth, air, dust, sky = _profiles()
    lines = strengths(kelvin, metals, dwarf)
    lines[0] -= emission
    flux = planck(wave, kelvin) * np.exp(-np.minimum(lines @ depth, 4.0))
    flux = np.interp(wave * (1 - speed / 299_792.458), wave, flux)
    # Dust reddens the spectrum; the flux calibration is tilted by a few percent.
    tilt = rng.normal(0, 0.06) * (wave - 6400) / 2500
    flux = flux * np.exp(-reddening * dust - air * rng.uniform(0.5, 1.2) + tilt)
    flux /= np.median(flux)
    error = (0.6 + 0.4 * np.sqrt(flux) + sky) / snr
    return np.column_stack([wave, flux + error * rng.standard_normal(POINTS), error])
