"""Regression tests of mistakes and combinations that once failed silently."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import GROUPS, QUICK, lines

import mmpost
from mmpost import cli
from mmpost.config import run_config
from mmpost.errors import ConfigError, DataError
from mmpost.runs.configured_task import make_task
from mmpost.transforms.advantage import GlobalWhiten, GroupAdvantage, LeaveOneOut


def write_rows(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in records))
    return str(path)


@pytest.mark.slow
def test_two_ranks_train_the_same_adapters(tmp_path: Path) -> None:
    arguments = [
        "task=visurf",
        "model=random-tiny",
        "model.lora.rank=2",
        "steps=2",
        "eval.before=false",
        "eval.after=false",
    ]
    arguments += [
        "task.prompts_per_step=4",
        "task.num_generations=2",
        "task.sampling.max_tokens=6",
        "log.progress=false",
        "optim.max_grad_norm=0",
    ]
    one_rank, two_ranks = tmp_path / "one", tmp_path / "two"
    assert cli.main(["train", *arguments, f"out={one_rank}"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "mmpost.cli"]
    subprocess.run([*torchrun, "train", *arguments, f"out={two_ranks}"], check=True, timeout=300)
    for a, b in zip(*(lines(r) for r in (one_rank, two_ranks)), strict=True):
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
        assert b["reward/total"] == pytest.approx(a["reward/total"], rel=1e-6)


def test_a_resolved_configuration_can_be_overridden(tmp_path: Path) -> None:
    mmpost.train(GROUPS, out=str(tmp_path / "a"))
    mmpost.train(f"config={tmp_path / 'a' / 'config.yaml'}", optim={"lr": 0.5, "warmup": 0}, out=str(tmp_path / "b"))
    assert lines(tmp_path / "b")[-1]["lr"] == 0.5


def test_a_run_as_model_brings_its_recipe_and_task_settings(tmp_path: Path) -> None:
    settings = run_config.merge(GROUPS, {"model": {"system": "be brief"}})
    mmpost.train(settings, out=str(tmp_path / "a"))
    run, _ = run_config.load(["task=visurf", f"model={tmp_path / 'a'}"])
    assert run.model.system == "be brief"
    assert run.task["sampling"]["max_tokens"] == 4
    assert run.optim.lr == run_config.load(["task=visurf", "model=tiny"])[0].optim.lr
    scores = mmpost.evaluate(task="visurf", model=str(tmp_path / "a"), eval={"max_samples": 2})["scores"]
    assert scores == json.loads((tmp_path / "a" / "summary.json").read_text())["eval_after"]


def test_sft_learns_chosen_replies_and_refuses_rows_without_a_reply(tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", {"query": "1 + 1?", "chosen": "2", "rejected": "3"})
    mmpost.train(QUICK, task={"name": "sft", "prompts_per_step": 1}, data={"train": pairs}, out=str(tmp_path / "a"))
    logged = [
        json.loads(line) for file in (tmp_path / "a/samples").glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert {row["text"] for row in logged} == {"2"}
    without_reply = write_rows(tmp_path / "bare.jsonl", {"query": "1 + 1?"})
    with pytest.raises(DataError, match=r"bare.jsonl:1: wanted a reply to learn"):
        mmpost.train(QUICK, task="sft", data={"train": without_reply}, out=str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("arguments", "transform"),
    [
        ([], GroupAdvantage()),
        (["task.policy.loss_type=rloo"], LeaveOneOut()),
        (["task.policy.loss_type=dr_grpo"], GroupAdvantage(scale="none")),
        (["task.advantage.scale=batch"], GroupAdvantage(scale="batch")),
        (["task.advantage.baseline=true"], GlobalWhiten(baseline=True)),
    ],
)
def test_a_loss_type_sets_its_published_advantages(arguments: list[str], transform: Any) -> None:
    task = make_task(run_config.load(["task=visurf", *arguments])[0])
    stage = next(iter(task.stages()))
    assert transform in stage.transforms
    if arguments == ["task.policy.loss_type=dr_grpo"]:
        assert stage.objective.max_tokens == 96  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "argument", ["task.num_iterations=0", "task.num_generations=0", "task.minibatches=0", "task.prompts_per_step=0"]
)
def test_counts_of_zero_are_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "task=visurf", "model=random-tiny", argument]) == 1
    assert f"{argument.partition('=')[0]}: input should be greater than or equal to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=tinny"], "did you mean tiny?"),
        (["model=random-foo"], "no such architecture; available: astrom3, tiny"),
        (["model=7"], "model=7: wanted a multimodal chat model"),
        (["model=random-tiny", "model.freeze=[vison]"], "this model has"),
        (["model=random-tiny", "model.freeze=[vision,projector,language,head]"], "nothing trains"),
        (["model=random-tiny", "optim.lr_multipliers={hed: 1}"], "optim.lr_multipliers names the parts ['hed']"),
    ],
)
def test_an_invalid_model_is_refused_before_the_run_starts(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "task=visurf", *arguments, f"out={tmp_path / 'x'}"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_names_and_paths_are_text_and_numbers_are_decimal(tmp_path: Path) -> None:
    assert run_config.load(["task=visurf", "out=0123"])[1] == {"out": "0123"}
    assert run_config.load(["task=visurf", "out=a #1"])[1] == {"out": "a #1"}
    assert run_config.load(["task=visurf", {"out": None}])[1] == {}
    assert run_config.load(["task=visurf", "seed=010"])[0].seed == 10
    with pytest.raises(ConfigError, match=r"task\.sampling\.max_toknes; did you mean task\.sampling\.max_tokens"):
        make_task(run_config.load(["task=visurf", "task.sampling.max_toknes=3"])[0])


def test_training_continues_from_adapters(tmp_path: Path) -> None:
    settings = run_config.merge(GROUPS, {"model": {"lora": {"rank": 2}}})
    mmpost.train(settings, out=str(tmp_path / "a"))
    continued = run_config.merge(GROUPS, {"model": {"name": str(tmp_path / "a")}})
    mmpost.train(continued, out=str(tmp_path / "b"))
    assert lines(tmp_path / "b")[-1]["grad_norm"] > 0


def test_duplicate_samples_get_different_replies(tiny_folder: str) -> None:
    from mmpost.data.worlds.digits.scenes import Scenes
    from mmpost.rollout.local import LocalRollout
    from mmpost.types import Sampling

    torch.manual_seed(0)
    sample = Scenes(n=1)[0]
    generated = LocalRollout(mmpost.load(tiny_folder, device="cpu")).generate(
        [sample, sample], 1, Sampling(max_tokens=8), 0
    )
    assert generated[0].replies[0].token_ids != generated[1].replies[0].token_ids
