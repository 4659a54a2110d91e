"""Clips of digits: answers match the frames, and clips are real video files."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from mmpost.data.formats.temporal import answer_text
from mmpost.data.worlds.clips import FPS, QUESTION_TYPES, Clips
from mmpost.errors import ConfigError
from mmpost.rewards.span import DualReward
from mmpost.types import Part, Reply


def test_a_clip_depends_on_its_index_alone_and_is_a_small_video() -> None:
    clips = Clips("train", QUESTION_TYPES, n=16)
    sample = clips[9]
    regenerated = Clips("train", QUESTION_TYPES, n=12)[9]
    assert sample == regenerated
    content = sample.prompt[0].value.bytes()
    assert content == regenerated.prompt[0].value.bytes()
    assert sample.prompt[0].value.source is clips[9].prompt[0].value.source, "encoded once"
    assert len(content) < 6000
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    opened = sample.prompt[0].value.open(fps=2, min_frames=4, max_frames=768, factor=2)
    assert opened.frames.shape == (12, 56, 56, 3)
    assert opened.times == pytest.approx(np.arange(12) / 2)
    assert Clips("train", QUESTION_TYPES, n=16, seed=1)[9].prompt[0].value.bytes() != content


def test_splits_share_no_scan() -> None:
    scans = {}
    for split in ("train", "val", "test"):
        clips = Clips(split, ("first",), n=40)
        scans[split] = {e.digit.scan for i in range(40) for e in clips.clip(i).digits if e.digit}
    assert not scans["train"] & scans["val"] | scans["train"] & scans["test"] | scans["val"] & scans["test"]


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_the_truth_matches_the_frames(question_type: str) -> None:
    clips = Clips("val", (question_type,), n=12)
    for i in range(12):
        sample, clip = clips[i], clips.clip(i)
        frames = sample.prompt[0].value.open().frames.astype(int)
        assert np.abs(frames - clips.render(clip)).mean() < 4, "the encoded frames are the rendered ones"
        order = sorted(clip.digits, key=lambda e: e.start)
        if question_type.split()[0] in ("first", "last"):
            event = order[0 if question_type.startswith("first") else -1]
            assert sample.truth["answer"] == str(event.digit.value) if event.digit else False
        for start, end in sample.truth["spans"]:
            visible = np.arange(int(start * FPS), int(end * FPS))
            hidden = np.setdiff1d(np.arange(12), visible)
            if question_type == "flash":
                corner = frames[:, :6, :6].mean((1, 2, 3))
                assert corner[visible].min() > 150 > 100 > corner[hidden].max()
            elif len(clip.digits) == 1:
                inner = frames[:, 9:].mean((1, 2, 3))
                assert inner[visible].min() > 4 * inner[hidden].max(initial=0)
        reply = Reply((Part("text", answer_text(sample.truth)),))
        assert DualReward()(sample, reply) == pytest.approx(1.0)


def test_loose_labels_contain_the_true_span() -> None:
    tight, loose = (Clips("train", ("when",), n=30, loose=s) for s in (0.0, 1.5))
    extra = 0.0
    for a, b in zip(tight, loose, strict=True):
        (start, end), (loose_start, loose_end) = a.truth["spans"][0], b.truth["spans"][0]
        assert max(0, start - 1.5) <= loose_start <= start < end <= loose_end <= min(6, end + 1.5)
        assert a.prompt[0].value == b.prompt[0].value
        extra += (loose_end - loose_start) - (end - start)
    assert 0.5 < extra / 30 < 1.5


@pytest.mark.parametrize(
    "wrong", [{"question_types": ("frist",)}, {"question_types": ()}, {"size": 40}, {"size": 57}, {"frames": 4}]
)
def test_invalid_clip_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"found"):
        Clips("train", **wrong)
