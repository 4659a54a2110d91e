"""A run killed by SIGKILL 20 times, in all phases, and resumed each time equals an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import TWO_STAGES, metrics, same_weights

from mmpost.config import parsing, run_config

WORKER = Path(__file__).parents[1] / "support" / "kill_train.py"
SETTINGS = run_config.merge(
    TWO_STAGES, {"eval": {"every": 2}, "log": {"samples_every": 5}, "checkpoint": {"keep": 2}, "steps": 20}
)
"""With a best checkpoint and pruning of old ones."""

PHASES = {
    "rollout": 3,
    "forward": 2,
    "backward": 2,
    "optimiser": 2,
    "weights": 2,
    "state": 2,
    "renames": 2,
    "pruning": 2,
    "evaluation": 2,
    "anywhere": 1,
}
"""Number of kills per phase."""


class Trainer:
    """Starts processes of `mmpost train`, one at a time."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.output_file = out.with_suffix(".txt")
        environment = {**os.environ, "PYTHONWARNINGS": ""}
        self.server = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        self.server.communicate()

    def start(self, out: Path, phase: str = "", at: int = 0) -> int:
        """Train, or resume `out` if it exists; returns the process id."""
        file = out.with_suffix(".yaml")
        file.write_text(parsing.dump(SETTINGS))
        arguments = [f"resume={out}"] if (out / "config.yaml").exists() else [f"config={file}", f"out={out}"]
        assert self.server.stdin is not None
        print(
            json.dumps({"phase": phase, "at": at, "words": arguments, "said": str(self.output_file)}),
            file=self.server.stdin,
            flush=True,
        )
        return self.read_report()["began"]

    def read_report(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())

    def run_to_end(self, out: Path) -> dict[str, float]:
        """Train to the end; returns the mean seconds of each phase."""
        self.start(out)
        report = self.read_report()
        assert "seconds" in report, self.output_file.read_text()
        assert self.read_report() == {"status": 0}, self.output_file.read_text()
        return report["seconds"]

    def kill_in(self, phase: str, at: int, fraction: float, seconds: dict[str, float]) -> dict[str, Any]:
        """Kill the run in its at-th `phase`, after `fraction` of its usual time; returns the moment."""
        process = self.start(self.out, phase, at)
        report: dict[str, Any] = {}
        if phase == "anywhere":
            delay = fraction * 20 * (seconds["update"] + seconds["weights"])
            time.sleep(delay)
            report["moment"] = f"{delay:.2f} s after its start"
        else:
            report = self.read_report()
            assert "step" in report, f"the run ended before {phase} {at}: {report} {self.output_file.read_text()}"
            time.sleep(fraction * seconds[phase])
        if "moment" not in report or phase == "anywhere":
            os.kill(process, signal.SIGKILL)
        while "status" not in report:
            report |= self.read_report()
        assert report.pop("status") == -signal.SIGKILL, self.output_file.read_text()
        return {"phase": phase, **report, "share": fraction}


@pytest.mark.slow
def test_a_run_survives_twenty_kills(tmp_path: Path) -> None:
    reference, out = tmp_path / "whole", tmp_path / "run"
    rng = random.Random(7)
    order = [phase for phase, count in PHASES.items() for _ in range(count)]
    rng.shuffle(order)
    kills = []
    with Trainer(out) as trainer:
        seconds = trainer.run_to_end(reference)
        print(f"\n{'kill':>4}  {'phase':10}  {'done':>4}  {'last':>7}  moment")
        for number, phase in enumerate(order, 1):
            at = rng.randint(1, 4 if phase in ("renames", "pruning", "forward", "backward") else 2)
            kill = trainer.kill_in(phase, at, 0.8 * rng.random(), seconds)
            kills.append(kill)
            last = out / "checkpoints" / "last"
            saved = os.readlink(last) if last.is_symlink() else "none"
            inside = f"{kill['share']:.0%} of {seconds.get(phase, 0) * 1000:.1f} ms" + ", at its end" * (
                "waits" in kill
            )
            moment = kill.get("moment", inside)
            print(f"{number:4}  {phase:10}  {kill.get('step', '?'):>4}  {saved:>7}  {moment}", flush=True)
        trainer.run_to_end(out)
    assert {kill["phase"] for kill in kills} == set(PHASES)
    assert len(kills) == 20
    assert_same_run(out, reference)


def assert_same_run(run: Path, other: Path) -> None:
    """Check that weights, metrics and evaluations are equal, and that no temporary files remain."""
    assert same_weights(run, other)
    assert [line["step"] for line in metrics(run)] == list(range(1, SETTINGS["steps"] + 1))
    assert metrics(run) == metrics(other)
    a, b = (json.loads((folder / "summary.json").read_text()) for folder in (run, other))
    assert (a["eval_before"], a["eval_best"], a["eval_after"]) == (b["eval_before"], b["eval_best"], b["eval_after"])
    assert not [left for left in (run / "checkpoints").iterdir() if left.name.startswith(".")]
