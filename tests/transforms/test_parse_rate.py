"""ParseRate: unparseable replies and gold are counted and otherwise unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmpost.config.run_config import load
from mmpost.errors import DataError
from mmpost.runs.configured_task import make_task
from mmpost.transforms.score import ParseRate, Score
from mmpost.types import Gold, Part, RefillBatch, Reply, Sample
from tests.transforms.fakes import FakeContext, group


def sample_with_replies(*texts: str, truth: object = "42") -> Sample:
    replies = tuple(Reply((Part("text", text),), "policy") for text in texts)
    return replace(group([]), replies=(*replies, Reply((Part("text", "no number"),), "truth")), truth=truth)


def test_unparseable_replies_and_gold_are_counted_separately() -> None:
    samples = [
        sample_with_replies("1", "x", "3", "4"),
        sample_with_replies("y", "6", truth="many"),
        sample_with_replies(truth=None),
    ]
    gold = Gold(lambda sample: sample.truth, is_parseable=str.isdigit)
    context = FakeContext()
    assert ParseRate(gold=gold)(samples, context) == samples
    assert context.mean("reply/unparseable") == pytest.approx(2 / 6)  # the injected truth is not counted
    assert context.logs["data/unparseable_gold"] == [0.0, 1.0]  # the third has no usable truth


def test_a_gold_function_that_raises_names_its_sample() -> None:
    gold = Gold(lambda sample: sample.truth["missing"], is_parseable=str.isdigit)
    with pytest.raises(DataError, match=r"sample 'a': writing its gold reply raised TypeError.*truth is '42'"):
        ParseRate(gold=gold)([sample_with_replies("1")], FakeContext())


def test_parse_rate_runs_after_scoring_and_before_groups_are_dropped(tmp_path: Path) -> None:
    (stage,) = make_task(load(["task=visurf", "task.max_resample_times=2"])[0]).stages()
    transform_classes: list[type] = [type(t) for t in stage.transforms]
    assert (
        transform_classes.index(ParseRate) == transform_classes.index(Score) + 1 < transform_classes.index(RefillBatch)
    )
    (tmp_path / "rows.jsonl").write_text('{"query": "1 + 1?", "solution": "2"}')
    (grpo_stage,) = make_task(load(["task=grpo", f"data.train={tmp_path / 'rows.jsonl'}"])[0]).stages()
    assert not any(isinstance(t, ParseRate) for t in grpo_stage.transforms)
