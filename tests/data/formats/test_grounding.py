"""Rows of referring expressions: boxes with and without points, masks beside them, what the prompt asks for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from mmpost.checks.report import Report
from mmpost.checks.rewards import check_rewards
from mmpost.config import run_config
from mmpost.config.settings import DataSettings
from mmpost.data.formats.grounding import Grounding
from mmpost.data.readers.user_data import user_data
from mmpost.errors import DataError
from mmpost.runs.configured_task import make_task
from mmpost.types import Sample

BOX, POINT = [10, 20, 40, 50], [25, 35]
WITH_POINT, BARE = {"bbox_2d": BOX, "point_2d": POINT}, {"bbox_2d": [50, 10, 60, 30]}
ASKS = 'Find "{question}": <answer>[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]</answer>'
MESSAGE = "the prompt asks for point_2d, which no row has"
MODEL = "model=Qwen/Qwen2.5-VL-7B-Instruct"


def write(folder: Path, *solutions: Any, **columns: Any) -> str:
    Image.new("RGB", (84, 60)).save(folder / "a.png")
    rows = [{"image": "a.png", "problem": "The thing!", "solution": s, **columns} for s in solutions]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return str(folder / "rows.jsonl")


def read(file: str, prompt: str = "{question}") -> Grounding:
    rows = user_data(DataSettings(train=file), "train", loss="last")
    assert rows is not None
    return Grounding(rows, prompt)


def text(sample: Sample) -> str:
    return "".join(p.value for p in sample.prompt if p.modality == "text")


def test_rows_with_and_without_points_in_one_file(tmp_path: Path) -> None:
    file = write(tmp_path, [WITH_POINT], json.dumps([BARE]), [WITH_POINT, {**BARE, "point_2d": None}], [])
    samples = list(read(file, "Find {question}."))
    assert [s.truth["points"] for s in samples] == [[POINT], [None], [POINT, None], []]
    assert [len(s.truth["boxes"]) for s in samples] == [1, 1, 2, 0]
    assert samples[0].truth["frame"] == [84, 60]
    assert {text(s) for s in samples} == {"Find the thing."}


@pytest.mark.parametrize("point", [[1], [1, 2, 3], "ab", 7, [float("nan"), 1], {"x": 1}])
def test_a_malformed_point_is_not_a_missing_one(tmp_path: Path, point: Any) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*wanted"):
        read(write(tmp_path, [{"bbox_2d": BOX, "point_2d": point}]))[0]


@pytest.mark.parametrize(
    "mask",
    [{"size": [60, 84], "counts": "PPYo0"}, {"size": [60, 84], "counts": [10, 5040]}, [[10, 20, 40, 20, 40, 50]]],
)
def test_masks_beside_boxes_change_nothing(tmp_path: Path, mask: Any) -> None:
    plain = read(write(tmp_path, [WITH_POINT]))[0]
    for name in ("mask", "segmentation", "masks"):
        inside = read(write(tmp_path, [{**WITH_POINT, name: mask}]))[0]
        beside = read(write(tmp_path, [WITH_POINT], **{name: mask}))[0]
        assert inside.truth == beside.truth == plain.truth
        assert [p.modality for p in beside.prompt] == ["image", "text"]


def test_a_prompt_that_asks_for_points_which_no_row_has_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, [BARE], "broken", [])
    read(file)
    assert not capsys.readouterr().err
    read(file, ASKS)
    assert f"rows.jsonl: {MESSAGE}, so" in capsys.readouterr().err
    read(write(tmp_path, [BARE], [WITH_POINT], []), ASKS)
    read(write(tmp_path, [], []), ASKS)
    assert not capsys.readouterr().err
    read(write(tmp_path, *[[BARE]] * 250), ASKS)
    assert "which none of 84 rows looked at has" in capsys.readouterr().err


@pytest.mark.parametrize("think_for_truth", [False, True])
def test_labels_hold_what_the_rows_hold_and_earn_what_is_declared(tmp_path: Path, think_for_truth: bool) -> None:
    file = write(tmp_path, [WITH_POINT], [BARE], [WITH_POINT, BARE], [], cot="the left one")
    label_of_task = {"label": "thought", "think_for_truth": True} if think_for_truth else {}
    task = make_task(run_config.load(["task=visurf", MODEL, {"task": label_of_task}, f"data.train={file}"])[0])
    (stage,) = task.stages()
    label, with_thought = stage.gold
    samples = list(stage.source)
    answers = [json.loads(str(label.text(s)).partition("<answer>")[2].removesuffix("</answer>")) for s in samples]
    assert answers == [[WITH_POINT], [BARE], [WITH_POINT, BARE], []]
    for gold, rewards in ((label, [7, 5, 6, 7] if think_for_truth else [6, 4, 5, 6]), (with_thought, [7, 5, 6, 7])):
        assert callable(gold.reward)
        assert [gold.reward(s) for s in samples] == rewards
    out = io.StringIO()
    report = Report(Console(file=out, width=200))
    check_rewards(stage, samples, None, (), report)
    assert (report.errors, report.warnings) == (0, 0), out.getvalue()
    assert "5 to 7" in out.getvalue()


def test_the_shipped_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, [BARE], [])
    (stage,) = make_task(run_config.load(["task=visurf", MODEL, f"data.train={file}"])[0]).stages()
    assert '"point_2d": [30, 110]' in text(stage.source[0])
    assert MESSAGE in capsys.readouterr().err
    (stage,) = make_task(run_config.load(["config=visurf_boxes", MODEL, f"data.train={file}"])[0]).stages()
    asked = text(stage.source[0])
    assert "point" not in asked
    assert json.loads(asked[asked.rindex("<answer>") + 8 : asked.rindex("</answer>")])[0] == {
        "bbox_2d": [10, 100, 200, 210]
    }
    assert not capsys.readouterr().err
