"""SIGKILL at 20 moments of a run, in all that a run does; resumed each time, it ends as if nothing had happened."""

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
"""Also a best checkpoint, and old ones that go."""

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
"""Kills in each."""


class Trainer:
    """Processes of `mmpost train`, one after the other."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.said = out.with_suffix(".txt")
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
        """Train, or go on with what `out` holds; its process id."""
        file = out.with_suffix(".yaml")
        file.write_text(parsing.dump(SETTINGS))
        words = [f"resume={out}"] if (out / "config.yaml").exists() else [f"config={file}", f"out={out}"]
        assert self.server.stdin is not None
        print(
            json.dumps({"phase": phase, "at": at, "words": words, "said": str(self.said)}),
            file=self.server.stdin,
            flush=True,
        )
        return self.told()["began"]

    def told(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())

    def whole(self, out: Path) -> dict[str, float]:
        """Train to the end; seconds of each phase."""
        self.start(out)
        found = self.told()
        assert "seconds" in found, self.said.read_text()
        assert self.told() == {"status": 0}, self.said.read_text()
        return found["seconds"]

    def killed(self, phase: str, at: int, share: float, seconds: dict[str, float]) -> dict[str, Any]:
        """Kill the run in the at-th passage through `phase`, after that share of its usual time; returns the moment."""
        process = self.start(self.out, phase, at)
        found: dict[str, Any] = {}
        if phase == "anywhere":
            delay = share * 20 * (seconds["update"] + seconds["weights"])
            time.sleep(delay)
            found["moment"] = f"{delay:.2f} s after its start"
        else:
            found = self.told()
            assert "step" in found, f"the run ended before {phase} {at}: {found} {self.said.read_text()}"
            time.sleep(share * seconds[phase])
        if "moment" not in found or phase == "anywhere":
            os.kill(process, signal.SIGKILL)
        while "status" not in found:
            found |= self.told()
        assert found.pop("status") == -signal.SIGKILL, self.said.read_text()
        return {"phase": phase, **found, "share": share}


@pytest.mark.slow
def test_twenty_kills_in_all_that_a_run_does(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    rng = random.Random(7)
    order = [phase for phase, count in PHASES.items() for _ in range(count)]
    rng.shuffle(order)
    kills = []
    with Trainer(out) as trainer:
        seconds = trainer.whole(whole)
        print(f"\n{'kill':>4}  {'phase':10}  {'done':>4}  {'last':>7}  moment")
        for number, phase in enumerate(order, 1):
            at = rng.randint(1, 4 if phase in ("renames", "pruning", "forward", "backward") else 2)
            kill = trainer.killed(phase, at, 0.8 * rng.random(), seconds)
            kills.append(kill)
            last = out / "checkpoints" / "last"
            saved = os.readlink(last) if last.is_symlink() else "none"
            inside = f"{kill['share']:.0%} of {seconds.get(phase, 0) * 1000:.1f} ms" + ", at its end" * (
                "waits" in kill
            )
            moment = kill.get("moment", inside)
            print(f"{number:4}  {phase:10}  {kill.get('step', '?'):>4}  {saved:>7}  {moment}", flush=True)
        trainer.whole(out)
    assert {kill["phase"] for kill in kills} == set(PHASES)
    assert len(kills) == 20
    same(out, whole)


def same(run: Path, other: Path) -> None:
    """Weights, metrics of every step, evaluations; nothing is left of what was cut off."""
    assert same_weights(run, other)
    assert [line["step"] for line in metrics(run)] == list(range(1, SETTINGS["steps"] + 1))
    assert metrics(run) == metrics(other)
    a, b = (json.loads((folder / "summary.json").read_text()) for folder in (run, other))
    assert (a["eval_before"], a["eval_best"], a["eval_after"]) == (b["eval_before"], b["eval_best"], b["eval_after"])
    assert not [left for left in (run / "checkpoints").iterdir() if left.name.startswith(".")]
