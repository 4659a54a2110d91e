"""Runs and their folders, on the tiny model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import GROUPS, lines
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmpost
from mmpost.config import run_config
from mmpost.errors import ConfigError

SMALL = run_config.merge(
    GROUPS,
    {
        "task": {"prompts_per_step": 4, "num_generations": 3, "sampling": {"max_tokens": 12}},
        "eval": {"max_samples": 8},
        "steps": 4,
    },
)
REQUIRED_METRICS = {"step", "stage", "rollout", "loss", "grad_norm", "lr", "time/step", "time/train"}
ROLLOUT_METRICS = {
    *("reward/total", "reward/think_format", "reward/zero_std_groups", "reply/length", "reply/truncated", "entropy"),
    *("reply/unparseable", "data/unparseable_gold", "time/rollout", "time/score"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn_curves: None) -> Path:
    """A run with two stages, a KL term and intermediate evaluations, in a folder with a space in its name."""
    out = tmp_path_factory.mktemp("a folder") / "of runs"
    changes = {"task": {"sft_fraction": 0.5, "policy": {"beta": 0.1}}, "eval": {"every": 2}, "checkpoint": {"every": 1}}
    mmpost.train(**run_config.merge(SMALL, changes), out=str(out))
    return out


def test_the_run_folder_has_the_documented_files(run: Path) -> None:
    names = {"config.yaml", "metrics.jsonl", "samples", "checkpoints", "summary.json", "curves.png", "tensorboard"}
    assert names <= {p.name for p in run.iterdir()}
    checkpoints = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert checkpoints == ["best", "last", "step-2", "step-3", "step-4"]
    assert (run / "checkpoints" / "last").resolve().name == "step-4"
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_every_step_has_a_line_of_metrics(run: Path) -> None:
    metrics = lines(run)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert [line["stage"] for line in metrics] == ["sft", "sft", "rl", "rl"]
    for line in metrics:
        assert line.keys() >= REQUIRED_METRICS
        assert None not in line.values()
    assert {*ROLLOUT_METRICS, "kl"} <= metrics[3].keys()
    assert not ROLLOUT_METRICS & (metrics[0].keys() - {"entropy"})
    assert "eval/target/f1" in metrics[1]
    assert metrics[2]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[3]["kl"] > 0


def test_the_summary_describes_the_run(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["seed"]) == ("done", 4, 0)
    assert {"value", "n", "low", "high"} == summary["eval_before"]["target/f1"].keys()
    assert summary["eval_after"].keys() == summary["eval_before"].keys()
    assert "target/f1" in summary["eval_best"]
    assert len(summary["base_hash"]) == 64
    assert torch.__version__.startswith(summary["versions"]["torch"])


def test_the_samples_log_has_every_reply_with_its_scores(run: Path) -> None:
    files = sorted((run / "samples").glob("*.jsonl"))
    assert len(files) == 4
    replies = [json.loads(line) for line in files[-1].read_text().splitlines()]
    assert len(replies) == 4 * (3 + 1)
    assert {r["origin"] for r in replies} == {"policy", "truth"}
    assert all("reward" in r["columns"] and "advantage" in r["columns"] for r in replies)
    assert len(list((run / "samples" / "media").iterdir())) >= 8


def test_a_checkpoint_generates_the_same_in_transformers_as_in_eval(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "last"
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    model_of_run = mmpost.load(str(run), device="cpu")
    from mmpost.data.worlds.digits.scenes import Scenes
    from mmpost.models.chat.model import ChatModel
    from mmpost.rollout.local import LocalRollout
    from mmpost.types import Sampling

    samples = [Scenes("test", ("largest",), n=4)[i] for i in range(4)]
    answers = LocalRollout(model_of_run).generate(samples, 1, Sampling(max_tokens=12, temperature=0), seed=0)
    for sample in answers:
        text = [{"type": "text", "text": p.value} for p in sample.prompt if p.modality == "text"]
        messages = [{"role": "user", "content": [{"type": "image"}, *text]}]
        prompt_text = processor.apply_chat_template(messages, add_generation_prompt=True)
        assert isinstance(model_of_run, ChatModel)
        image = model_of_run.prompt.medium(sample.prompt[0]).open()
        inputs = processor(text=[prompt_text], images=[image], return_tensors="pt")
        banned = list(model_of_run.recipe.banned)
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False, suppress_tokens=banned)
        assert tuple(out[0, inputs["input_ids"].shape[1] :].tolist()) == sample.replies[0].token_ids


def test_the_resolved_configuration_reproduces_the_run(run: Path, tmp_path: Path) -> None:
    mmpost.train(f"config={run / 'config.yaml'}", f"out={tmp_path / 'again'}")
    ignored = ("time/", "loss")
    for a, b in zip(lines(run), lines(tmp_path / "again"), strict=True):
        assert {k: v for k, v in a.items() if not k.startswith(ignored)} == {
            k: v for k, v in b.items() if not k.startswith(ignored)
        }
    first, second = (
        torch.load(r / "checkpoints/last/trainer/tensors.pt", weights_only=True) for r in (run, tmp_path / "again")
    )
    assert first["update"]["done"] == second["update"]["done"]


def test_evaluating_a_run_reproduces_its_summary(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = mmpost.evaluate(task=SMALL["task"], model=str(run), eval={"max_samples": 8})
    assert "target/f1" in capsys.readouterr().out
    assert json.loads((run / "eval.json").read_text()) == result
    assert result["scores"] == json.loads((run / "summary.json").read_text())["eval_after"]


def test_other_tasks_are_evaluated_under_their_names(run: Path, tmp_path: Path) -> None:
    tasks = {"kept": {"task": "visurf", "benches": ["old"]}, "new": {"task": "visurf"}}
    out = tmp_path / "out"
    result = mmpost.evaluate(task=SMALL["task"], model=str(run), eval={"max_samples": 8, "tasks": tasks}, out=str(out))
    scores = json.loads((run / "summary.json").read_text())["eval_after"]
    expected = {f"kept/{name}": score for name, score in scores.items() if name.startswith("old/")}
    assert result["scores"] == {**expected, **{f"new/{name}": score for name, score in scores.items()}}


def test_a_non_empty_folder_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        mmpost.train(**SMALL, out=str(run))


def test_settings_of_an_unknown_stage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.sft: the task has the stages \['rl'\]"):
        mmpost.train(**SMALL, stages={"sft": {"fraction": 1.0}}, out=str(tmp_path / "x"))


def test_several_updates_on_a_rollout_batch(tmp_path: Path) -> None:
    task = {"num_iterations": 2, "minibatches": 2, "max_resample_times": 2}
    mmpost.train(**run_config.merge(SMALL, {"task": task}), out=str(tmp_path / "x"))
    metrics = lines(tmp_path / "x")
    assert [line["rollout"] for line in metrics] == [1, 1, 1, 1]
    assert metrics[0]["policy/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics[3]["policy/ratio"] != 1.0


def test_a_failed_run_records_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpost.training import trainer

    def broken(*args: Any) -> None:
        raise RuntimeError("the power went out")

    monkeypatch.setattr(trainer, "optimizer_step", broken)
    with pytest.raises(RuntimeError, match="the power went out"):
        mmpost.train(**SMALL, out=str(tmp_path / "x"))
    summary = json.loads((tmp_path / "x" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the power went out" in summary["reason"]
