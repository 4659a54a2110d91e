"""OCRBench: every quirk of the official rule."""

from __future__ import annotations

from tests.benchmarks.by_rule import official, strict


def test_quirks_of_ocrbench() -> None:
    plain, formula = {"formula": False}, {"formula": True}
    assert [official("ocrbench", ["5"], text, **plain) for text in ("5", "15 or 50", "five", "")] == [1, 1, 0, 0]
    assert [strict("ocrbench", ["5"], text, **plain) for text in ("It is 5.", "15 or 50", "five", "")] == [1, 0, 0, 0]
    assert [official("ocrbench", ["x_2 = Y\n"], text, **formula) for text in ("so x_2=Y !", "x_2=y")] == [1, 0]
    assert [strict("ocrbench", ["x_2 = Y\n"], text, **formula) for text in ("$x_2=Y$", "so x_2=Y !")] == [1, 0]
    assert official("ocrbench", ["The END"], "the\nend", **plain) == 1
