"""The registry of modalities: one call adds a modality."""

import io

import numpy as np
import pytest
from PIL import Image

from mmpost.data.media import modalities
from mmpost.data.media.media import media
from mmpost.data.media.modalities import Modality
from mmpost.errors import DataError, PluginError


@pytest.fixture
def registry(monkeypatch):
    """Restore the registered modalities after the test."""
    monkeypatch.setattr(modalities, "_registry", dict(modalities._registry))


def test_a_new_modality_needs_one_registration(registry, tmp_path):
    gains = []

    def load(file, gain=1.0):
        gains.append(gain)
        return np.load(file) * gain

    def header(file):
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        return {"channels": np.lib.format.read_array_header_1_0(file)[0][0]}

    modalities.register_modality(Modality("spectrum", load, header))
    values = np.linspace(0, 1, 50)
    np.save(tmp_path / "s.npy", values)
    medium = media(values, "spectrum")
    assert np.array_equal(medium.open(), values)
    assert np.array_equal(media("s.npy", "spectrum", root=tmp_path).open(), values)
    assert np.array_equal(media(values.tolist(), "spectrum").open(), values)
    assert gains == [1.0], "the same content, decoded once"
    assert np.array_equal(medium.open(gain=2.0), 2 * values)
    assert medium.header() == {"channels": 50}
    assert Image.open(io.BytesIO(medium.preview())).size == (50, 64)
    for shape in ((5, 7), (2, 3, 4)):
        assert media(np.ones(shape), "spectrum").preview()[1:4] == b"PNG"
    with pytest.raises(DataError, match="spectrum"):
        media({"a", "b"}, "spectrum")


def test_modality_names_are_validated(registry):
    for name in ("text", "Has Space", "1st", ""):
        with pytest.raises(PluginError):
            modalities.register_modality(Modality(name, open=len, header=lambda _: {}))
    with pytest.raises(DataError, match=r"image, video, audio.*'radar'"):
        media("a.dat", "radar")
    assert [k.name for k in modalities.modalities()][:3] == ["image", "video", "audio"]
