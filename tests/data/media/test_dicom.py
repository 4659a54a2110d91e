"""DICOM radiographs as images: rescale slope, window, VOI LUT, inversion, size limits and broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from mmpost.data.media.limits import Limits
from mmpost.data.media.media import media
from mmpost.errors import DataError

STORED = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)


def write_radiograph(path: Path, pixels: np.ndarray = STORED, **attributes: Any) -> Path:
    """Write a radiograph with 12 bits per pixel; `attributes` are DICOM attributes by keyword."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 12, 11
    data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
    data.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def gray_values(path: Path) -> list[list[int]]:
    """The decoded gray values; all three channels must be equal."""
    pixels = np.asarray(media(path, "image").open())
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def test_without_a_window_the_value_range_is_rescaled(tmp_path: Path) -> None:
    path = write_radiograph(tmp_path / "a.dcm")
    assert gray_values(path) == np.round(STORED / 4095 * 255).astype(int).tolist()
    assert media(path, "image").header() == {"width": 3, "height": 2}
    assert gray_values(write_radiograph(tmp_path / "b.dcm", WindowCenter=None, WindowWidth=None)) == gray_values(path)


def test_a_window_and_its_inversion(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2: centre 2000.5, width 2001 is linear from 1000 to 3000.
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    assert gray_values(write_radiograph(tmp_path / "a.dcm", **window)) == [[0, 0, 128], [255, 255, 255]]
    inverted = write_radiograph(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    assert np.abs(np.array(gray_values(inverted)) - [[255, 255, 127], [0, 0, 0]]).max() <= 1


def test_the_window_applies_to_rescaled_values(tmp_path: Path) -> None:
    path = write_radiograph(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3900.5, WindowWidth=4001
    )
    assert gray_values(path) == [[0, 0, 128], [255, 255, 255]]


def test_a_voi_lut(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [3, 1000, 8]
    table.add_new(0x00283006, "OW", np.array([10, 200, 90], np.uint16).tobytes())
    path = write_radiograph(tmp_path / "a.dcm", np.array([[0, 1000], [1001, 4000]], np.uint16), VOILUTSequence=[table])
    assert gray_values(path) == [[10, 10], [200, 90]]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    several = write_radiograph(tmp_path / "several.dcm", NumberOfFrames=2, PixelData=STORED.tobytes() * 2)
    with pytest.raises(DataError, match=r"several\.dcm: wanted one grayscale image, found 2 of MONOCHROME2"):
        media(several, "image").open()
    short = write_radiograph(tmp_path / "short.dcm", PixelData=STORED.tobytes()[:4])
    with pytest.raises(DataError, match=r"short\.dcm: wanted a readable image.*4 vs 12 bytes"):
        media(short, "image").open()
    bare = write_radiograph(tmp_path / "bare.dcm")
    bare.write_bytes(bare.read_bytes()[:140])
    with pytest.raises(DataError, match=r"bare\.dcm"):
        media(bare, "image").open()


def test_large_radiographs_are_refused_by_their_headers(tmp_path: Path) -> None:
    path = write_radiograph(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"at most 5 pixels.*raise data.max_frame_pixels"):
        media(path, "image", limits=Limits(frame=5)).header()
