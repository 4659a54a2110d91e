"""DICOM films as images: rescale, window, table, inversion, limits and broken files."""

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


def film(path: Path, pixels: np.ndarray = STORED, **more: Any) -> Path:
    """A film of 12 bits."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 12, 11
    data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
    data.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path) -> list[list[int]]:
    """The picture that comes out; all three channels must be the same."""
    shown = np.asarray(media(path, "image").open())
    assert (shown == shown[..., :1]).all()
    return shown[..., 0].tolist()


def test_without_a_window_the_range_is_stretched(tmp_path: Path) -> None:
    path = film(tmp_path / "a.dcm")
    assert grey(path) == np.round(STORED / 4095 * 255).astype(int).tolist()
    assert media(path, "image").header() == {"width": 3, "height": 2}
    assert grey(film(tmp_path / "b.dcm", WindowCenter=None, WindowWidth=None)) == grey(path)


def test_a_window_and_its_inversion(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2: centre 2000.5, width 2001 is linear from 1000 to 3000.
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    assert grey(film(tmp_path / "a.dcm", **window)) == [[0, 0, 128], [255, 255, 255]]
    inverted = film(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    assert np.abs(np.array(grey(inverted)) - [[255, 255, 127], [0, 0, 0]]).max() <= 1


def test_the_window_is_in_rescaled_values(tmp_path: Path) -> None:
    path = film(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3900.5, WindowWidth=4001)
    assert grey(path) == [[0, 0, 128], [255, 255, 255]]


def test_a_table_of_values(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [3, 1000, 8]
    table.add_new(0x00283006, "OW", np.array([10, 200, 90], np.uint16).tobytes())
    path = film(tmp_path / "a.dcm", np.array([[0, 1000], [1001, 4000]], np.uint16), VOILUTSequence=[table])
    assert grey(path) == [[10, 10], [200, 90]]


def test_what_is_no_film_says_so_with_the_files_name(tmp_path: Path) -> None:
    several = film(tmp_path / "several.dcm", NumberOfFrames=2, PixelData=STORED.tobytes() * 2)
    with pytest.raises(DataError, match=r"several\.dcm: wanted one grayscale image, found 2 of MONOCHROME2"):
        media(several, "image").open()
    short = film(tmp_path / "short.dcm", PixelData=STORED.tobytes()[:4])
    with pytest.raises(DataError, match=r"short\.dcm: wanted a readable image.*4 vs 12 bytes"):
        media(short, "image").open()
    bare = film(tmp_path / "bare.dcm")
    bare.write_bytes(bare.read_bytes()[:140])
    with pytest.raises(DataError, match=r"bare\.dcm"):
        media(bare, "image").open()


def test_large_films_are_refused_by_their_headers(tmp_path: Path) -> None:
    path = film(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"at most 5 pixels.*raise data.max_frame_pixels"):
        media(path, "image", limits=Limits(frame=5)).header()
