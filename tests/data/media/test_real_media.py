"""Real files: images of tables, a video, spoken digits, and official annotation files."""

import json

import numpy as np
import pytest

from mmpost.data.media.media import media
from mmpost.data.readers.dataset import open_dataset


def test_table_images(real):
    for path in real("pubtabnet/*.png"):
        table = media(path.name, "image", root=path.parent)
        opened = table.open()
        assert opened.mode == "RGB"
        assert opened.size == (table.header()["width"], table.header()["height"])
        # Mostly white, with some print.
        gray = np.asarray(opened.convert("L"))
        assert np.median(gray) > 200
        assert gray.min() < 128
        assert table.preview()[1:4] == b"PNG"


def test_video(real):
    path = real("video/flipping_a_pancake.mkv")[0]
    video = media(path, "video")
    header = video.header()
    assert (header["width"], header["height"], header["fps"]) == (426, 240, 30.0)
    assert header["duration"] == pytest.approx(10.33, abs=0.01)
    opened = video.open(fps=1, max_frames=8)
    assert opened.frames.shape == (8, 240, 426, 3)
    assert opened.times == pytest.approx(opened.indices / 30, abs=0.002)
    single = video.open(frames=[int(opened.indices[3])])
    assert np.array_equal(single.frames[0], opened.frames[3]), "a frame does not depend on the other requested frames"
    sound = media(path, "audio").open(rate=16000)
    assert len(sound.wave) / 16000 == pytest.approx(10.37, abs=0.05)
    assert video.preview()[1:4] == b"PNG"


def test_spoken_digits(real):
    for path in real("spoken-digits/*_jackson_0.wav"):
        recording = media(path, "audio")
        opened = recording.open()
        assert (opened.rate, recording.header()["rate"]) == (8000, 8000)
        assert len(opened.wave) / 8000 == pytest.approx(recording.header()["duration"])
        assert 0.01 < np.abs(opened.wave).max() <= 1.0
        assert len(recording.open(rate=16000).wave) == pytest.approx(2 * len(opened.wave), abs=2)


def test_official_annotation_files_open_as_rows(real, tmp_path):
    samples = open_dataset(real("mmau/mmau-test-mini.json")[0])
    assert len(samples) == 1000
    assert samples[0].truth == "Man"
    assert samples[0].meta["choices"] == ["Man", "Woman", "Child", "Robot"]
    prompts = open_dataset(real("geneval/evaluation_metadata.jsonl")[0])
    assert prompts[0].prompt[0].value == "a photo of a bench"
    tables = real("pubtabnet/*.png")
    lines = [{"messages": [{"role": "user", "content": "<image>Read."}], "images": [p.name]} for p in tables]
    (tmp_path / "tables.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = open_dataset(tmp_path / "tables.jsonl", root=tables[0].parent)
    assert [s.prompt[0].value.open().width for s in rows] == [media(p, "image").open().width for p in tables]
