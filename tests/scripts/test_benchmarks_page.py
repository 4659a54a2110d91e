"""docs/benchmark-rules.md says what the benchmarks say."""

from __future__ import annotations

import benchmarks_page


def test_the_page_is_that_of_the_benchmarks() -> None:
    assert benchmarks_page.PAGE.read_text(encoding="utf-8") == benchmarks_page.markdown(), (
        "run python scripts/benchmarks_page.py"
    )
