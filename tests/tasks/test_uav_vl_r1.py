"""UAV-VL-R1: the order of its stages, their initial weights and reference; a single stage equals plain GRPO."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import metrics, same_weights, weights

import mmpost
from mmpost.config import run_config
from mmpost.data.sources.curriculum import Curriculum
from mmpost.data.worlds.aerial.questions import TYPES, Aerial
from mmpost.methods.policy_gradient import PolicyGradientTask
from mmpost.rewards.text import think_format
from mmpost.tasks.uav_vl_r1 import UavVlR1
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Stage

SETTINGS: dict[str, Any] = {
    "task": {
        "name": "uav_vl_r1",
        "curriculum": {"A": ["color", "shape"], "B": ["number"], "C": ["scene"]},
        "prompts_per_step": 4,
        "num_generations": 2,
        "scenes": 40,
        "sft_fraction": 0.25,
        "bench_scenes": 8,
        "replay": 0.5,
        "sampling": {"max_tokens": 4},
        "policy": {"beta": 0.1},
        # Otherwise all replies of a model with random weights score the same.
        "weights": {"format": 1.0},
    },
    "rewards": {"length": f"{Path(__file__)}:letters"},
    "model": "random-tiny-aerial",
    "optim": {"lr": 1e-3},
    "eval": {"before": False, "after": False, "max_samples": 8},
    "log": {"progress": False, "tensorboard": False, "probe_every": 0},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 8,
}


def letters(sample: Any, reply: Reply) -> float:
    """A reward that differs between random replies."""
    return float(len(reply.text))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    mmpost.train(**SETTINGS, out=str(out))
    return out


def question_types(run: Path) -> dict[int, set[str]]:
    """Question types of the samples of each step."""
    types_of_step = {}
    for file in sorted((run / "samples").glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        types_of_step[int("".join(c for c in file.stem if c.isdigit()))] = {
            line["uid"].partition("~")[0].rsplit("-", 1)[1] for line in lines
        }
    return types_of_step


def test_no_stage_trains_on_question_types_of_later_stages(finished_run: Path) -> None:
    stages = {line["step"]: line["stage"] for line in metrics(finished_run)}
    assert list(stages.values()) == ["sft"] * 2 + ["A"] * 2 + ["B"] * 2 + ["C"] * 2
    types_of_step = question_types(finished_run)
    allowed = {"A": {"color", "shape"}, "B": {"color", "shape", "number"}, "C": {"color", "shape", "number", "scene"}}
    assert all(types_of_step[step] <= allowed[stage] for step, stage in stages.items() if stage != "sft")
    assert "number" in types_of_step[5] | types_of_step[6]
    assert "scene" in types_of_step[7] | types_of_step[8]
    assert (types_of_step[5] | types_of_step[6]) & {"color", "shape"}, "replay"


def test_resuming_within_a_stage_does_not_repeat_an_earlier_one(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished_run, out, symlinks=True)
    shutil.rmtree(out / "samples")
    mmpost.train(resume=str(out / "checkpoints" / "step-5"))
    assert {line["stage"] for line in metrics(out) if line["step"] > 5} == {"B", "C"}
    assert question_types(out) == {step: types for step, types in question_types(finished_run).items() if step > 5}
    assert same_weights(out, finished_run)
    assert metrics(out) == metrics(finished_run)


def test_the_supervised_model_is_the_reference_of_all_stages(finished_run: Path) -> None:
    def reference_weights(step: int) -> dict[str, torch.Tensor]:
        file = finished_run / "checkpoints" / f"step-{step}" / "trainer" / "tensors.pt"
        return torch.load(file, weights_only=True)["kept"]["reference"]

    after_sft = finished_run / "checkpoints" / "step-2"
    from safetensors.torch import load_file

    sft = load_file(after_sft / "model.safetensors")
    for step in (3, 4, 5, 8):
        reference = reference_weights(step)
        assert len(reference) == len(sft)
        assert all(any(torch.equal(p, w) for w in sft.values()) for p in list(reference.values())[:3])
        assert all(torch.equal(p, q) for p, q in zip(reference.values(), reference_weights(3).values(), strict=True))
    assert not all(torch.equal(w, sft[name]) for name, w in weights(finished_run).items())


class PlainGrpo(PolicyGradientTask):
    """GRPO on the same questions, without a curriculum."""

    scenes: int = 40
    """Number of scenes."""

    def stages(self) -> Iterator[Stage]:
        source = Curriculum(Aerial("train", TYPES, self.scenes), {"all": TYPES})
        accuracy = UavVlR1().accuracy
        yield self.rl_stage("all", source, Score(rewards={"accuracy": accuracy, "format": think_format}))


def test_one_stage_with_all_types_is_plain_grpo(tmp_path: Path) -> None:
    task = {**SETTINGS["task"], "curriculum": {"all": list(TYPES)}, "sft_fraction": 0.0}
    # The plain task has no configuration file: both runs get the settings of configs/uav_vl_r1.yaml.
    optim = {**SETTINGS["optim"], "betas": [0.9, 0.99], "warmup": 0}
    settings = {**SETTINGS, "task": task, "optim": optim, "steps": 2}
    mmpost.train(**settings, out=str(tmp_path / "staged"))
    shared = ("prompts_per_step", "num_generations", "scenes", "sampling", "policy")
    plain = {"name": str(Path(__file__)), **{name: task[name] for name in shared}}
    mmpost.train(**{**settings, "task": plain}, out=str(tmp_path / "plain"))
    assert same_weights(tmp_path / "staged", tmp_path / "plain")
    # The plain task does not count unparseable replies.
    without_parse_rate = [
        {k: v for k, v in line.items() if "unparseable" not in k} for line in metrics(tmp_path / "staged")
    ]
    assert without_parse_rate == metrics(tmp_path / "plain")
    assert any(line["grad_norm"] for line in metrics(tmp_path / "plain"))


def test_the_stages_and_their_settings() -> None:
    task = UavVlR1()
    stages = {stage.name: stage for stage in task.stages()}
    assert list(stages) == ["sft", "attributes", "objects", "spatial"]
    assert [stage.reference for stage in stages.values()] == ["", "sft", "sft", "sft"]
    assert abs(sum(stage.fraction for stage in stages.values()) - 1) < 1e-9
    assert [s.name for s in UavVlR1(mixed=True).stages()] == ["sft", "mixed"]
    assert {k for types in task.curriculum.values() for k in types} == set(TYPES)
    sample = stages["sft"].source[0]
    for gold in task.gold():
        replies = (Reply((Part("text", str(gold.text(sample)), "assistant"),)),)
        score = next(t for t in stages["attributes"].transforms if isinstance(t, Score))
        rewards = [sum(f(sample, r) or 0.0 for f in score.rewards.values()) for r in replies]
        assert rewards == [gold.reward]
    with_cot = sample.__class__("c", sample.prompt, truth="red", meta={"task": "color", "cot": "It is red."})
    assert task.answer(with_cot) == "<think>It is red.</think><answer>red</answer>"


def test_every_evaluation_reports_every_stage(tmp_path: Path) -> None:
    settings = run_config.merge(
        SETTINGS, {"steps": 1, "eval": {"after": True, "max_samples": 0}, "task": {"sft_fraction": 1.0}}
    )
    summary = mmpost.train(**settings, out=str(tmp_path / "run"))
    metric_names = set(summary["eval_after"])
    assert {f"questions/stage/{name}" for name in "ABC"} <= metric_names
    assert {f"questions/type/{name}" for name in ("color", "shape", "number", "scene")} <= metric_names
    assert {"questions/accuracy", "questions/format", "questions/no_answer"} <= metric_names
