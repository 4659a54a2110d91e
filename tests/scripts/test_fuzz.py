"""The fuzzer: its cases repeat, and what it looks for is found and kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest
from fuzz_parts import commands
from fuzz_parts.losses import require

from mmpost.errors import DataError


@pytest.mark.filterwarnings("ignore")  # of Pillow, on damaged TIFF
@pytest.mark.parametrize("target", ["rows", "words", "yaml", "media", "replies"])
def test_cases_repeat_and_none_is_a_find(target: str, tmp_path: Path) -> None:
    outcomes, inputs = [], []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        for number in range(8):
            outcomes.append(fuzz.run_case(target, 1, number, folder))
            inputs.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert (outcomes[:8], inputs[:8]) == (outcomes[8:], inputs[8:])
    assert {outcome for outcome, _ in outcomes} <= set(fuzz.FINE)


def crash() -> object:
    raise ZeroDivisionError("planted")


def lose() -> object:
    return require("a planted loss", False)


def talk() -> object:
    raise DataError("no " * 100_000)


def hang() -> object:
    return time.sleep(60)


@pytest.mark.parametrize(
    ("planted", "outcome"),
    [(crash, "ZeroDivisionError in test_fuzz.py:crash"), (lose, "SilentLoss in losses.py:require"), (hang, "hang")],
)
def test_what_goes_wrong_is_kept_with_its_input(
    planted: Callable[[], object], outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def case(rng: object, folder: Path) -> Callable[[], object]:
        (folder / "input.txt").write_text("the input")
        return planted

    monkeypatch.setitem(fuzz.CASES, "rows", case)
    monkeypatch.setitem(fuzz.BATCH, "rows", 3)
    counts: Counter[str] = Counter()
    fuzz.run_batch("rows", 5, 20, tmp_path / "current" / "rows", 2.0, counts)
    assert counts == {f"FIND rows: {outcome}": 1 if planted is hang else 3}
    (kept,) = (path for path in tmp_path.iterdir() if path.name != "current")
    assert (kept / "input.txt").read_text() == "the input"
    assert (kept / "find.txt").read_text().startswith(f"--seed 5 --only rows:20\n{outcome}\n")


def test_a_long_message_is_fitted_before_it_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.CASES, "rows", lambda rng, folder: talk)
    assert fuzz.run_case("rows", 0, 0, tmp_path) == ("refused", "")


def test_a_command_is_refused_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.CASES, "commands", lambda rng, folder: lambda: commands.run_command(["show", "n=x"]))
    assert fuzz.run_case("commands", 0, 0, tmp_path) == ("refused", "")
    monkeypatch.setattr(commands.cli, "main", lambda arguments: 1)
    assert fuzz.run_case("commands", 0, 0, tmp_path)[0] == "SilentLoss in losses.py:require"
