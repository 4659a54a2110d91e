"""predict, score and export agree with each other and with plain transformers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import on_two_ranks
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmpost
from mmpost.cli import main
from mmpost.commands import new_task
from mmpost.commands.export import export
from mmpost.commands.predict import predict
from mmpost.commands.score import score
from mmpost.data.media.media import media
from mmpost.errors import ConfigError, DataError

LORA = {"rank": 4, "target_groups": ["language", "projector"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a new task, a run of it with adapters, and its predictions."""
    place = tmp_path_factory.mktemp("using it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        task = new_task.write("outside_squares", str(place))
        mmpost.train(
            task=str(task),
            model={"name": "random-tiny", "lora": LORA},
            optim={"lr": 1e-2},
            # The rewards of a new task are all zero with random weights; a length reward has a gradient.
            rewards={"length": f"{write_reward(place)}:length"},
            eval={"before": False},
            log={"progress": False},
            steps=2,
            out=str(place / "run"),
        )
        predict([f"task={task}", f"model={place / 'run'}", f"out={place / 'predictions.jsonl'}"])
        yield place
    sys.modules.pop("outside_squares", None)
    sys.modules.pop("outside_length", None)


def write_reward(place: Path) -> Path:
    file = place / "outside_length.py"
    file.write_text("def length(sample, reply):\n    return float(len(reply.text))\n")
    return file


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_predictions_have_prompt_reply_and_scores(place: Path) -> None:
    predictions = read_rows(place / "predictions.jsonl")
    assert [row["uid"] for row in predictions] == ["red", "green", "blue", "black"]
    for row in predictions:
        assert row["prompt"].startswith("What does the picture show?")
        assert row["scores"] == {"correct": 0.0}
        assert row["reply"]


def test_existing_predictions_are_not_repeated(place: Path, tmp_path: Path) -> None:
    complete = (place / "predictions.jsonl").read_bytes()
    out = tmp_path / "predictions.jsonl"
    lines = complete.splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[2] + lines[1][: len(lines[1]) // 2])
    arguments = [f"task={place / 'outside_squares.py'}", f"model={place / 'run'}", f"out={out}"]
    # The truncated line could belong to either sample, so it is discarded.
    assert predict(arguments) == 3
    assert sorted(out.read_bytes().splitlines()) == sorted(complete.splitlines())
    assert predict(arguments) == 0
    assert sorted(out.read_bytes().splitlines()) == sorted(complete.splitlines())
    with pytest.raises(ConfigError, match="wanted replies of the weights"):
        predict([arguments[0], "model=random-tiny", arguments[2]])
    out.write_text("no line of ours\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl:1: wanted a line that mmpost predict wrote"):
        predict(arguments)


def test_files_and_folders_without_a_task(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (30 + i, 40), (80 * i, 0, 0)).save(folder / f"{i}.png")
    questions = tmp_path / "asked.jsonl"
    line = '{{"id": "{0}.png", "image": "pictures/{0}.png", "query": "Which colour?"}}\n'
    questions.write_text("".join(line.format(i) for i in range(3)))
    arguments = [f"model={place / 'run'}", "task.sampling.max_tokens=6", "compute.rollout_batch_size=2"]
    predict([*arguments, f"data.test={questions}", f"out={tmp_path / 'a.jsonl'}"])
    predict([*arguments, f"data.test={folder}", "data.prompt=Which colour?", f"out={tmp_path / 'b.jsonl'}"])
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert not any(row["scores"] for row in read_rows(tmp_path / "a.jsonl"))
    assert [row["uid"] for row in read_rows(tmp_path / "a.jsonl")] == ["0.png", "1.png", "2.png"]
    for extra, message in (([], r"add out=FILE"), ([f"out={tmp_path / 'c.jsonl'}"], r"set data\.test=FILE")):
        with pytest.raises(ConfigError, match=message):
            predict([f"model={place / 'run'}", *extra])
    with pytest.raises(DataError, match=r"data\.prompt"):
        predict([*arguments, f"data.test={folder}", f"out={tmp_path / 'd.jsonl'}"])


def test_ranks_share_the_work_and_write_in_order(place: Path, tmp_path: Path) -> None:
    questions = tmp_path / "asked.jsonl"
    questions.write_text("".join(json.dumps({"id": f"{i}", "query": f"What is {i}?"}) + "\n" for i in range(7)))
    arguments = [f"model={place / 'run'}", "task.sampling.max_tokens=6", f"data.test={questions}"]
    assert predict([*arguments, f"out={tmp_path / 'one.jsonl'}"]) == 7
    arguments = ["predict", *arguments, "compute.rollout_batch_size=2", f"out={tmp_path / 'two.jsonl'}"]
    # Two batches of four; in the second, the last rank has one sample.
    assert on_two_ranks(lambda: main(arguments), tmp_path) == 0
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()


def test_scores_of_a_file_equal_those_of_the_evaluation(place: Path, tmp_path: Path) -> None:
    """Half of the answers are replaced by correct ones."""
    predictions = read_rows(place / "predictions.jsonl")
    answers = tmp_path / "answers.jsonl"
    answered = [{"uid": row["uid"], "text": row["uid"] if i % 2 else row["reply"]} for i, row in enumerate(predictions)]
    answers.write_text("".join(json.dumps(row) + "\n" for row in answered))
    task = f"task={place / 'outside_squares.py'}"
    reward = f"rewards.length={place / 'outside_length.py'}:length"
    result = score([task, reward, f"answers={answers}", f"out={tmp_path / 'scores.json'}"])
    assert result["scores"]["test/correct"]["value"] == 0.5
    assert result["scores"]["test/length"]["value"] == sum(len(row["text"]) for row in answered) / 4
    assert result["answered"] == {"test": [4, 4]}
    assert json.loads((tmp_path / "scores.json").read_text()) == result
    evaluated = json.loads((place / "run" / "summary.json").read_text())["eval_after"]
    assert score([task, reward, f"answers={place / 'predictions.jsonl'}"])["scores"] == evaluated


def test_boxes_are_scored_in_their_coordinate_frame(tmp_path: Path) -> None:
    from mmpost.data.worlds.digits.scenes import Scenes, answer_text
    from mmpost.types import CoordinateFrame

    scenes = [Scenes("test", ("single", "all", "left", "group"), n=256, seed=5)[i] for i in range(4)]
    frame = CoordinateFrame(1000, 1000)
    lines = [
        {"bench": "target", "uid": s.uid, "reply": answer_text(s.truth, frame, thought=""), "frame": [1000, 1000]}
        for s in scenes
    ]
    file = tmp_path / "boxes.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score(["task=visurf", f"answers={file}"])
    assert result["scores"]["target/f1"]["value"] == pytest.approx(100.0)
    assert result["answered"] == {"target": [4, 256]}


def test_missing_rows_of_an_mmau_file_count_as_configured(tmp_path: Path) -> None:
    clip = media((np.zeros(800, np.float32), 8000), "audio").bytes()
    questions = [
        {"id": str(i), "audio_id": "a.wav", "question": "Who?", "choices": ["Man", "Woman"], "answer": "Man"}
        for i in range(4)
    ]
    (tmp_path / "a.wav").write_bytes(clip)
    (tmp_path / "mmau.json").write_text(json.dumps(questions))
    predictions = [{**row, "model_output": text} for row, text in zip(questions, ("the man", "Woman"), strict=False)]
    (tmp_path / "predictions.json").write_text(json.dumps([*predictions, questions[2]]))
    arguments = ["task=r1_aqa", f"data.test={tmp_path / 'mmau.json'}", f"answers={tmp_path / 'predictions.json'}"]
    for missing, official, strict in (("skip", 50, 0), ("wrong", 25, 0)):
        result = score([*arguments, f"missing={missing}"])
        assert result["answered"]["target"] == [2, 4]
        assert result["scores"]["target/mmau"]["value"] == official
        assert result["scores"]["target/mmau_strict"]["value"] == strict
    with pytest.raises(ConfigError, match="wanted skip or wrong"):
        score([*arguments, "missing=guess"])


def test_mismatched_answers_are_named(place: Path, tmp_path: Path) -> None:
    task = f"task={place / 'outside_squares.py'}"
    file = tmp_path / "answers.jsonl"
    for text, message in (
        ('{"uid": "pink", "text": "pink"}\n', r"1 uids are not in the task's test split, such as \['pink'\]"),
        ('{"uid": "red"}\n', r"answers\.jsonl:1: wanted uid and a reply under one of"),
        ("", "wanted rows with replies, found none"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            score([task, f"answers={file}"])
    with pytest.raises(ConfigError, match=r"add answers=FILE\.jsonl"):
        score([task])


def test_an_exported_model_generates_the_same_in_transformers(place: Path, tmp_path: Path) -> None:
    folder = export([f"model={place / 'run'}", f"out={tmp_path / 'exported'}", "dtype=fp32"])
    task = f"task={place / 'outside_squares.py'}"
    predict([task, f"model={folder}", f"out={tmp_path / 'predictions.jsonl'}"])
    exported_predictions = read_rows(tmp_path / "predictions.jsonl")
    assert [row["reply"] for row in exported_predictions] == [
        row["reply"] for row in read_rows(place / "predictions.jsonl")
    ]

    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    for row in exported_predictions:
        question = {"type": "text", "text": row["prompt"]}
        messages = [{"role": "user", "content": [{"type": "image"}, question]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=[text], images=[Image.new("RGB", (56, 56), row["uid"])], return_tensors="pt")
        reply = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(reply, skip_special_tokens=True) == row["reply"]


def test_an_export_is_cast_merged_and_described(place: Path, tmp_path: Path) -> None:
    folder = export([f"model={place / 'run' / 'checkpoints' / 'last'}", f"out={tmp_path / 'exported'}"])
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype.__str__() for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118
        assert not [name for name in file.keys() if "lora" in name]  # noqa: SIM118
    assert not list(folder.glob("adapter*"))
    card = (folder / "README.md").read_text()
    summary = json.loads((place / "run" / "summary.json").read_text())
    expected = ("random-tiny", "outside_squares.py", "test/correct", summary["recipe_hash"], summary["base_hash"][:16])
    assert [text for text in (*expected, f"torch {summary['versions']['torch']}") if text not in card] == []


def test_unsupported_exports_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["model=random-tiny", f"out={place / 'run'}"], "is not empty; choose a new folder"),
        (["model=random-tiny", "out=x", "dtype=int8"], "dtype"),
        (["model=random-tiny", "outt=x"], "did you mean out=?"),
        (["model=random-tiny"], "out"),
    ):
        assert main(["export", *arguments]) == 1
        assert message in capsys.readouterr().err
