"""What a picture looks like, in 255 bits: nearly the same for copies in another size, format or quality.

Signs of the lowest frequencies of a cosine transform against their median (Zauner 2010, "Implementation and
benchmarking of perceptual image hash functions"), from 64 x 64 gray values. JPEG at quality 30 and halving change up to
16 bits of photographs, drawings and scanned tables; different ones of these differ in 76 and more. Turned, mirrored and
cropped copies look different.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt64
from PIL import Image
from scipy.fft import dctn

SIDE = 64
"""Pixels of the sides that a picture is reduced to."""
FREQUENCIES = 16
"""The lowest ones of each axis count."""
ALIKE = 24
"""The most bits in which two pictures that look alike differ."""
FLAT = 2.0
"""The standard deviation of gray values, of 255, below which a picture shows nothing that could be compared."""

Hash = UInt64[np.ndarray, "4"]


def perceptual_hash(picture: Image.Image) -> Hash | None:
    """The bits of a picture; None for one of a single color, or nearly so."""
    gray = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
    if gray.std() < FLAT:
        return None
    # The first coefficient is the mean brightness.
    low = np.asarray(dctn(gray, norm="ortho"))[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    return np.packbits(low > np.median(low)).view(np.uint64)


def differing_bits(one: Hash, others: UInt64[np.ndarray, "picture 4"]) -> np.ndarray:
    """The number of bits in which a picture differs from each of others."""
    return np.bitwise_count(others ^ one).sum(axis=-1)
