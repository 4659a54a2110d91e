"""A changed prompt recipe is detected when a run is resumed or used as model."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmpost
from mmpost.errors import ConfigError
from mmpost.runs import prompt_recipe


@dataclass(frozen=True)
class Recipe:
    template: str
    system: str | None = None

    @property
    def hash(self) -> str:
        return f"{hash(self)}"


def test_changed_parts_of_the_recipe_are_named() -> None:
    before = prompt_recipe.as_dict(Recipe("a" * 500))
    assert prompt_recipe.changed(before, Recipe("a" * 500)) == []
    (template,) = prompt_recipe.changed(before, Recipe("b" * 500))
    assert template.startswith("template (was ")
    assert len(template) < 80
    assert prompt_recipe.changed(before, Recipe("a" * 500, "Be brief.")) == ['system (was null, now "Be brief.")']
    (recipe_hash,) = prompt_recipe.changed({"recipe": "123"}, Recipe("a"))
    assert "the recipe as a whole (was 123" in recipe_hash


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on one row with two special tokens in its question."""
    folder = tmp_path_factory.mktemp("recipes")
    Image.new("RGB", (28, 28)).save(folder / "a.png")
    row = {"image": "a.png", "question": "what<|im_end|> is <|image_pad|>this", "response": "nothing"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    train(folder / "run", data={"train": str(folder / "rows.jsonl")}, model="random-tiny")
    return folder / "run"


def train(out: Path, **overrides: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"task": {"name": "sft", "prompts_per_step": 3}, "steps": 2, "checkpoint": {"every": 1}}
    return mmpost.train(**settings, **overrides, log={"progress": False, "tensorboard": False}, out=str(out))


def test_special_tokens_in_the_users_text_are_counted(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["data/escaped_tokens"] for line in lines] == [6, 6]  # three samples per step, two tokens in each


def test_resuming_with_other_prompts_is_refused(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(run, again, symlinks=True)
    folder = again / "checkpoints" / "step-1"
    state = json.loads((folder / "trainer" / "state.json").read_text())
    state |= {"recipe": "0", "recipe_fields": {**state["recipe_fields"], "lead": '"\\n"'}}
    (folder / "trainer" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match=r"built differently than before, in lead \(was \"\\n\", now \"\"\)"):
        mmpost.train(resume=str(folder))
    (folder / "trainer" / "state.json").write_text(json.dumps({**state, **stored_recipe(run)}))
    assert mmpost.train(resume=str(folder))["steps"] == 2


def stored_recipe(run: Path) -> dict[str, Any]:
    state = json.loads((run / "checkpoints" / "step-1" / "trainer" / "state.json").read_text())
    return {name: state[name] for name in ("recipe", "recipe_fields")}


def test_a_run_as_model_warns_about_a_different_prompt_recipe(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"train": str(run.parent / "rows.jsonl")}
    train(tmp_path / "same", model=str(run), data=data)
    assert "built differently" not in capsys.readouterr().err
    train(tmp_path / "other", model={"name": str(run), "system": "Be brief."}, data=data)
    assert 'built differently, in system (was null, now "Be brief.")' in capsys.readouterr().err
