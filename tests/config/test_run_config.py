"""The run configuration: strict keys, layered sources, and dumps that load equal."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mmpost.config import parsing, registry, run_config
from mmpost.config.settings import OptimSettings
from mmpost.errors import ConfigError


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optm.lr=1", "unknown key optm.lr; did you mean optim.lr?"),
        ("optim.lrr=1", "unknown key optim.lrr; did you mean optim.lr?"),
        ("model.lora.rnk=4", "unknown key model.lora.rnk; did you mean model.lora.rank?"),
        ("stpes=4", "unknown key stpes; did you mean steps?"),
        ("num_generations=8", "unknown key num_generations: use task.num_generations"),
        ("freeze_vision_tower=true", "use model.freeze=[vision]"),
        ("optim.lr=fast", "optim.lr: input should be a valid number"),
        ("steps=-1", "steps: input should be greater than or equal to 0, found -1"),
        ("steps", "wanted key=value, found 'steps'"),
        ("config=/nowhere.yaml", "config=/nowhere.yaml: no such file"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_closest_key(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config.load(["task=visurf", argument])
    assert message in str(error.value)


def test_a_missing_task_is_reported() -> None:
    with pytest.raises(ConfigError, match="no task"):
        run_config.load(["steps=1"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("off", "off"), ("no", "no"), ("1:30", "1:30"), ("true", True), ("null", None), ("0x10", "0x10"),
     ("[vision, 2]", ["vision", 2]), ("-3", -3), (".5", 0.5), ("", None), ("a: b: c", "a: b: c")],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parsing.parse_argument(f"a.b={text}")["a"]["b"]
    assert parsed == (16 if text == "0x10" else value)


def test_arguments_override_files_and_files_override_task_defaults(tmp_path: Path) -> None:
    shipped = run_config.load(["task=visurf"])[0]
    file = tmp_path / "mine.yaml"
    file.write_text("task: visurf\noptim: {lr: 0.5}\nseed: 7\n")
    from_file = run_config.load([f"config={file}"])[0]
    assert (from_file.optim.lr, from_file.seed, from_file.steps) == (0.5, 7, shipped.steps)
    file_and_arguments = run_config.load([f"config={file}", "optim.lr=0.25"])[0]
    assert (file_and_arguments.optim.lr, file_and_arguments.seed) == (0.25, 7)


def test_model_specific_values_apply_to_that_model_only() -> None:
    tiny, other = (run_config.load(["task=visurf", f"model={m}"])[0] for m in ("tiny", "Qwen/Qwen2.5-VL-7B-Instruct"))
    assert other.optim.lr == 1e-6
    assert tiny.optim.lr > 1e-5


def test_optimizer_settings_of_a_stage() -> None:
    run, _ = run_config.load(["task=x", "model=y", "optim.lr=0.5", "stages.sft.optim.max_grad_norm=3"])
    task_optim = {"lr": 0.1, "weight_decay": 0.2}
    assert run_config.stage_optim(run, "sft", task_optim) == OptimSettings(lr=0.5, weight_decay=0.2, max_grad_norm=3)
    assert run_config.stage_optim(run, "rl", task_optim) == OptimSettings(lr=0.5, weight_decay=0.2)
    invalid, _ = run_config.load(["task=x", "stages.sft.optim.max_grad_nrm=3"])
    with pytest.raises(
        ConfigError, match=r"stages.sft.optim.max_grad_nrm; did you mean stages.sft.optim.max_grad_norm"
    ):
        run_config.stage_optim(invalid, "sft", {})


def test_a_dumped_configuration_loads_equal(tmp_path: Path) -> None:
    arguments = [
        "task=visurf",
        "model.name=a: b",
        "model.freeze=[vision]",
        "optim.lr=1e-7",
        "log.wandb=off",
        "task.num_generations=4",
    ]
    run, _ = run_config.load(arguments)
    file = tmp_path / "config.yaml"
    file.write_text(parsing.dump(run.model_dump(mode="json")))
    assert run_config.load([f"config={file}"])[0] == run


@pytest.mark.parametrize(
    "file", [f.name for f in resources.files("mmpost.configs").iterdir() if f.name.endswith(".yaml")]
)
def test_every_shipped_file_loads(file: str) -> None:
    settings = run_config.shipped(file.removesuffix(".yaml"))
    # A variant names its task, the others are named after theirs.
    name = settings.get("task", {}).get("name") or file.removesuffix(".yaml").partition("-")[0]
    run, _ = run_config.load([{"task": name}, settings])
    assert run.task["name"] == name
    registry.locate(name, "mmpost.tasks")


def test_a_shipped_variant_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_name, _ = run_config.load(["config=reason_rft_structure", "model=x", "steps=7"])
    assert (by_name.task["name"], by_name.task["family"], by_name.steps) == ("reason_rft", "structure", 7)
    assert by_name.task["prompts_per_step"] == 14, "of configs/reason_rft.yaml"
    (tmp_path / "reason_rft_structure").write_text("task: visurf\n")
    assert run_config.load(["config=reason_rft_structure"])[0].task["name"] == "visurf", "a file comes first"
    for missing in ("reason_rft_structures", "bases/tiny", "a.yaml"):
        with pytest.raises(ConfigError, match=f"config={missing}: no such file"):
            run_config.load([f"config={missing}"])


def test_every_shipped_base_loads() -> None:
    files = [f.name for f in resources.files("mmpost.configs").joinpath("bases").iterdir()]
    assert "tiny.yaml" in files
    for file in files:
        run, _ = run_config.load([run_config.shipped(f"bases/{file.removesuffix('.yaml')}")])
        assert run.model.name.startswith("random-")


def test_invalid_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not valid YAML"):
        run_config.load([f"config={file}"])
