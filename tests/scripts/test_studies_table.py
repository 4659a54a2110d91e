"""docs/studies.md is what the studies say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import studies_table


def test_the_page_is_made_from_the_studies() -> None:
    assert studies_table.PAGE.read_text(encoding="utf-8") == studies_table.markdown(), (
        "run python scripts/studies_table.py"
    )


def test_an_older_difference_gets_the_interval_of_its_seeds_and_samples() -> None:
    """Three seeds without spread: the variance of the samples is all of the old interval's."""
    arms = {
        "a": {"scores": {"t/f1": {"seeds": [12.0, 12.0, 12.0]}}, "against": "b"},
        "b": {"scores": {"t/f1": {"seeds": [10.0, 10.0, 10.0]}}, "against": "b", "difference": {}},
    }
    old = {"mean": 2.0, "low": 2.0 - 1.96, "high": 2.0 + 1.96}
    arms["a"]["difference"] = {"t/f1": old, "t/other": {**old, "low": -1.0}}
    (row,) = studies_table.older_rows("x", {"metrics": ["t/f1", "t/other"], "budgets": {"steps": arms}})
    assert row[2:5] == ["a - b", "t/f1", "+2.0 +2.0 +2.0"]
    assert row[6:] == ["+2.0 (+0.0 to +4.0; SD 0.0)", "stands"]
    arms["a"]["scores"]["t/f1"]["seeds"] = [14.0, 12.0, 10.0]
    (row,) = studies_table.older_rows("x", {"metrics": [], "budgets": {"steps": arms}, "seeds": [0, 1, 2]})
    assert row[6:] == ["+2.0 (-3.0 to +7.0; SD 2.0)", "falls"]


def test_a_claim_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gap = {"mean": 9.0, "low": 5.0, "high": 13.0, "sd": 1.5}
    claim = {"arm": "a", "against": "b", "metric": "t/f1", "gap": 8.0, "at": "with", "control": "without"}
    found = {"claim": {**claim, "control_metric": ""}, "gap": gap, "effect": gap, "verdict": "as predicted"}
    budgets = {"steps": {"a": {"steps": 60}, "b": {"steps": 60}}}
    result = {"claims": {"one": found}, "mechanism": "a\nb", "no_verdict": "", "budgets": budgets}
    monkeypatch.setattr(studies_table, "STUDIES", tmp_path)
    (tmp_path / "nowhere" / "cells").mkdir(parents=True)
    # Seeds of a run, its tuning, a base; of pilots and their tuning; of a budget that is not compared.
    for seed, steps in ((0, 60), (1001, 60), (6, 0), (100, 60), (1101, 60), (0, 300)):
        cell = {"seed": seed, "steps": steps, "wall": 60.0}
        (tmp_path / "nowhere" / "cells" / f"{seed}-{steps}.json").write_text(json.dumps(cell))
    (row,) = studies_table.claim_rows("nowhere", result)
    assert row[1:4] == ["one: a - b, t/f1, predicted +8", "a b", "with, not without"]
    assert row[4:8] == ["+9.0 (+5.0 to +13.0; SD 1.5)", "-", "+9.0 (+5.0 to +13.0; SD 1.5)", "as predicted"]
    assert row[8] == "3"
    (row,) = studies_table.claim_rows("nowhere", {**result, "no_verdict": "a pilot"})
    assert row[7] == "no verdict: a pilot"


@pytest.mark.parametrize("file", studies_table.files(), ids=lambda file: file.parent.name)
def test_every_study_has_a_page(file: Path) -> None:
    assert file.with_name("study.md").exists()
