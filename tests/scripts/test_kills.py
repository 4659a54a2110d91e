"""The harness of kills: it kills where it says, and notices what is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kill_parts import same
from kill_parts.forks import Moment, Process, forked
from kill_parts.kinds import KINDS, Kind
from kill_parts.seeds import Outcome
from kills import Done, Kills
from small_runs import GROUPS

import mmpost
from mmpost.listeners.files import JsonlMetrics
from mmpost.runs import checkpoint


@pytest.fixture(scope="module")
def run(drawn_curves: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    mmpost.train(GROUPS, checkpoint={"every": 1}, eval={"before": False}, out=str(folder / "run"))
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "left over: checkpoints/.step-2": lambda run: (run / "checkpoints" / ".step-2").mkdir(),
    "missing: samples/step-000002.jsonl": lambda run: (run / "samples" / "step-000002.jsonl").unlink(),
    "checkpoints/last -> step-1, wanted step-2": lambda run: checkpoint.set_link(
        run / "checkpoints" / "last", "step-1"
    ),
    "checkpoints/step-2/model.safetensors: other content": lambda run: flip(
        run / "checkpoints" / "step-2" / "model.safetensors"
    ),
    "checkpoints/step-2/trainer/tensors.pt: other content": lambda run: flip(
        run / "checkpoints" / "step-2" / "trainer" / "tensors.pt"
    ),
    "metrics.jsonl: 3 lines, wanted 2": lambda run: append(run / "metrics.jsonl", '{"step": 2}\n'),
    "metrics.jsonl: cannot be read: ValueError: it has incomplete": lambda run: append(run / "metrics.jsonl", '{"st'),
    "eval/after.jsonl: other content": lambda run: append(run / "eval" / "after.jsonl", "\n"),
    "summary.json: other values of status": lambda run: (run / "summary.json").write_text(
        (run / "summary.json").read_text().replace('"done"', '"stopped"')
    ),
    "curves.png: cannot be read": lambda run: (run / "curves.png").write_bytes(
        (run / "curves.png").read_bytes()[:9000]
    ),
    "TensorBoard shows other curves": lambda run: next((run / "tensorboard").iterdir()).write_bytes(b""),
}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize("found", CHANGES)
def test_a_difference_is_found(found: str, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run / "run", copy, symlinks=True)
    file = copy / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, "time/step": 0.5}) + "\n" for line in lines))
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "wall_s": 7}))
    assert same.differences(copy, run / "run") == []
    CHANGES[found](copy)
    assert any(found in text for text in same.differences(copy, run / "run")), same.differences(copy, run / "run")


def write_three(arguments: Sequence[str]) -> int:
    """Seven operations: three files, each opened and synced, and one opened again; and four writes."""
    folder = Path(arguments[0])
    for name in "abc":
        with (folder / name).open("w") as file:
            file.write("one\ntwo\n")
            file.flush()
            os.fsync(file.fileno())
    with (folder / "a").open("ab") as binary:
        binary.write(b"three\n")
    (folder.parent / "elsewhere").write_text("not counted")
    return 0


def killed(folder: Path, moment: Moment | None) -> tuple[Process, dict[str, str]]:
    work = folder / "work"
    work.mkdir()
    process = forked([str(work)], write_three, folder / "log.txt", {}, [work], moment)
    if moment is not None and moment.how == "after":
        process.wait(report="reached")
        process.kill()
    process.wait()
    return process, {path.name: path.read_text() for path in sorted(work.iterdir())}


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        (Moment("before", 1), {}),
        (Moment("before", 2), {"a": "one\ntwo\n"}),
        (Moment("before", 3), {"a": "one\ntwo\n"}),
        (Moment("before", 4, group=True), {"a": "one\ntwo\n", "b": "one\ntwo\n"}),
        (Moment("torn", 2, 0.7), {"a": "one\ntwo\n", "b": "one\nt"}),
        (Moment("torn", 2, 0.4, whole_lines=True), {"a": "one\ntwo\n", "b": "one\n"}),
        (Moment("torn", 4, 0.5), {"a": "one\ntwo\nthr", "b": "one\ntwo\n", "c": "one\ntwo\n"}),
    ],
)
def test_a_child_is_killed_at_an_operation(moment: Moment, left: dict[str, str], tmp_path: Path) -> None:
    process, files = killed(tmp_path, moment)
    assert process.status == -signal.SIGKILL
    assert process.reported("killed")
    assert files == left


def test_a_child_reports_an_operation_and_its_counts(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    process, _ = killed(tmp_path / "1", Moment("after", 3))
    assert process.reported("reached").startswith("reached open")
    assert process.status in (0, -signal.SIGKILL)
    (tmp_path / "2").mkdir()
    process, files = killed(tmp_path / "2", None)
    assert process.status == 0
    assert process.reported("counts") == "counts 7 4"
    assert files["a"] == "one\ntwo\nthree\n"


def test_finished_seeds_are_counted_anew_for_another_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = Done(tmp_path / "kills.json", "abc", keep=False)
    done.add("save:1", Outcome(kills=3, refused=1))
    done.add("save:command-1", Outcome(kills=1))
    done.add("save:2", Outcome(kills=2, error="something"))
    again = Done(tmp_path / "kills.json", "abc", keep=False)
    assert again.seeds == {"save:1": [3, 1], "save:command-1": [1, 0]}
    assert (again.kills(False), again.kills(True)) == (3, 1)
    assert not Done(tmp_path / "kills.json", "def", keep=False).seeds
    assert "of commit abc, this is def: counting anew" in capsys.readouterr().out
    assert Done(tmp_path / "kills.json", "def", keep=True).seeds == again.seeds


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Kills:
    work = Kills(tmp_path_factory.mktemp("kills"), [kind for kind in KINDS if kind.name == "save"])
    work.prepare()
    return work


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_seeds_lose_nothing(kind: Kind, tmp_path: Path, drawn_curves: None) -> None:
    work = Kills(tmp_path, [kind])
    work.prepare()
    outcomes = [work.run(f"{kind.name}:{number}") for number in range(2)]
    assert not [outcome.error for outcome in outcomes if outcome.error]
    assert sum(outcome.kills for outcome in outcomes) >= 1
    assert not list((work.out / "seeds").iterdir())


def test_a_seed_that_loses_something_says_what_and_stays(work: Kills, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that keeps what it had written of the steps that it repeats."""
    on_metrics = JsonlMetrics.on_metrics

    def keeping(self: JsonlMetrics, metrics: object) -> None:
        if self._file is None:
            self._file = (self._path or Path()).open("a")
        on_metrics(self, metrics)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonlMetrics, "on_metrics", keeping)
    error = next(error for number in range(9) if (error := work.run(f"save:{number}").error))
    assert "metrics.jsonl: " in error
    assert list((work.out / "seeds").glob("*/diary.txt"))
