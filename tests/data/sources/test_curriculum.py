"""Curricula: each sample in one stage, by its `stage` field or question type; replay of earlier stages."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmpost.config.settings import DataSettings
from mmpost.data.formats.short_answers import ShortAnswers
from mmpost.data.readers.user_data import user_data
from mmpost.data.sources.curriculum import Curriculum, with_replay
from mmpost.data.worlds.aerial.questions import TYPES, Aerial
from mmpost.errors import DataError

STAGES = {"easy": ("color", "shape", "size"), "middle": ("number", "transportation", "sports"), "hard": TYPES[-2:]}
ONE_TYPE_EACH = {"easy": ("color",), "middle": ("number",), "hard": ("scene",)}


def count_types(source: Any) -> Counter[str]:
    return Counter(source[i].meta["task"] for i in range(len(source)))


def test_each_sample_is_in_the_stage_of_its_type() -> None:
    parts = Curriculum(Aerial(n=80), STAGES).parts()
    assert {name: set(count_types(part)) for name, part in parts.items()} == {n: set(t) for n, t in STAGES.items()}
    assert sorted(s.uid for part in parts.values() for s in part) == sorted(s.uid for s in Aerial(n=80))
    assert {s.meta["stage"] for s in parts["hard"]} == {"hard"}


def test_replay_is_a_fraction_of_earlier_stages() -> None:
    parts = Curriculum(Aerial(n=400), STAGES).parts()
    assert with_replay(parts, "easy", 0.5) is parts["easy"]
    assert with_replay(parts, "hard", 0.0) is parts["hard"]
    hard = with_replay(parts, "hard", 0.25)
    early = sum(n for question_type, n in count_types(hard).items() if question_type not in STAGES["hard"])
    assert abs(early / len(hard) - 0.25) < 0.01
    first = [s.meta["stage"] == "hard" for s in list(hard)[:40]]
    assert 28 <= sum(first) <= 32, "evenly spread"
    assert set(count_types(with_replay(parts, "middle", 0.5))) == {*STAGES["easy"], *STAGES["middle"]}


def short_answers(folder: Path, *changes: dict[str, Any]) -> ShortAnswers:
    """Rows in the format of HRVQA-VL, each with its changes."""
    (folder / "a.png").write_bytes(Aerial(n=1)[0].prompt[0].value.bytes())
    row = {"image": "a.png", "question": "What color is the roof?", "answer": "red", "task": "color"}
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps({**row, **change}) for change in changes))
    samples = user_data(DataSettings(train=str(file)), "train", loss="last")
    assert samples is not None
    return ShortAnswers(samples, "{question} Answer in <answer>.")


def test_rows_of_the_official_format(tmp_path: Path) -> None:
    source = short_answers(
        tmp_path,
        {"cot": "The roof is red.", "stage": "easy"},
        {"question": "How many houses?", "answer": 3, "task": "Number", "stage": 3},
        {"task": "scene"},
    )
    parts = Curriculum(source, ONE_TYPE_EACH).parts()
    assert {name: [s.truth for s in part] for name, part in parts.items()} == {
        "easy": ["red"],
        "middle": [],
        "hard": ["3", "red"],
    }
    first = parts["easy"][0]
    assert [p.modality for p in first.prompt] == ["image", "text"]
    assert first.prompt[1].value == "What color is the roof? Answer in <answer>."
    assert first.meta["cot"] == "The roof is red."
    by_type = Curriculum(source, ONE_TYPE_EACH, use_sample_stage=False).parts()
    assert [len(part) for part in by_type.values()] == [1, 1, 1]
    assert parts["hard"].where(1).endswith("rows.jsonl:3")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "areas"}, "found 'areas'; the stages have color, number, scene"),
        ({"stage": "fourth"}, r"a stage among easy, middle, hard \(or 1 to 3\), found 'fourth'"),
        ({"task": None}, "the question type in `task`, found None"),
        ({"answer": ""}, "a short answer in `answer`, found ''"),
        ({"image": None}, "wanted an image to ask about"),
    ],
)
def test_a_row_without_a_stage_raises_on_access(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    parts = Curriculum(short_answers(tmp_path, {}, change), ONE_TYPE_EACH).parts()
    assert len(parts["easy"]) == 2
    assert parts["easy"][0].truth == "red"
    with pytest.raises(DataError, match=message):
        parts["easy"][1]
