"""A package of plug-ins (`tests/plugin_package`), found by entry points, that needs `mmpost as mp` alone."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpost.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package on the path, with the metadata that an installation would write; returns an empty folder."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"mmpost_pulse-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {path}" for name, path in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (info.parent / "mmpost_pulse").symlink_to(PACKAGE / "mmpost_pulse")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmpost_pulse"]:
        del sys.modules[name]


def test_it_imports_nothing_of_mmpost_but_the_facade() -> None:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("mmpost.")], file


def test_an_encoder_and_an_objective_from_a_package(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checked, trained, resumed, exported and evaluated; the encoder is found again wherever the model is opened."""
    spec = {"model": "embedding", "dim": 8, "encoders": {"pulse": {"name": "pulse"}}}
    Path("pulse.yaml").write_text(json.dumps(spec))
    shared = ["task=heart_rate", "model=pulse.yaml", "model.device=cpu", "log.progress=false"]
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "heart_rate" in listed
    assert "Slow, normal or fast: a classifier of pulse waves." in " ".join(listed.split())
    assert main(["check", *shared]) == 0
    assert main(["train", *shared, "steps=4", "optim.lr=1e-2", "out=run"]) == 0
    assert main(["train", "resume=run", "steps=24"]) == 0
    losses = [json.loads(line)["loss"] for line in Path("run/metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert len(losses) >= 24
    assert losses[-1] < 0.9 * losses[0]
    assert main(["export", "model=run", "out=exported"]) == 0
    assert main(["eval", "task=heart_rate", "model=exported", "model.device=cpu", "out=scores"]) == 0
    of_run, of_export = (json.loads(Path(p).read_text()) for p in ("run/summary.json", "scores/eval.json"))
    assert of_export["scores"]["rate/accuracy"] == of_run["eval_after"]["rate/accuracy"]


def test_a_reward_from_a_package(installed: Path) -> None:
    """In a task of the package, and by its name in the settings of a run."""
    model = ["model=random-tiny", "model.freeze=[vision,projector]", "model.device=cpu", "log.progress=false"]
    assert main(["check", "task=heart_words", *model]) == 0
    assert main(["train", "task=heart_words", *model, "steps=1", "out=run", "rewards.again=pulse.near"]) == 0
    assert main(["train", "resume=run", "steps=2"]) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "reward/near" in row]
    assert len(steps) == 2
    assert all(row["reward/near"] == row["reward/again"] for row in steps)
    assert main(["export", "model=run", "out=exported"]) == 0
    assert Path("exported/model.safetensors").exists()
