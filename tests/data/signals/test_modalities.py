"""Light curves, spectra and records as media: file formats, malformed input, previews and sketches."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpost.data.media.media import Media, media
from mmpost.data.readers import rows
from mmpost.data.signals.modalities import TIMES
from mmpost.data.signals.points import Points
from mmpost.errors import DataError

TABLE = np.array([[1.0, 10.0, 0.1], [2.5, 12.0, 0.2], [4.0, 11.0, 0.1]])


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def parquet(columns: dict[str, list[float]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


COLUMNS = {"HJD": TABLE[:, 0].tolist(), "flux": TABLE[:, 1].tolist(), "flux_err": TABLE[:, 2].tolist()}
FORMS = {
    "npy": npy(TABLE),
    "npz of one array": npz(curve=TABLE),
    "npz of columns": npz(**{k: np.array(v) for k, v in COLUMNS.items()}),
    "csv with a head": b"# a comment\nHJD,flux,flux_err\n1,10,.1\n2.5,12,.2\n4,11,.1\n",
    "csv without": b"1,10,.1\n2.5,12,.2\n4,11,.1\n",
    "spaces": b"1 10 .1\n2.5 12 .2\n4 11 .1\n",
    "parquet": parquet(COLUMNS),
    "json columns": json.dumps(COLUMNS).encode(),
    "json rows": json.dumps(TABLE.tolist()).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_file_format_gives_the_same_points(form: str, tmp_path: Path) -> None:
    path = tmp_path / "curve"
    path.write_bytes(FORMS[form])
    assert np.array_equal(media(path, "light_curve").open().table, TABLE)
    assert media(path, "light_curve").header() == {"epochs": 3, "from": 1.0, "to": 4.0}


@pytest.mark.parametrize(
    "value", [TABLE, TABLE.tolist(), COLUMNS, Points(TABLE)], ids=["array", "lists", "dict", "points"]
)
def test_values_in_memory(value: object) -> None:
    assert np.array_equal(media(value, "light_curve").open().table, TABLE)


def test_metadata_of_a_curve_is_kept() -> None:
    medium = media({**COLUMNS, "period": 0.5, "about": {"amplitude": 2}}, "light_curve")
    assert medium.open().about == {"period": 0.5, "amplitude": 2.0}
    assert medium.hash == media(Points(TABLE, {"period": 0.5, "amplitude": 2.0}), "light_curve").hash
    assert medium.hash != media(TABLE, "light_curve").hash


def test_a_missing_error_is_zero() -> None:
    assert np.array_equal(media(TABLE[:, :2], "spectrum").open().table[:, 2], np.zeros(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (npy(np.zeros((0, 3))), r"shape \[0, 3\]"),
        (npy(np.zeros((4, 5))), r"shape \[4, 5\]"),
        (npy(np.zeros(4)), r"shape \[4\]"),
        (npy(np.array([[1, np.nan, 2], [2, 3, 4]])), "NaN or infinity in 1 of 2 points, first in point 1"),
        (npy(np.array([["a", "b"]])), "no such table"),
        (npy(np.array([{}], dtype=object)), "allow_pickle"),
        (npy(TABLE)[:-10], "cannot be decoded"),
        (b"PK\x03\x04 not a zip", "damaged"),
        (b"PAR1 not parquet", "Parquet"),
        (b"time,flux\n1,2\n3\n", "equal length"),
        (b"time,flux\n1,two\n", "found text"),
        (b"time,price\n1,2\n", "Wanted the columns"),
        (b"{not json", "Correct the file"),
        (b"\xff\xfe\x00\x01", "found none of these"),
        (json.dumps({"time": [1, 2], "flux": [1]}).encode(), "one length"),
    ],
)
def test_malformed_curves_are_refused_with_their_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        media(path, "light_curve").open()
    assert "curve.dat" in str(caught.value)


@pytest.mark.parametrize("value", ["", {}, {"a": "x"}, 3, [1.0]])
def test_malformed_records_are_refused(value: object) -> None:
    with pytest.raises(DataError):
        media(value, "record").open()


def test_missing_values_of_a_record_are_nan() -> None:
    medium = media({"a": 1, "b": None}, "record")
    assert np.array_equal(medium.open(names=("b", "a")), np.array([np.nan, 1], np.float32), equal_nan=True)
    with pytest.raises(DataError, match="numbers c in the record"):
        medium.open(names=("c",))


def test_records_from_csv_and_npz(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    assert media(tmp_path / "r.csv", "record").open() == {"a": 1.0, "b": 2.0}
    assert media(npz(a=np.array(1.0), b=np.array(2.0)), "record").open() == {"a": 1.0, "b": 2.0}


def example_media() -> list[Media]:
    t = np.linspace(0, 40, 300)
    curve = np.column_stack([t, np.sin(2 * np.pi * t / 3.3), np.full(300, 0.1)])
    return [
        media(Points(curve, {"period": 3.3}), "light_curve"),
        media(np.column_stack([t + 4000, curve[:, 1]]), "spectrum"),
        media({"a": 1.0, "b": None}, "record"),
    ]


@pytest.mark.parametrize("medium", example_media(), ids=lambda m: m.modality)
def test_every_modality_has_a_preview_and_a_sketch(medium: Media) -> None:
    with Image.open(io.BytesIO(medium.preview())) as image:
        assert image.width == 480
        assert len(image.getcolors(2**16) or ()) > 1
    assert medium.sketch()
    blank = medium.blank()
    assert blank is not None
    assert blank.header() == medium.header()
    assert blank.preview() != medium.preview()


def test_the_sketch_of_a_curve_is_one_period_of_it() -> None:
    line = example_media()[0].sketch()
    rising, falling = line[:15], line[16:45]
    assert rising == "".join(sorted(rising))
    assert falling == "".join(sorted(falling, reverse=True))


def test_limits_apply(tmp_path: Path) -> None:
    from mmpost.data.media.limits import Limits

    with pytest.raises(DataError, match="max_media_pixels"):
        media(TABLE, "light_curve", limits=Limits(total=8)).open()


def test_a_column_of_points_is_one_medium() -> None:
    parsed = rows.parse(
        {"prompt": "what?", "light_curve": TABLE.tolist(), "spectrums": [TABLE.tolist(), TABLE.tolist()]}
    )
    assert len(parsed.media["light_curve"]) == 1
    assert len(parsed.media["spectrum"]) == 2
    assert TIMES[0][0] == "time"
