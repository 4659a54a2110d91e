"""Temporal rows: the released training rows, the official annotation files, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.config.settings import DataSettings
from mmpost.data.formats.temporal import Temporal, answer_text
from mmpost.data.formats.temporal_files import OPENERS
from mmpost.data.media.media import media
from mmpost.data.readers.user_data import user_data
from mmpost.errors import DataError
from mmpost.rewards import span
from mmpost.types import Part, Reply

PROMPTS = {"qa": "qa {question}|{options}", "grounding": 'when "{question}"', "grounded": "both {question}|{options}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one video of 4 s under several names."""
    content = media({"frames": np.zeros((8, 16, 16, 3), np.uint8), "fps": 2}, "video").bytes()
    for name in ("AO8RW.mkv", "v_abc.mp4", "deep/77.webm", "99.mp4", "clip.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def open_temporal(file: Path, **options: Any) -> Temporal:
    temporal_rows = user_data(DataSettings(train=str(file), **options), "train", openers=OPENERS)
    assert temporal_rows is not None
    return Temporal(temporal_rows, PROMPTS, "think")


def temporal_rows(folder: Path, *records: Any) -> Temporal:
    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"video": "clip.mp4", "problem": "x?", **r}) for r in records)
    )
    return open_temporal(folder / "rows.jsonl")


def test_the_published_training_row(folder: Path) -> None:
    sample = temporal_rows(folder, {"dataset": "charades", "solution": [0.25, 0.5], "video_length": 40.0})[0]
    assert sample.truth == {"duration": 40.0, "spans": [[10.0, 20.0]], "answer": None, "options": []}
    assert [(p.modality, p.role) for p in sample.prompt] == [("text", "system"), ("video", "user"), ("text", "user")]
    assert sample.prompt[2].value == 'when "x?"'
    assert sample.meta["dataset"] == "charades"


def test_spans_as_fractions_and_in_seconds_give_the_same_rewards(folder: Path) -> None:
    fractions, seconds, without_length = temporal_rows(
        folder,
        {"solution": [0.25, 0.5], "video_length": 4},
        {"solution": {"start_time": 1.0, "end_time": 2.0}, "video_length": 4},
        {"solution": {"spans": [[1, 2]]}},
    )[:]
    assert fractions.truth == seconds.truth == without_length.truth, (
        "without video_length, the duration of the file counts"
    )
    reply = Reply((Part("text", '<answer>{"start_time": "1.5", "end_time": "3"}</answer>'),))
    assert span.overlap(fractions, reply) == 0.25


def test_questions_with_and_without_options(folder: Path) -> None:
    multiple_choice, free_text, grounded = temporal_rows(
        folder,
        {"solution": "B", "options": ["a cat", "a dog"]},
        {"solution": "<answer>two</answer>"},
        {"solution": '{"answer": "B", "start_time": 1, "end_time": 2}', "options": ["a cat", "a dog"]},
    )[:]
    assert multiple_choice.truth["answer"] == "B"
    assert multiple_choice.prompt[-1].value == "qa x?|A. a cat\nB. a dog"
    assert (free_text.truth["answer"], free_text.truth["spans"]) == ("two", [])
    assert grounded.truth == {"duration": 4.0, "spans": [[1.0, 2.0]], "answer": "B", "options": ["a cat", "a dog"]}
    for sample in (multiple_choice, free_text, grounded):
        reply = Reply((Part("text", answer_text(sample.truth)),))
        assert span.DualReward()(sample, reply) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        ([3.0, 7.5], "looks like seconds"),
        ([0.5, 0.2], "a start before an end"),
        ([0.1], "wanted a solution like"),
        ({"start_time": 3}, "wanted a solution like"),
        ({"note": 1}, "wanted a solution like"),
        (None, "wanted a solution like"),
        ({"spans": [["a", 2]]}, "wanted a solution like"),
    ],
)
def test_an_invalid_solution_names_its_row(folder: Path, solution: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:1.*{message}"):
        temporal_rows(folder, {"solution": solution})[0]


def test_a_row_without_a_video_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="wanted a video to ask about"):
        temporal_rows(folder, {"solution": "B", "video": None})[0]


