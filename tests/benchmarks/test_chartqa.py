"""ChartQA: every quirk of the official rule."""

from __future__ import annotations

import pytest

from tests.benchmarks.by_rule import official, strict


@pytest.mark.parametrize(
    ("reply", "truth", "by_rule", "strictly"),
    [
        ("105", "100", 1, 1),
        ("105.1", "100", 0, 0),
        ("95", "100", 1, 1),
        ("-100", "100", 0, 0),
        ("5%", "0.05", 1, 1),
        ("5", "5%", 0, 1),
        ("100%", "100", 0, 1),
        ("0.62", "62%", 1, 1),
        ("0", "0", 1, 1),
        ("0.0", "0", 0, 1),
        ("0.01", "0", 0, 0),
        ("1,000", "1000", 0, 1),
        ("1000", "1,000", 0, 1),
        ("$5", "5", 0, 1),
        ("1_000", "1000", 1, 0),
        ("2019", "2020", 1, 0),
        ("2020", "2020", 1, 1),
        ("It was 2020.", "2020", 0, 1),
        ("14 of 20", "14", 0, 0),
        (" 14\n", "14", 1, 1),
        ("YES", "Yes", 1, 1),
        ("Yes\n", "Yes", 0, 1),
        ("Yes.", "Yes", 0, 1),
        ("The answer is Yes", "Yes", 0, 1),
        ("yes or no", "Yes", 0, 0),
        ("[yes, no]", "[Yes, No]", 1, 1),
        ("inf", "14", 0, 0),
        ("nan", "14", 0, 0),
        ("", "0", 0, 0),
    ],
)
def test_quirks_of_chartqa(reply: str, truth: str, by_rule: int, strictly: int) -> None:
    assert (official("chartqa", truth, reply), strict("chartqa", truth, reply)) == (by_rule, strictly)
