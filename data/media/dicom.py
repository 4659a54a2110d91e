"""DICOM films as pictures: rescaled, windowed, and bright where the body is dense."""

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
"""Beyond every value that a detector gives: where a window ends."""


def header(file: BinaryIO) -> dict[str, float]:
    """Width and height, without the pixels."""
    data = _read(file, stop_before_pixels=True)
    return {"width": data.Columns, "height": data.Rows}


def picture(file: BinaryIO) -> Image.Image:
    """A grey film of one frame as RGB with 8 bits: modality rescale, then the VOI table or window, then inversion.

    A film without a window is stretched from its darkest to its brightest value. Raises DataError for what is no such
    film, and for compressed pixels that nothing installed decodes.
    """
    data = _read(file)
    scheme, frames = data.get("PhotometricInterpretation"), int(data.get("NumberOfFrames") or 1)
    if scheme not in ("MONOCHROME1", "MONOCHROME2") or frames != 1:
        raise DataError(f"wanted one grey film, found {frames} of {scheme}; convert it to a picture, or drop the row")
    try:
        stored = data.pixel_array
    except (RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        raise DataError(
            f"wanted pixels that can be decoded, found {type(error).__name__}: {error}. For compressed films install "
            "pylibjpeg with its plug-ins"
        ) from error
    shown = _windowed(apply_modality_lut(stored, data), data)
    if scheme == "MONOCHROME1":
        shown = 1 - shown
    return Image.fromarray(np.round(255 * shown).astype(np.uint8)).convert("RGB")


def _read(file: BinaryIO, stop_before_pixels: bool = False) -> Any:
    try:
        data = dcmread(file, stop_before_pixels=stop_before_pixels)
    except (InvalidDicomError, KeyError, NotImplementedError) as error:
        raise DataError(f"wanted a DICOM file, found one that cannot be read ({error}); replace it") from error
    if not isinstance(data.get("Rows"), int) or not isinstance(data.get("Columns"), int):
        raise DataError("wanted a DICOM film with Rows and Columns, found one without; drop the row")
    limits.frame(data.Columns, data.Rows)
    return data


def _windowed(values: np.ndarray, data: Any) -> np.ndarray:
    """Brightness from 0 to 1."""
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
