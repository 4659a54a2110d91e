"""Selection evenly over a score's range."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from mmpost.selection.flat import FlatSelection, shares
from mmpost.types import SampleRecord


def records(values: list[float | None]) -> list[SampleRecord]:
    return [SampleRecord(f"s{i}", i, {} if value is None else {"consistency": value}) for i, value in enumerate(values)]


def kept(selection: FlatSelection, of: list[SampleRecord]) -> list[float]:
    columns = selection.finalize(of)
    assert set(columns) == {record.uid for record in of}
    return [record.columns["consistency"] for record in of if columns[record.uid]["kept"]]


def selection(**options: float) -> FlatSelection:
    return FlatSelection(column="consistency", **{"low": 0.4, "bins": 6, **options})  # type: ignore[arg-type]


def test_numbers_in_the_parts_of_the_range_differ_by_at_most_one() -> None:
    values = [0.4 + 0.6 * (i / 1000) ** 0.2 for i in range(1000)]  # most of them near 1
    for n in (6, 60, 61, 65, 90):
        chosen = kept(selection(n=n), records(list(values)))
        counts = Counter(min(int((value - 0.4) / 0.1), 5) for value in chosen)
        available = Counter(min(int((value - 0.4) / 0.1), 5) for value in values)
        assert len(chosen) == n
        full = [counts[part] for part in range(6) if counts[part] < available[part]]
        assert max(full) - min(full) <= 1


def test_bounds_belong_to_the_range() -> None:
    of = records([0.39, 0.4, 1.0, 1.01, None])
    assert kept(selection(), of[:4]) == [0.4, 1.0]
    assert selection().finalize(of)["s4"]["kept"] == 0
    assert selection().finalize([]) == {}


def test_without_a_number_each_part_gives_what_the_smallest_has() -> None:
    values = [0.45] * 9 + [0.75] * 3 + [0.95] * 30
    assert Counter(kept(selection(), records(list(values)))) == {0.45: 3, 0.75: 3, 0.95: 3}


def test_the_choice_depends_on_uids_and_seed_only() -> None:
    of = records([0.5] * 40)
    assert selection(n=9).finalize(of) == selection(n=9).finalize(of[::-1])
    assert selection(n=9).finalize(of) != selection(n=9, seed=1).finalize(of)
    lost = [SampleRecord("lost", 40, {"consistency": 0.5}, "unreadable")]
    assert selection(n=50).finalize(of + lost)["lost"]["kept"] == 0


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ([1, 10, 10], 9, [1, 4, 4]),
        ([1, 10, 10], 10, [1, 5, 4]),
        ([3, 3], 100, [3, 3]),
        ([5, 5, 5], 2, [1, 1, 0]),
        ([], 4, []),
        ([4], 0, [0]),
    ],
)
def test_shares(sizes: list[int], total: int, expected: list[int]) -> None:
    assert shares(sizes, total) == expected


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="wanted low < high"):
        selection(high=0.4)
