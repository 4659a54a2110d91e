"""What cannot be read is counted, replies apart from gold, and nothing else happens to it."""

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


def said(*texts: str, truth: object = "42") -> Sample:
    replies = tuple(Reply((Part("text", text),), "policy") for text in texts)
    return replace(group([]), replies=(*replies, Reply((Part("text", "no number"),), "truth")), truth=truth)


def test_replies_and_gold_that_cannot_be_read_are_counted_apart() -> None:
    samples = [said("1", "x", "3", "4"), said("y", "6", truth="many"), said(truth=None)]
    gold = Gold(lambda sample: sample.truth, is_parseable=str.isdigit)
    context = FakeContext()
    assert ParseRate(gold=gold)(samples, context) == samples
    assert context.mean("reply/unparseable") == pytest.approx(2 / 6)  # the injected truth is no reply of the policy
    assert context.logs["data/unparseable_gold"] == [0.0, 1.0]  # the third has no usable truth


def test_gold_that_cannot_be_written_names_its_sample() -> None:
    gold = Gold(lambda sample: sample.truth["missing"], is_parseable=str.isdigit)
    with pytest.raises(DataError, match=r"sample 'a': writing its gold reply raised TypeError.*truth is '42'"):
        ParseRate(gold=gold)([said("1")], FakeContext())


def test_tasks_that_can_tell_count_between_scores_and_what_drops_groups(tmp_path: Path) -> None:
    (stage,) = make_task(load(["task=visurf", "task.max_resample_times=2"])[0]).stages()
    kinds: list[type] = [type(t) for t in stage.transforms]
    assert kinds.index(ParseRate) == kinds.index(Score) + 1 < kinds.index(RefillBatch)
    (tmp_path / "rows.jsonl").write_text('{"query": "1 + 1?", "solution": "2"}')
    (plain,) = make_task(load(["task=grpo", f"data.train={tmp_path / 'rows.jsonl'}"])[0]).stages()
    assert not any(isinstance(t, ParseRate) for t in plain.transforms)
