"""GenEval: detections that count, the mean of the tasks, official rows with colors, and every quirk of the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpost.benchmarks.benchmark import Scored, benchmark
from mmpost.benchmarks.estimates import estimates
from mmpost.commands.evaluate import evaluate
from mmpost.commands.score import score
from mmpost.errors import ConfigError, DataError
from mmpost.rewards.geneval import Detection, relations
from mmpost.types import Sample
from tests.benchmarks.by_rule import official
from tests.benchmarks.small_benches import write_questions

ONE_DOG = {"include": [{"class": "dog", "count": 1}], "exclude": []}
TWO_CUPS = {"include": [{"class": "cup", "count": 2}], "exclude": [{"class": "cup", "count": 3}]}
RED_COW = {"include": [{"class": "cow", "count": 1, "color": "red"}], "exclude": []}
PLACE = [0, 0, 9, 9]


def rated(truth: Any, found: dict[str, Any], min_score: float = 0.3) -> float:
    return official("geneval", truth, json.dumps(found), min_score=min_score)


def test_more_objects_are_right_except_in_counting() -> None:
    boxes = [[*PLACE, 0.95]] * 3
    assert [rated(ONE_DOG, {"dog": boxes[:n], "cat": boxes}) for n in range(4)] == [0, 1, 1, 1]
    assert [rated(TWO_CUPS, {"cup": boxes[:n], "cat": boxes}, 0.9) for n in range(4)] == [0, 0, 1, 0]


def test_scores_must_exceed_the_threshold_in_single_precision() -> None:
    assert [rated(ONE_DOG, {"dog": [[*PLACE, s]]}) for s in (0.3, 0.30000001192092896, 0.301)] == [0, 0, 1]
    assert rated(TWO_CUPS, {"cup": [[*PLACE, s] for s in (0.95, 0.92, 0.9)]}, 0.9) == 1


def test_only_the_likeliest_object_is_looked_at() -> None:
    red, green = [*PLACE, 0.8, "red"], [*PLACE, 0.9, "green"]
    found = ([red], [red, green], [green, [*PLACE, 0.95, "red"]])
    assert [rated(RED_COW, {"cow": each}) for each in found] == [1, 0, 1]


def test_a_color_that_is_asked_for_and_not_there_cannot_be_read() -> None:
    rule, sample = benchmark("geneval").strict, Sample("s", (), truth=RED_COW, meta={"min_score": 0.3})
    assert rule.read(sample, json.dumps({"cow": [[*PLACE, 0.9]]})) is None
    assert rule.read(sample, json.dumps({"cow": [[*PLACE, 0.9, "red"], [*PLACE, 0.8]]})) is not None
    assert rule.read(sample, json.dumps({"dog": [[*PLACE, 0.9]]})) is not None
    for text in ("", "[]", "{", '{"cow": 1}', '{"cow": [[0, 0, 9, 9]]}', '{"cow": [[0, 0, 9, 9, 1e999]]}', "[" * 9999):
        assert rule.read(sample, text) is None


@pytest.mark.parametrize(
    ("box", "holds"),
    [
        ((20, 0, 30, 10), {"right of"}),
        ((-20, 0, -10, 10), {"left of"}),
        ((0, 20, 10, 30), {"below"}),
        ((0, -20, 10, -10), {"above"}),
        ((20, 20, 30, 30), {"right of", "below"}),
        ((2, 0, 12, 10), set()),
        ((3, 0, 13, 10), set()),
        ((5, 0, 15, 10), {"right of"}),
    ],
)
def test_relations_to_a_box_of_10_at_0(box: tuple[float, float, float, float], holds: set[str]) -> None:
    """Beside each other, centers are moved together by 2: of an offset of 3 a third is left, of 5 more than half."""
    assert relations(Detection(box, 1, None), Detection((0, 0, 10, 10), 1, None)) == holds


def test_the_overall_score_is_the_unweighted_mean_of_the_tasks() -> None:
    """Stable Diffusion 1.5: 0.43 as published; pictures counted alike would give 0.41."""
    published = {
        **{"single_object": (0.97, 80), "two_object": (0.38, 99), "counting": (0.35, 80)},
        **{"colors": (0.76, 94), "position": (0.04, 100), "color_attr": (0.06, 100)},
    }
    clusters = []
    for task, (share, prompts) in published.items():
        for prompt in range(prompts):
            sample = Sample(f"{task}{prompt}", (), meta={"task": task})
            right = round(share * prompts * 4 * (prompt + 1) / prompts) - round(share * prompts * 4 * prompt / prompts)
            clusters.append([Scored(sample, "", None, float(i < right)) for i in range(4)])
    found = estimates(benchmark("geneval").summary, clusters)
    assert list(found) == ["overall", *published, "prompts"]
    assert found["overall"]["value"] == pytest.approx(0.4267, abs=0.001)
    assert (found["overall"]["n"], found["counting"]["n"], found["prompts"]["n"]) == (2212, 320, 553)
    assert found["overall"]["low"] < 0.4267 < found["overall"]["high"]


def row(prompt: int, picture: int, **content: Any) -> dict[str, Any]:
    return {"filename": f"images/{prompt:05}/samples/{picture:05}.png", "details": "{}", "colors": {}, **content}


def test_results_of_the_official_script_with_colors(tmp_path: Path) -> None:
    write_questions("geneval", tmp_path / "geneval")
    details = {name: [[*PLACE, 0.95], [*PLACE, 0.5]] for name in ("dog", "cow")}
    rows = [
        row(0, 0, details=json.dumps(details), tag="single_object", correct=True),
        row(0, 3),
        row(2, 1, details=details, colors={"cow": ["red"]}),
        row(2, 2, details=details, colors={}),
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    result = score(["bench=geneval", f"predictions={file}", f"data.benches={tmp_path}"])
    assert {name: (e["value"], e["n"]) for name, e in result["official"].items()} == {
        **{"overall": (0.5, 4), "single_object": (0.5, 2), "colors": (0.5, 2), "prompts": (1, 2)},
    }
    assert result["strict"]["overall"]["value"] == pytest.approx((1 / 4 + 1 / 4) / 4)
    assert (result["missing"], result["unparsed"]) == (12, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"details": "{]"}, r"r\.jsonl:1: wanted boxes by class in 'details', found {\]"),
        ({"details": None}, r"r\.jsonl:1: wanted boxes by class in 'details', found null"),
        ({"colors": None}, r"r\.jsonl:1: wanted lists of colors by class in 'colors', found None"),
        ({"filename": "a.png"}, r"such as \['a\.png'\]; its ids look like '00000/0'"),
    ],
)
def test_rows_that_cannot_be_used(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_questions("geneval", tmp_path / "geneval")
    (tmp_path / "r.jsonl").write_text(json.dumps(row(0, 0, **content)))
    with pytest.raises(DataError, match=message):
        score(["bench=geneval", f"predictions={tmp_path / 'r.jsonl'}", f"data.benches={tmp_path}"])


def test_no_model_writes_detections(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wanted a benchmark of written replies.*mmpost score bench=geneval"):
        evaluate(["bench=geneval", "model=random-tiny", f"data.benches={tmp_path}"])
