"""Verdicts: what is called as predicted, against and undecided, and when there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.metrics.intervals import Estimate, Measured
from mmpost.studies.claims import (
    control_verdict,
    findings,
    planned_power,
    verdict,
)
from mmpost.studies.equal_learning import matched_gap
from mmpost.studies.history import History
from mmpost.studies.study import Claim, Study, Variant

CLAIM = Claim(arm="a", against="b", metric="t/f1", gap=10.0, at="with", control="without")


def measured(mean: float, sd: float = 1.0, se: float = 0.5, seeds: int = 5, seed: int = 0) -> Measured:
    """Values of seeds with exactly this mean and SD, whose samples add a standard error."""
    rng = np.random.default_rng(seed)
    values, groups = rng.normal(size=seeds), rng.normal(size=64)
    values = mean + sd * (values - values.mean()) / values.std(ddof=1)
    groups = (groups - groups.mean()) / groups.std(ddof=1) * se * 8 / 63
    return Measured(values, values[:, None] - groups[None])


@pytest.mark.parametrize(
    ("mean", "sd", "p", "expected"),
    [
        (9.0, 2.0, 0.01, "as predicted"),
        (-9.0, 2.0, 0.01, "against"),
        (9.0, 2.0, 0.06, "undecided"),  # not after Holm's adjustment
        (4.0, 8.0, 0.3, "undecided"),
        (0.5, 1.0, 0.5, "against"),  # surely below half of the predicted gap
        (-0.5, 1.0, 0.5, "against"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_verdicts(mean: float, sd: float, p: float, expected: str, sign: int) -> None:
    claim = CLAIM.model_copy(update={"gap": sign * CLAIM.gap})
    assert verdict(claim, measured(sign * mean, sd).estimate(), p) == expected


def test_a_control_has_vanished_only_if_its_interval_lies_within_half_of_the_gap() -> None:
    assert control_verdict(CLAIM, measured(1.0, 2.0).estimate()) == "vanished"
    assert control_verdict(CLAIM, measured(3.5, 3.0).estimate()) == "undecided"
    assert control_verdict(CLAIM, measured(1.0, 9.0).estimate()) == "undecided"
    assert control_verdict(CLAIM, measured(6.0, 2.0).estimate()) == "remains"
    low, high = measured(3.0, 2.0).estimate().interval(0.9)
    assert control_verdict(CLAIM, Estimate((3.0,), 0.0, 63.0)) == "vanished"
    assert low < 3 < high < 5


STUDY = Study.model_validate(
    {
        "task": "visurf",
        "dial": {"without": {}, "little": {}, "with": {}},
        "arms": {"a": {}, "b": {}},
        "predict": {"one": CLAIM.model_dump(), "two": {**CLAIM.model_dump(), "metric": "o/f1", "gap": 4.0}},
    }
)


def scores(gaps: dict[str, tuple[float, float]]) -> dict[Variant, dict[str, Measured]]:
    """`gaps`: of t/f1 and o/f1 at each level."""
    out = {}
    for level, values in gaps.items():
        base = measured(50.0, 3.0, 2.0, seed=1)
        names = ("t/f1", "o/f1")
        out[Variant("b", level)] = dict.fromkeys(names, base)
        out[Variant("a", level)] = {
            name: Measured(base.seeds + noise.seeds, base.without + noise.without)
            for name, noise in zip(names, (measured(v, seed=2 + i) for i, v in enumerate(values)), strict=True)
        }
    return out


def test_what_counts_is_the_gap_with_the_cause_minus_that_without() -> None:
    found = findings(STUDY, scores({"without": (6.0, 0.0), "little": (8.0, 1.0), "with": (15.0, 4.0)}), {})
    one, two = found["one"], found["two"]
    assert {level: gap["mean"] for level, gap in one["dose"].items()} == pytest.approx(
        {"without": 6, "little": 8, "with": 15}
    )
    assert [one[part]["mean"] for part in ("gap", "control", "effect")] == pytest.approx([15, 6, 9])
    assert (one["verdict"], one["control_verdict"]) == ("as predicted", "remains")
    assert (two["verdict"], two["control_verdict"]) == ("as predicted", "vanished")
    assert one["effect"]["sd"] == pytest.approx(0, abs=1e-9)  # paired: the same noise at all levels
    is_open = STUDY.model_copy(update={"predict": {"one": CLAIM.model_copy(update={"vanishes": False})}})
    open_control = findings(is_open, scores({"without": (6.0, 0.0), "little": (8.0, 1.0), "with": (15.0, 4.0)}), {})
    assert "control_verdict" not in open_control["one"]
    gone = findings(STUDY, scores({"without": (6.0, 0.0), "little": (6.0, 0.0), "with": (6.0, 0.0)}), {})
    assert {name: entry["verdict"] for name, entry in gone.items()} == {"one": "against", "two": "against"}


def test_p_values_are_adjusted_for_the_number_of_claims() -> None:
    values = scores({"without": (0.0, 0.0), "little": (0.0, 0.0), "with": (3.0, 3.0)})
    for name in ("t/f1", "o/f1"):
        b, gap = values[Variant("b", "with")][name], measured(2.0, 1.5, seed=7)
        values[Variant("a", "with")][name] = Measured(b.seeds + gap.seeds, b.without + gap.without)
    both = findings(STUDY, values, {})
    alone = findings(STUDY.model_copy(update={"predict": {"one": CLAIM}}), values, {})
    assert both["one"]["p"] == pytest.approx(2 * alone["one"]["p"])
    assert 0 < alone["one"]["power"] <= 1
    planned = planned_power(alone, 5)
    assert planned["one"] == pytest.approx(alone["one"]["power"])
    assert planned_power(alone, 10)["one"] >= planned["one"]


def test_the_control_may_be_another_metric_of_the_same_level() -> None:
    claim = CLAIM.model_copy(update={"control": "", "control_metric": "o/f1"})
    study = STUDY.model_copy(update={"predict": {"one": claim}})
    found = findings(study, scores({"without": (6.0, 0.0), "little": (8.0, 1.0), "with": (15.0, 4.0)}), {})["one"]
    assert [found[part]["mean"] for part in ("gap", "control", "effect")] == pytest.approx([15, 4, 11])


def test_a_claim_without_a_control_is_about_the_gap() -> None:
    study = STUDY.model_copy(update={"predict": {"one": CLAIM.model_copy(update={"control": ""})}})
    found = findings(study, scores({"without": (6.0, 0.0), "little": (8.0, 1.0), "with": (15.0, 4.0)}), {})["one"]
    assert found["effect"] == found["gap"]
    assert "control" not in found


def curve(*points: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A run's checkpoints, with two equal replicates, and a third whose y is higher by 1."""
    x, y = (np.array([[p[i]] * 3 for p in points]) for i in (0, 1))
    return x, y + np.array([0.0, 0.0, 1.0])


