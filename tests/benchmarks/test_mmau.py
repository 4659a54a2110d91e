"""MMAU: every quirk of the official rule."""

from __future__ import annotations

from mmpost.benchmarks.benchmark import benchmark
from tests.benchmarks.by_rule import official, strict


def test_quirks_of_mmau() -> None:
    woman = {"choices": ["A child", "A woman", "An adult man", "A teenager"]}
    right = ["A woman", "a woman speaking", "(B) A woman"]
    wrong = ["woman", "A woman, not a child", ""]
    assert [official("mmau", "A woman", text, **woman) for text in (*right, *wrong)] == [1, 1, 1, 0, 0, 0]
    order = {"choices": ["Loud then soft", "Soft then loud"]}
    assert official("mmau", "Loud then soft", "Soft then loud", **order) == 1
    assert strict("mmau", "Loud then soft", "Soft then loud", **order) == 0
    assert benchmark("mmau").official.missing == "left out"
