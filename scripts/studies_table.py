#!/usr/bin/env python
"""docs/studies.md: every claim of every study in studies/, from their study.json.

    python scripts/studies_table.py            # write it
    python scripts/studies_table.py --check    # exit status 1 if it is not what the studies say

Studies from before claims had dials and controls only have differences between arms, with intervals of a bootstrap over
their three seeds. Those are too narrow; here they get the intervals of today. What the test samples add is not stored
there, but it follows from the width of the bootstrap's interval: its variance was s² (n - 1) / n² of the n seeds plus
that of the samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpost.metrics.intervals import GROUPS, Estimate
from mmpost.studies.study import PILOT_SEED, TUNING_SEED
from mmpost.studies.tables import gap_text, table

ROOT = Path(__file__).resolve().parents[1]
STUDIES, PAGE = ROOT / "studies", ROOT / "docs" / "studies.md"
NORMAL_95 = 2 * 1.96

INTRODUCTION = """# Studies: what was claimed, and how it came out

Written by `python scripts/studies_table.py` from the `study.json` of each study; no figure is typed by hand.
[decisions.md](decisions.md) tells how claims, dials, controls and verdicts work.
"""
OLDER = """## Older studies under the intervals of today

These compare arms without a dial: a difference shows an order, not its cause. Their own intervals, a bootstrap over
three seeds and the test samples, cover 77 to 94 % where they say 95. Counted is every difference, in the metrics that a
study shows, whose old interval excluded 0; the new one is computed from the values of the seeds and the width of the
old. What falls is no claim any more.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    page = markdown()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PAGE} is not what the studies say: run python scripts/studies_table.py", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def markdown() -> str:
    """The page."""
    studies = {file.parent.relative_to(STUDIES).as_posix(): json.loads(file.read_text()) for file in files()}
    text = [INTRODUCTION.strip()]
    claims = [row for name, result in studies.items() if result.get("claims") for row in claim_rows(name, result)]
    if claims:
        head = ["study", "claim", "mechanism", "dial", "gap with the cause", "without", "interaction", "verdict"]
        text += ["## Claims", table([*head, "core-minutes"], claims)]
    older = {name: list(older_rows(name, result)) for name, result in studies.items() if "claims" not in result}
    counts = [[name, str(len(rows)), str(sum(row[-1] == "falls" for row in rows))] for name, rows in older.items()]
    text += [OLDER.strip(), table(["study", "differences", "of these fall"], counts)]
    falls = [row[:-1] for rows in older.values() for row in rows if row[-1] == "falls"]
    text += ["What falls:", table(["study", "budget", "difference", "metric", "seeds", "before", "today"], falls)]
    return "\n\n".join(text) + "\n"


def files() -> list[Path]:
    """The results of all studies."""
    return sorted(STUDIES.rglob("study.json"))


def claim_rows(name: str, result: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row for each claim of a study."""
    # Of the confirming runs and their tuning, without pilots and runs at budgets that the result does not compare.
    steps = {0, *(arm["steps"] for arms in result["budgets"].values() for arm in arms.values())}
    cells = [json.loads(file.read_text()) for file in (STUDIES / name / "cells").glob("*.json")]
    confirming = [cell for cell in cells if cell["seed"] % TUNING_SEED < PILOT_SEED and cell["steps"] in steps]
    minutes = sum(cell.get("wall", 0.0) for cell in confirming) / 60
    for position, (claim_name, found) in enumerate(result["claims"].items()):
        claim = found["claim"]
        dial = f"{claim['at']}, not {claim['control'] or claim['control_metric'] or '-'}"
        verdict = f"no verdict: {result['no_verdict']}" if result["no_verdict"] else found["verdict"]
        yield [
            name,
            f"{claim_name}: {claim['arm']} - {claim['against']}, {claim['metric']}, predicted {claim['gap']:+g}",
            "as above" if position else " ".join(result["mechanism"].split()),
            dial,
            *(gap_text(found.get(part)) for part in ("gap", "control", "effect")),
            verdict,
            f"{minutes:.0f}",
        ]


def older_rows(name: str, result: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row for each difference of a study without claims that excluded 0."""
    budgets = result.get("budgets") or {"steps": result["arms"]}
    for budget, arms in budgets.items():
        for arm_name, arm in arms.items():
            for metric, old in arm["difference"].items():
                shown = result.get("metrics") or list(arm["difference"])
                if metric not in shown or old["low"] <= 0 <= old["high"]:
                    continue
                seeds = np.subtract(*(values(arms[key], metric) for key in (arm_name, arm["against"])))
                samples = ((old["high"] - old["low"]) / NORMAL_95) ** 2
                n = len(seeds)
                if n > 1:
                    samples -= float(np.var(seeds, ddof=1)) * (n - 1) / n**2
                new = Estimate(tuple(seeds.tolist()), max(0.0, samples), GROUPS - 1.0)
                low, high = new.interval()
                yield [
                    name,
                    budget,
                    f"{arm_name} - {arm['against']}",
                    metric,
                    " ".join(f"{value:+.1f}" for value in seeds),
                    gap_text(old),
                    gap_text(new.as_dict()),
                    "falls" if low <= 0 <= high else "stands",
                ]


def values(arm: Mapping[str, Any], metric: str) -> list[float]:
    """The values of an arm's seeds."""
    scores = arm["scores"] if "scores" in arm else arm["measures"]
    return list(scores[metric]["seeds"])


if __name__ == "__main__":
    sys.exit(main())
