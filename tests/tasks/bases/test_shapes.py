"""The shapes base: its questions, and accuracy by question type."""

from __future__ import annotations

from mmpost.rewards.text import answer
from mmpost.tasks.bases.shapes import ShapesBase, by_kind, known, thoughtful
from mmpost.types import Reply, Sample


def test_every_question_type_occurs_and_no_question_repeats() -> None:
    source = known("val", 60, seed=2)
    assert len({sample.uid for sample in source}) == len(source) == 60
    assert {s.meta["kind"] for s in source} == {"name", "second", "count", "sum", "width", "height"}
    assert all(answer(thoughtful(sample)) == sample.truth for sample in source)
    (stage,) = ShapesBase(scenes=60).stages()
    assert not {s.uid for s in stage.source} & {s.uid for s in source}


def test_accuracy_by_question_type() -> None:
    def scored(kind: str, right: float) -> Sample:
        return Sample(kind, (), (Reply((), scores={"right": right}),), meta={"kind": kind})

    assert by_kind([scored("a", 1.0), scored("a", 0.0), scored("b", 1.0), scored("b", 1.0)]) == {
        "accuracy": 75.0,
        "a": 50.0,
        "b": 100.0,
    }
