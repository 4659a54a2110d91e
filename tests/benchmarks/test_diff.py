"""`mmpost diff`: closed forms of the tests, clusters, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.benchmarks.diff import compare, mcnemar, read_results
from mmpost.commands.diff import diff
from mmpost.errors import ConfigError, DataError


def result(path: Path, scores: dict[str, Any], bench: str = "mmau", release: str = "one") -> str:
    path.write_text(json.dumps({"bench": bench, "release": release, "scores": scores, "official": {}}))
    return str(path)


def plain(values: list[float]) -> dict[str, Any]:
    return {str(i): [value, value, str(i)] for i, value in enumerate(values)}


def test_mcnemar_of_10_against_2() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1


def test_independent_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = result(tmp_path / "a.json", plain([0.0] * 10 + [1.0] * 2 + [1.0] * 88))
    b = result(tmp_path / "b.json", plain([1.0] * 10 + [0.0] * 2 + [1.0] * 88))
    (found,) = diff([a, b])
    assert (found.value, found.n, found.test) == (pytest.approx(0.08), 100, "exact McNemar")
    assert found.p == mcnemar(10, 2)
    se = np.sqrt(0.12 - 0.08**2) / 10
    assert (found.low, found.high) == pytest.approx((0.08 - 1.96 * se, 0.08 + 1.96 * se), abs=0.01)
    assert found.detectable == pytest.approx(2.8 * se, rel=0.1)
    assert (found.better, found.worse) == ([str(i) for i in range(10)], ["10", "11"])
    printed = capsys.readouterr().out
    assert "+8.0" in printed
    assert "mmau, 10 better: 0, 1, 2, 3, 4, 5, 6, 7, ..." in printed
    assert "mmau, 2 worse: 10, 11" in printed


def test_questions_of_a_picture_are_no_more_than_it(tmp_path: Path) -> None:
    scores = {True: {}, False: {}}
    for picture in range(40):
        for question in range(6):
            value = float(picture % 4 == 0)
            scores[False][f"{picture}/{question}"] = [0.0, 0.0, str(picture)]
            scores[True][f"{picture}/{question}"] = [value, value, str(picture)]
    files = [result(tmp_path / f"{key}.json", scores[key]) for key in (False, True)]
    (found,) = diff(files)
    assert (found.value, found.test) == (0.25, "cluster bootstrap")
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 40), rel=0.15)
    (same,) = diff([files[0], files[0], "rule=strict"])
    assert (same.value, same.p) == (0, 1)


def test_what_a_rule_leaves_out_is_not_compared(tmp_path: Path) -> None:
    a = result(tmp_path / "a.json", {"1": [None, 0.0, "1"], "2": [1.0, 1.0, "2"]})
    b = result(tmp_path / "b.json", {"1": [1.0, 1.0, "1"], "2": [1.0, 1.0, "2"], "3": [0.0, 0.0, "3"]})
    assert [found.n for found in diff([a, b])] == [1]
    assert [found.n for found in diff([a, b, "rule=strict"])] == [2]


def test_p_values_are_adjusted_for_the_benchmarks(tmp_path: Path) -> None:
    for name, flips in (("a", 0), ("b", 8)):
        (tmp_path / name).mkdir()
        for bench in ("mmau", "pope"):
            result(tmp_path / name / f"{bench}.json", plain([1.0] * flips + [0.0] * (20 - flips)), bench)
    found = compare(read_results(tmp_path / "a"), read_results(tmp_path / "b"), "official")
    assert [each.p for each in found] == [2 * mcnemar(8, 0)] * 2
    assert [each.bench for each in diff([str(tmp_path / "a"), str(tmp_path / "b"), "bench=pope"])] == ["pope"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a = result(tmp_path / "a.json", plain([1.0]))
    with pytest.raises(DataError, match="mmau: wanted one release, found one and two"):
        diff([a, result(tmp_path / "b.json", plain([1.0]), release="two")])
    with pytest.raises(DataError, match="wanted a benchmark that both have, found mmau and pope"):
        diff([a, result(tmp_path / "c.json", plain([1.0]), "pope")])
    with pytest.raises(DataError, match="wanted questions that both have a score for"):
        diff([a, result(tmp_path / "d.json", {"9": [1.0, 1.0, "9"]})])
    (tmp_path / "e.json").write_text("[]")
    with pytest.raises(DataError, match=r"e\.json: wanted a result of mmpost score or eval"):
        diff([a, str(tmp_path / "e.json")])
    for arguments in ([a], [a, a, "rule=both"], [a, a, "x=1"]):
        with pytest.raises(ConfigError, match="wanted mmpost diff A B"):
            diff(arguments)
