"""Rows in the formats of Reason-RFT: question, solution and chain of thought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmpost.config.settings import DataSettings
from mmpost.data.formats.reasoning import Family, Reasoning
from mmpost.data.readers.user_data import user_data
from mmpost.errors import DataError
from mmpost.types import Sample


def open_reasoning(folder: Path, rows: list[dict[str, Any]], family: Family, **options: Any) -> Reasoning:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (28, 28), "red").save(folder / name)
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    samples = user_data(DataSettings(train=str(file)), "train", loss="last")
    assert samples is not None
    return Reasoning(samples, family, **options)


def question_text(sample: Sample) -> str:
    return "".join(p.value for p in sample.prompt if p.modality == "text")


def test_a_counting_row(tmp_path: Path) -> None:
    row = {"id": "clevr-math-1", "image": "a.png", "problem": "Subtract all cubes. How many are left?", "solution": "4"}
    (sample,) = open_reasoning(tmp_path, [row], "counting")
    assert sample.uid == "clevr-math-1"
    assert sample.truth == "4"
    assert [p.modality for p in sample.prompt] == ["image", "text"]
    assert question_text(sample).startswith("Subtract all cubes. How many are left?\n")
    assert "the number inside <answer>" in question_text(sample)
    (tagged,) = open_reasoning(tmp_path, [{**row, "solution": "<answer> 4 </answer>"}], "counting")
    assert tagged.truth == "4"
    (with_own_prompt,) = open_reasoning(tmp_path, [row], "counting", prompt="Q: {question} A:")
    assert question_text(with_own_prompt) == "Q: Subtract all cubes. How many are left? A:"


def test_geometry_has_choices_and_numbers(tmp_path: Path) -> None:
    base = {"image": "a.png", "problem": "Find x."}
    rows = [
        {**base, "id": "geomath-1", "solution": "B", "answer": "B"},
        {**base, "id": "geomath-2", "solution": "37.5", "answer": "37.5"},
        {**base, "id": "geometry3k-3", "answer": 12},
    ]
    choice, number, answer = open_reasoning(tmp_path, rows, "structure")
    assert [s.meta["kind"] for s in (choice, number, answer)] == ["choice", "structure", "structure"]
    assert "letter" in question_text(choice)
    assert "letter" not in question_text(number)
    assert [s.truth for s in (choice, number, answer)] == ["B", "37.5", "12"]


def test_a_transformation_row_has_two_images(tmp_path: Path) -> None:
    calls = "change_color(0, 'red'), change_size(2, 'small')"
    row = {"id": "trance-1", "image": ["a.png", "b.png"], "problem": "(0, cube, ...)", "solution": calls}
    (sample,) = open_reasoning(tmp_path, [row], "transformation")
    assert [p.modality for p in sample.prompt] == ["image", "image", "text"]
    assert sample.truth == calls
    assert "(0, cube, ...)" in question_text(sample)
    for function in ("size", "color", "material", "shape", "position"):
        assert f"change_{function}(" in question_text(sample)
    with pytest.raises(DataError, match=r"trance-1: wanted 2 images .* found 1"):
        open_reasoning(tmp_path, [{**row, "image": "a.png"}], "transformation")[0]


def test_rows_with_chain_of_thought(tmp_path: Path) -> None:
    meta = {"id": "m", "image": "a.png", "problem": "How many?", "cot": "two and two", "answer": "4"}
    reply = "<think>\ntwo and two\n</think>\n<answer>\n4\n</answer>"
    turns = [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": reply}]
    first, second = open_reasoning(tmp_path, [meta, {"image": "a.png", "messages": turns}], "counting")
    assert first.meta["cot"] == "two and two"
    assert first.truth == second.truth == "4"
    assert second.replies[0].text == reply
    assert question_text(first) == question_text(second)


def test_a_question_with_its_own_format_instruction_is_kept(tmp_path: Path) -> None:
    row = {"image": "a.png", "problem": "How many? Say it in <answer></answer>.", "solution": 4}
    assert question_text(open_reasoning(tmp_path, [row], "counting")[0]) == "How many? Say it in <answer></answer>."


def test_a_slice_of_the_rows(tmp_path: Path) -> None:
    rows = [{"id": str(i), "image": "a.png", "problem": "?", "solution": i} for i in range(5)]
    assert [s.uid for s in open_reasoning(tmp_path, rows, "counting", part=slice(2))] == ["0", "1"]
    remaining = open_reasoning(tmp_path, rows, "counting", part=slice(2, None))
    assert [s.uid for s in remaining] == ["2", "3", "4"]
    assert remaining.where(0) == "rows.json:3"
    assert len(open_reasoning(tmp_path, rows, "counting", part=slice(9))) == 5


@pytest.mark.parametrize(
    "row", [{"image": "a.png", "problem": "?"}, {"image": "a.png", "problem": "?", "solution": " "}]
)
def test_a_row_without_a_solution_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"rows\.json:1: wanted a solution"):
        open_reasoning(tmp_path, [row], "counting")[0]


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wanted 1 image for task.family=structure, found 0"):
        open_reasoning(tmp_path, [{"id": "x", "problem": "?", "solution": "1"}], "structure")[0]
