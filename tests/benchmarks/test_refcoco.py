"""RefCOCO, RefCOCO+ and RefCOCOg: every quirk of the official rule, and the frames in which models write boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpost.benchmarks.benchmark import benchmark
from mmpost.commands.score import score
from mmpost.errors import ConfigError
from mmpost.rewards.refcoco import internvl_box, named_box
from mmpost.types import CoordinateFrame, Part, Reply, Sample
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import small, write_questions

TRUTH = {"boxes": [[0, 0, 320, 240]], "points": [None], "frame": [640, 480]}


def test_scales_without_a_frame() -> None:
    right = ["[0, 0, 500, 500]", "[[0, 0, 500, 500]]", "[0, 0, 0.5, 0.5]", "the dog <box>[[0, 0, 500, 500]]</box>"]
    assert {official("refcoco", TRUTH, text) for text in right} == {1}
    assert {strict("refcoco", TRUTH, text) for text in right} == {1}
    assert official("refcoco", TRUTH, "[0, 0, 320, 240]") == strict("refcoco", TRUTH, "[0, 0, 320, 240]") == 0


def test_first_brackets_count_officially_and_an_ambiguous_answer_is_wrong_strictly() -> None:
    text = "[0, 0, 500, 500] or [500, 500, 999, 999]"
    assert (official("refcoco", TRUTH, text), strict("refcoco", TRUTH, text)) == (1, 0)
    late = "[no, it, is, not] but [0, 0, 500, 500]"
    assert (official("refcoco", TRUTH, late), strict("refcoco", TRUTH, late)) == (0, 1)
    pairs = "<ref>dog</ref><box>(0,0),(500,500)</box>"
    assert (official("refcoco", TRUTH, pairs), strict("refcoco", TRUTH, pairs)) == (0, 1)
    items = '<think>[1, 2, 3, 4]</think><answer>[{"bbox_2d": [0, 0, 500, 500], "label": "dog"}]</answer>'
    assert (official("refcoco", TRUTH, items), strict("refcoco", TRUTH, items)) == (0, 1)
    assert (official("refcoco", TRUTH, ""), strict("refcoco", TRUTH, "")) == (0, 0)


def test_brackets_that_the_script_reads() -> None:
    assert internvl_box("[a,\n[1, 2, 3, 4]") == (1, 2, 3, 4)
    assert internvl_box("[1, 2, 3, 4, 5]") == (0, 0, 0, 0)
    assert internvl_box("[1, 2, 3, 4 [5]") == (0, 0, 0, 0)
    assert named_box("[1, 2, 3, 4, 5]") is None


def test_an_iou_of_one_half_is_right() -> None:
    assert official("refcoco", TRUTH, "[0, 0, 500, 250]") == strict("refcoco", TRUTH, "[0, 0, 500, 250]") == 1
    assert official("refcoco", TRUTH, "[0, 0, 500, 249]") == strict("refcoco", TRUTH, "[0, 0, 500, 249]") == 0


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (CoordinateFrame(1000, 1000), "[0, 0, 500, 500]"),
        (CoordinateFrame(640, 480), "[0, 0, 320, 240]"),
        (CoordinateFrame(644, 476), "[0, 0, 322, 238]"),  # Qwen2.5-VL: pixels after its own resizing
    ],
)
def test_boxes_in_the_frame_of_the_model(frame: CoordinateFrame, text: str) -> None:
    bench = benchmark("refcoco")
    sample, reply = Sample("s", (), truth=TRUTH, frame=frame), Reply((Part("text", text),))
    assert bench.official(sample, reply) == bench.strict(sample, reply) == 1
    other = Sample("s", (), truth=TRUTH, frame=CoordinateFrame(4000, 4000))
    assert bench.official(other, reply) == bench.strict(other, reply) == 0


def test_a_family_of_unknown_coordinates_is_refused() -> None:
    sample = Sample("s", (), truth=TRUTH, frame=CoordinateFrame(640, 480, "other"))
    with pytest.raises(ConfigError, match=r"model\.coordinates"):
        benchmark("refcoco").official(sample, Reply((Part("text", "[0, 0, 1, 1]"),)))


def test_predictions_say_their_coordinates(tmp_path: Path) -> None:
    write_questions("refcoco", tmp_path / "refcoco")
    bench = benchmark("refcoco")
    samples = list(bench.rows(bench.paths(tmp_path, "refcoco")))
    forms: dict[str, Any] = {"pixels": lambda s: str(s.truth["boxes"][0]), "thousand": small("refcoco").gold}
    arguments = ["bench=refcoco", f"predictions={tmp_path / 'p.json'}", f"data.benches={tmp_path}"]
    for coordinates, form in forms.items():
        (tmp_path / "p.json").write_text(json.dumps({s.uid: form(s) for s in samples}))
        result = score([*arguments, f"coordinates={coordinates}"])
        assert result["official"]["acc@0.5"]["value"] == result["strict"]["acc@0.5"]["value"] == 1
        assert result["official"]["acc@0.5/testA"]["n"] == 2
    assert score([*arguments, "coordinates=pixels"])["strict"]["acc@0.5"]["value"] == 0
    assert score(arguments)["strict"]["acc@0.5"]["value"] == 1
    with pytest.raises(ConfigError, match="wanted pixels or thousand, found coordinates=unit"):
        score([*arguments, "coordinates=unit"])
    write_questions("mmau", tmp_path / "mmau")
    with pytest.raises(ConfigError, match="which this benchmark does not ask for"):
        score(["bench=mmau", *arguments[1:], "coordinates=pixels"])


def test_long_replies_are_read_at_once() -> None:
    for text in ("[" * 100_000, "[1," * 30_000, "(" + "1" * 100_000, "[1" + " " * 100_000 + "2]"):
        assert official("refcoco", TRUTH, text) == strict("refcoco", TRUTH, text) == 0
