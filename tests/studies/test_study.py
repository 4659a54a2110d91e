"""Studies: grids, settings and keys of cells, and the code that keys depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmpost.errors import ConfigError
from mmpost.runs import code_hash
from mmpost.studies.study import PILOT_SEED, TUNING_SEED, Study, Variant, points

STUDY = Study.model_validate(
    {
        "task": "visurf",
        "set": {"task": {"scenes": 8}},
        "tune": {"optim.lr": [1e-4, 1e-3]},
        "arms": {
            "a": {"task": {"sft_fraction": 1.0}},
            "b": {"tune": {"optim.lr": [1.0], "optim.max_grad_norm": [1, 2]}},
        },
    }
)


def test_a_grid_has_every_combination_and_an_arm_may_have_its_own() -> None:
    assert points(STUDY.grid("a")) == [{"optim.lr": 1e-4}, {"optim.lr": 1e-3}]
    assert points(STUDY.grid("b")) == [
        {"optim.lr": 1.0, "optim.max_grad_norm": 1.0},
        {"optim.lr": 1.0, "optim.max_grad_norm": 2.0},
    ]


def test_settings_come_from_the_study_the_arm_and_the_grid() -> None:
    cell = STUDY.cell("a", {"optim.lr": 1e-3}, 2, 5)
    assert cell.settings["task"] == {"name": "visurf", "scenes": 8, "sft_fraction": 1.0}
    assert cell.settings["optim"] == {"lr": 1e-3}
    assert (cell.settings["seed"], cell.settings["steps"], cell.settings["eval"]) == (2, 5, {"before": False})
    tuning = STUDY.cell("b", {}, 2, 5, tuning=True)
    assert tuning.settings["seed"] == TUNING_SEED + 2
    assert tuning.settings["eval"] == {"before": False, "after": False, "every": 5}


def test_a_key_changes_with_settings_base_and_code_alone() -> None:
    cell = STUDY.cell("a", {"optim.lr": 1e-3}, 0, 5)
    key = cell.key("base", "code")
    assert key == STUDY.cell("a", {"optim.lr": 1e-3}, 0, 5).key("base", "code")
    others = [STUDY.cell("a", {"optim.lr": 1e-3}, 1, 5), STUDY.cell("a", {"optim.lr": 1e-4}, 0, 5)]
    others += [STUDY.cell("a", {"optim.lr": 1e-3}, 0, 6), STUDY.cell("b", {"optim.lr": 1e-3}, 0, 5)]
    keys = [other.key("base", "code") for other in others] + [cell.key("other", "code"), cell.key("base", "other")]
    assert len({key, *keys}) == 7


def test_selected_arms_keep_their_order_and_the_baseline() -> None:
    study = Study.load("visurf")
    selected = study.select_arms(["visurf", "sft"])
    assert (list(selected.arms), selected.against) == (["visurf", "sft"], "visurf")
    assert study.select_arms(["sft", "grpo"]).against == ""
    with pytest.raises(ConfigError, match="arms=: the study has the arms"):
        study.select_arms([])


def test_an_arm_can_have_its_own_baseline() -> None:
    study = Study.model_validate({"task": "sft", "against": "c", "arms": {"a": {"against": "b"}, "b": {}, "c": {}}})
    assert [study.opponent(arm) for arm in study.arms] == ["b", "c", "c"]
    assert "against" not in study.cell("a", {}, 0, 1).settings
    assert study.select_arms(["a", "c"]).opponent("a") == "c"
    assert study.select_arms(["a", "b"]).opponent("a") == "b"
    with pytest.raises(ValueError, match="arm a: against='d': the study has the arms a"):
        Study.model_validate({"task": "sft", "arms": {"a": {"against": "d"}}})
    with pytest.raises(ValueError, match="against='d': the study has the arms a, b"):
        Study.model_validate({"task": "sft", "against": "d", "arms": {"a": {}, "b": {}}})


def test_a_study_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: visurf\narms: {a: {}}\nmetric: [x]\n")
    with pytest.raises(ConfigError, match=r"unknown key .*metric; did you mean .*metrics"):
        Study.load(str(file))


def test_the_code_hash_follows_imports_and_ignores_reporting_code(tmp_path: Path) -> None:
    run = code_hash.source("mmpost.runs.run")
    assert run is not None
    visited, todo = set(), list(code_hash.imported(run))
    while todo:
        name = todo.pop()
        file = code_hash.source(name)
        if file is not None and name not in visited:
            visited.add(name)
            todo += list(code_hash.imported(file))
    assert {
        "mmpost.training.trainer",
        "mmpost.models.chat.model",
        "mmpost.rollout.local",
        "mmpost.updates.adamw",
    } <= visited
    assert not [name for name in visited if name.startswith(code_hash.EXCLUDED)]
    task = tmp_path / "task.py"
    task.write_text("from mmpost.types import Task\n")
    first = code_hash.fingerprint(str(task))
    assert code_hash.fingerprint(str(task)) == first
    task.write_text("from mmpost.types import Stage, Task\n")
    assert code_hash.fingerprint(str(task)) != first


def test_an_arm_starts_from_its_named_start_at_the_same_seed() -> None:
    study = Study.model_validate(
        {
            "task": "visurf",
            "set": {"optim": {"lr": 0.5}},
            "starts": {"first": {"steps": 7, "task": {"inject": False}}},
            "arms": {"alone": {}, "behind": {"after": "first"}, "lost": {"after": "nowhere"}},
        }
    )
    assert study.with_start(study.cell("alone", {}, 2, 9)) == (None, study.cell("alone", {}, 2, 9))
    first, second = study.with_start(study.cell("behind", {}, 2, 9))
    assert first is not None
    assert (first.arm, first.seed, first.steps, second.arm, second.steps) == ("first", 2, 7, "behind", 9)
    assert (first.settings["optim"]["lr"], first.settings["task"]["inject"], first.settings["seed"]) == (0.5, False, 2)
    assert "after" not in second.settings
    with pytest.raises(ConfigError, match="arm lost: after='nowhere': the study has the starts first"):
        study.with_start(study.cell("lost", {}, 2, 9))


DIAL = {
    "task": "visurf",
    "model": "tiny",
    "set": {"task": {"scenes": 8}},
    "dial": {"many": {"task": {"scenes": 512}}, "few": {"task": {"scenes": 64}, "model": "random-tiny"}},
    "arms": {"a": {"task": {"sft_fraction": 1.0}}, "b": {}},
    "predict": {"gap": {"arm": "a", "against": "b", "metric": "target/f1", "gap": 8, "at": "few", "control": "many"}},
    "starts": {"first": {"steps": 3}},
}


def test_a_level_of_the_dial_is_settings_of_all_arms() -> None:
    study = Study.model_validate(DIAL)
    assert [v.name for v in study.variants] == ["a @ many", "b @ many", "a @ few", "b @ few"]
    cell = study.cell("a", {}, 3, 5, level="few")
    assert cell.settings["task"] == {"name": "visurf", "scenes": 64, "sft_fraction": 1.0}
    assert cell.settings["model"] == {"name": "random-tiny"}
    assert (cell.variant, cell.title) == (Variant("a", "few"), "a @ few seed=3 steps=5")
    assert cell.key("base", "code") != study.cell("a", {}, 3, 5, level="many").key("base", "code")


def test_an_arm_may_be_run_at_some_levels_only() -> None:
    study = Study.model_validate({**DIAL, "arms": {"a": {"levels": ["few"]}, "b": {}}, "predict": {}})
    assert [v.name for v in study.variants] == ["b @ many", "a @ few", "b @ few"]
    assert "levels" not in study.cell("a", {}, 0, 1, level="few").settings
    with pytest.raises(ValueError, match=r"arm a: levels=\['some'\]: the study has many, few"):
        Study.model_validate({**DIAL, "arms": {"a": {"levels": ["some"]}, "b": {}}})
    with pytest.raises(ValueError, match=r"predict\.gap: wanted runs of a @ many, found none in the arms' levels"):
        Study.model_validate({**DIAL, "arms": {"a": {"levels": ["few"]}, "b": {}}})
    few = Study.model_validate(DIAL).select_levels(["few"])
    assert ([v.name for v in few.variants], few.predict) == (["a @ few", "b @ few"], {})


def test_each_seed_starts_from_its_own_base_and_tuning_from_another_one() -> None:
    study = Study.model_validate({**DIAL, "arms": {"a": {"after": "first"}, "b": {}}})

    def base_seed(seed: int, tuning: bool = False) -> int:
        start, cell = study.with_start(study.cell("a", {}, seed, 5, tuning, "many"))
        assert start is not None
        assert start.settings["model"] == cell.settings["model"]
        return int(cell.settings["model"]["base_seed"])

    assert [base_seed(seed) for seed in (0, 4, PILOT_SEED + 1)] == [0, 4, PILOT_SEED + 1]
    assert {base_seed(seed, tuning=True) for seed in (0, 1)} == {TUNING_SEED}
    assert base_seed(PILOT_SEED, tuning=True) == TUNING_SEED + PILOT_SEED
    shared = Study.model_validate({**DIAL, "bases": "shared"})
    assert shared.cell("a", {}, 3, 5, level="many").settings["model"] == {"name": "tiny"}


def test_claims_at_equal_learning_need_checkpoints_of_their_arms_only() -> None:
    claim = {**DIAL["predict"]["gap"], "metric": "old/f1", "matched": "target/f1", "control": ""}  # type: ignore[index]
    study = Study.model_validate({**DIAL, "predict": {"gap": claim}, "checkpoints": 4})
    assert study.matched == {Variant("a", "few"), Variant("b", "few")}
    assert study.cell("a", {}, 0, 60, level="few").settings["eval"] == {"before": False, "every": 15, "on_start": True}
    assert study.cell("a", {}, 0, 60, level="many").settings["eval"] == {"before": False}
    assert study.cell("a", {}, 0, 60, True, "few").settings["eval"] == {"before": False, "after": False, "every": 60}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "some"}, r"predict.gap.at='some': the study has many, few"),
        ({"arm": "c"}, r"predict.gap.arm='c': the study has a, b"),
        ({"gap": 0}, "wanted the predicted gap, found 0"),
        ({"by": 3}, "by"),
    ],
)
def test_a_claim_about_something_else_is_refused(change: dict[str, object], message: str) -> None:
    claim = {**DIAL["predict"]["gap"], **change}  # type: ignore[index]
    with pytest.raises(ValueError, match=message):
        Study.model_validate({**DIAL, "predict": {"gap": claim}})


def test_selected_arms_keep_the_claims_about_them() -> None:
    study = Study.model_validate(DIAL)
    assert list(study.select_arms(["b", "a"]).predict) == ["gap"]
    assert study.select_arms(["a"]).predict == {}


def test_the_study_in_the_documentation_works() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "test-a-claim.md"
    text = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    study = Study.model_validate(yaml.safe_load(text))
    study.check()
    assert [v.name for v in study.variants][:2] == ["sft @ silent", "grpo @ silent"]
    assert study.predict["old"].has_control


@pytest.mark.parametrize("name", ["visurf", "forgetting"])
def test_claims_of_shipped_studies_have_controls_and_say_what_refutes_them(name: str) -> None:
    study = Study.load(name)
    study.check()
    assert study.mechanism
    assert study.predict
    assert all(claim.has_control and claim.refuted_by for claim in study.predict.values())
