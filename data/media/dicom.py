"""DICOM radiographs as 8-bit images: rescaled, windowed, and bright where tissue is dense."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

from mmpost.data.media import limits
from mmpost.errors import DataError

_FAR = 1e12
"""Beyond all values of detectors, to find the output range of a window."""


def header(file: BinaryIO) -> dict[str, float]:
    """Width and height, read without the pixels."""
    data = _read(file, stop_before_pixels=True)
    return {"width": data.Columns, "height": data.Rows}


def image(file: BinaryIO) -> Image.Image:
    """Read a single-frame grayscale radiograph as an 8-bit RGB image.

    Applies the modality LUT, then the VOI LUT or window, then inversion (MONOCHROME1); a radiograph without a window is
    stretched from its minimum to its maximum. Raises DataError for other DICOM files, and for compressed pixels that no
    installed plug-in decodes.
    """
    data = _read(file)
    scheme, frames = data.get("PhotometricInterpretation"), int(data.get("NumberOfFrames") or 1)
    if scheme not in ("MONOCHROME1", "MONOCHROME2") or frames != 1:
        raise DataError(
            f"wanted one grayscale image, found {frames} of {scheme}; convert it to a PNG file, or drop the row"
        )
    try:
        stored = data.pixel_array
    except (RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        raise DataError(
            f"wanted pixels that can be decoded, found {type(error).__name__}: {error}. For compressed images install "
            "pylibjpeg with its plug-ins"
        ) from error
    brightness = _windowed(apply_modality_lut(stored, data), data)
    if scheme == "MONOCHROME1":
        brightness = 1 - brightness
    return Image.fromarray(np.round(255 * brightness).astype(np.uint8)).convert("RGB")


def _read(file: BinaryIO, stop_before_pixels: bool = False) -> Any:
    try:
        data = dcmread(file, stop_before_pixels=stop_before_pixels)
    except (InvalidDicomError, KeyError, NotImplementedError) as error:
        raise DataError(f"wanted a DICOM file, found one that cannot be read ({error}); replace it") from error
    if not isinstance(data.get("Rows"), int) or not isinstance(data.get("Columns"), int):
        raise DataError("wanted a DICOM image with Rows and Columns, found one without; drop the row")
    limits.frame(data.Columns, data.Rows)
    return data


def _windowed(values: np.ndarray, data: Any) -> np.ndarray:
    """Apply the VOI LUT or window; brightness in 0..1."""
    if data.get("VOILUTSequence"):
        table = data.VOILUTSequence[0]
        low, high = 0.0, 2.0 ** table.LUTDescriptor[2] - 1
        shown = apply_voi_lut(values, data)
    elif data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        shown = apply_windowing(values, data)
        with np.errstate(over="ignore"):
            low, high = map(float, apply_windowing(np.array([-_FAR, _FAR]), data))
    else:
        shown, low, high = values, float(values.min()), float(values.max())
    return np.clip((shown.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