def test_arms_are_compared_at_the_highest_value_that_both_reach() -> None:
    slow, fast = curve((10, 60), (20, 50)), curve((20, 30), (40, 20))
    other = curve((5, 60), (30, 10))
    gap = matched_gap([[slow, fast]], [[other]])
    assert gap is not None
    assert gap.seeds == pytest.approx([25 - 10])  # at 30: between (20, 30) and (40, 20), against (30, 10)
    assert gap.without == pytest.approx(np.array([[15, 15]]))
    gap = matched_gap([[curve((5, 40), (15, 30)), slow]], [[curve((12, 55))]])
    assert gap is not None
    assert gap.seeds == pytest.approx([58 - 55])  # at 12 the slow run is higher than the first


def test_without_overlap_nothing_is_extrapolated() -> None:
    assert matched_gap([[curve((10, 60), (20, 50))]], [[curve((30, 60), (40, 50))]]) is None
    study = STUDY.model_copy(update={"predict": {"one": CLAIM.model_copy(update={"matched": "t/f1"})}})
    found = findings(study, {}, {"one": {"with": measured(3.0)}})["one"]
    assert (found["verdict"], found["reason"]) == ("undecided", "no overlap of the arms' ranges")
    both = findings(study, {}, {"one": {"with": measured(12.0), "without": measured(1.0)}})["one"]
    assert (both["effect"]["mean"], both["verdict"]) == (pytest.approx(11), "as predicted")


def test_a_study_that_changed_after_its_first_run_gets_no_verdict(tmp_path: Path) -> None:
    history = History(tmp_path)
    pilot = history.begin(STUDY, [100, 101], pilot=True)
    history.end(pilot, {"one": {"verdict": "undecided"}})
    assert "a pilot" in history.conflict(pilot)
    first = history.begin(STUDY, [0, 1, 2], pilot=False)
    assert history.conflict(first) == ""
    again = History(tmp_path)
    assert again.begin(STUDY, [0, 1, 2], pilot=False) == first  # the same study goes on
    assert again.conflict(again.versions[1]) == ""
    last_pilot = again.last_pilot()
    assert last_pilot is not None
    assert last_pilot.outcome == {"one": {"verdict": "undecided"}}
    changed = STUDY.model_copy(update={"set": {"steps": 7}})
    second = again.begin(changed, [0, 1, 2], pilot=False)
    assert f"version {first.study_hash} has used these seeds" in again.conflict(second)
    more = again.begin(STUDY, [0, 1, 2, 3], pilot=False)
    assert "has used these seeds" in again.conflict(more)  # nor may seeds be added until it fits
    fresh = again.begin(changed, [5, 6, 7], pilot=False)
    assert again.conflict(fresh) == ""
    assert len(History(tmp_path).versions) == 5


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"study_hash": 1}\n')
    with pytest.raises(Exception, match=r"history\.jsonl:1 is damaged"):
        History(tmp_path)


def test_seeds_that_are_alone_have_no_power() -> None:
    single: dict[str, Any] = findings(
        STUDY,
        {
            v: {name: Measured(m.seeds[:1], m.without[:1]) for name, m in metrics.items()}
            for v, metrics in scores({"without": (0.0, 0.0), "little": (0.0, 0.0), "with": (9.0, 3.0)}).items()
        },
        {},
    )
    assert single["one"]["power"] is None
    assert single["one"]["effect"]["sd"] is None
