"""The tables base: what it is trained on, and its metrics."""

from __future__ import annotations

from mmpost.tasks.bases.tables import TablesBase, similarity, truth
from mmpost.types import Reply, Sample


def test_it_learns_to_read_a_few_cells_and_then_tables_of_one_look() -> None:
    reading, sft = TablesBase(tables=20, reading_fraction=0.25).stages()
    assert (reading.fraction, sft.fraction) == (0.25, 0.75)
    assert all(truth(sample).count("<fcel>") <= 6 for sample in reading.source)
    assert all(truth(sample).count("<nl>") >= 3 for sample in sft.source)
    assert {sample.meta["look"] for sample in (*reading.source, *sft.source)} == {"office"}
    (only,) = TablesBase(tables=20, reading_fraction=0).stages()
    assert (only.name, only.fraction) == ("sft", 1)


def test_it_is_evaluated_on_tables_that_it_has_not_seen() -> None:
    (bench,) = TablesBase().benches("test")
    assert bench.name == "known"
    assert all(sample.uid.startswith("tables-test-2-") for sample in bench.source[:8])


def test_metrics_are_means_in_percent() -> None:
    samples = [Sample(f"{i}", (), (Reply((), scores={"teds": i / 2, "s_teds": 1.0}),)) for i in range(2)]
    assert similarity(samples) == {"teds": 25.0, "s_teds": 100.0}