def test_charades_sta(folder: Path) -> None:
    file = folder / "charades_sta_train.txt"
    file.write_text("AO8RW 0.0 1.5##a person opens a door.\n\nAO8RW 1 3.9##the person sits.\n")
    sample = open_temporal(file)[1]
    assert sample.uid == "AO8RW#3"
    assert sample.truth == {"duration": 4.0, "spans": [[1.0, 3.9]], "answer": None, "options": []}
    assert sample.prompt[1].value.open().times[-1] == 3.5, "the video is found without its file extension"
    assert sample.prompt[2].value == 'when "the person sits."'
    (folder / "Charades_v1_train.csv").write_text("id,subject,length\nAO8RW,x,30.5\n")
    assert open_temporal(file, root=str(folder))[0].truth["duration"] == 30.5
    (folder / "durations.json").write_text('{"AO8RW": 31}')
    file.write_text("AO8RW 0.0 1.5##opens.")
    assert open_temporal(file)[0].truth["duration"] == 31
    for broken in ("AO8RW 0.0 1.5 opens", "AO8RW 0.0.1 1.5##opens"):
        file.write_text(f"\n{broken}")
        with pytest.raises(DataError, match=r"charades_sta_train\.txt:2"):
            open_temporal(file)


def test_activitynet_captions(folder: Path) -> None:
    file = folder / "val_1.json"
    captions = {
        "v_abc": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17.37, 60.81]], "sentences": ["One. ", " Two."]}
    }
    file.write_text(json.dumps(captions))
    temporal_source = open_temporal(file)
    assert len(temporal_source) == 2
    assert temporal_source[1].truth == {"duration": 82.73, "spans": [[17.37, 60.81]], "answer": None, "options": []}
    assert (temporal_source[1].prompt[2].value, temporal_source[1].prompt[1].value.name[-9:]) == (
        'when "Two."',
        "v_abc.mp4",
    )
    captions["v_abc"]["sentences"].pop()
    file.write_text(json.dumps(captions))
    with pytest.raises(DataError, match=r"val_1\.json.*as many timestamps as sentences"):
        open_temporal(file)


HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"


def test_next_gqa(folder: Path) -> None:
    file = folder / "val.csv"
    file.write_text(
        HEADER + "77,800,640,480,why did he run,to win,3,CW,fun,to win,no,yes,so\n99,8,6,4,who,1,0,TN,a,b,,,\n"
    )
    grounding = {"77": {"duration": 26.6, "location": {"3": [[1.0, 4.5], [20.1, 22.0]]}, "fps": 30}}
    (folder / "gsub_val.json").write_text(json.dumps(grounding))
    (folder / "map_vid_vidorID.json").write_text('{"77": "deep/77"}')
    grounded, ungrounded = open_temporal(file)[:]
    assert grounded.uid == "77_3"
    assert grounded.truth["answer"] == "B"
    assert (grounded.truth["spans"], grounded.truth["duration"]) == ([[1.0, 4.5], [20.1, 22.0]], 26.6)
    assert grounded.prompt[-1].value == "both why did he run|A. fun\nB. to win\nC. no\nD. yes\nE. so"
    assert grounded.prompt[1].value.header()["frames"] == 8
    assert (ungrounded.truth["answer"], ungrounded.truth["spans"], ungrounded.truth["options"]) == ("B", [], ["a", "b"])
    assert ungrounded.prompt[-1].value == "qa who|A. a\nB. b"
    file.write_text(HEADER + "77,800,640,480,why,lost,3,CW,fun,to win,no,yes,so\n")
    with pytest.raises(DataError, match=r"val\.csv:2.*an answer among the options"):
        open_temporal(file)
    file.write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"val\.csv.*a CSV of NExT-GQA"):
        open_temporal(file)
