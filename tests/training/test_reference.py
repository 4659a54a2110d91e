"""A stage's reference: the end of an earlier stage or a model stays what it was, over stages, steps and resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from small_runs import metrics, same_weights

import mmpost
from mmpost.config import run_config
from mmpost.config.settings import Settings
from mmpost.data.worlds.digits.scenes import Scenes, answer_text
from mmpost.edits.freeze import Freeze
from mmpost.errors import ConfigError
from mmpost.objectives.likelihood import Likelihood
from mmpost.training import reference
from mmpost.training.context import TrainingContext
from mmpost.transforms.generate import ReplyFromTruth
from mmpost.types import Context, Model, Sample, Stage, Task, Transform

HERE = str(Path(__file__))
SETTINGS: dict[str, Any] = {
    "task": {"name": HERE},
    "model": "random-tiny",
    "optim": {"lr": 1e-3},
    "eval": {"before": False, "after": False},
    "log": {"progress": False, "tensorboard": False, "probe_every": 0},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 6,
}
PROBE = Scenes("test", ("single",), n=2, none=0)


def label(sample: Sample) -> str:
    return answer_text(sample.truth, thought="look")


class Watch(Transform, Settings):
    """Log the mean log-prob of fixed replies, under the policy and under the reference."""

    requires_reference: ClassVar[bool] = True

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        # As if they were sampled: what is read from the file of kept log-probs would show nothing.
        fixed = [Sample(s.uid, s.prompt, (context.encode_reply(label(s), "policy"),)) for s in PROBE]
        for of in ("policy", "reference"):
            rows = [x for s in context.logp(fixed, of) for row in s for x in row]
            context.log(f"at/{of}", sum(rows) / len(rows))
        return samples


class Staged(Task):
    """Three stages of supervised learning that look at a reference."""

    refers: str = "first"
    """Reference of the later stages."""
    late: bool = False
    """The vision tower does not train before the second stage."""
    first: float = 1.0
    """Share of the first stage."""

    def stages(self) -> Iterator[Stage]:
        edits = {"first": (Freeze(("vision",)),), "second": (thaw,)} if self.late else {}
        for i, name in enumerate(("first", "second", "third")):
            yield Stage(
                name,
                Scenes("train", ("single",), n=8, seed=i),
                Likelihood(),
                batch_size=2,
                transforms=(Watch(), ReplyFromTruth(text=label)) if i else (ReplyFromTruth(text=label),),
                fraction=1.0 if i else self.first,
                edits=edits.get(name, ()),
                reference=self.refers if i else "",
            )


def thaw(model: Model) -> None:
    for p in model.module.parameters():
        p.requires_grad_(True)


def run(out: Path, **task: Any) -> list[dict[str, Any]]:
    mmpost.train(**run_config.merge(SETTINGS, {"task": task}), out=str(out))
    return metrics(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


def test_an_earlier_stage_stays_the_reference_over_the_stages_after_it(whole: Path) -> None:
    lines = [line for line in metrics(whole) if "at/reference" in line]
    assert [line["stage"] for line in lines] == ["second"] * 2 + ["third"] * 2
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"], "the second stage starts from the end of the first"
    assert len({line["at/policy"] for line in lines}) == 4


def test_without_a_name_it_is_the_start_of_each_stage(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", refers="") if "at/reference" in line]
    assert [line["at/reference"] == line["at/policy"] for line in lines] == [True, False, True, False]


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_going_on_keeps_it_to_the_bit(step: int, whole: Path, tmp_path: Path) -> None:
    """From the last step of the stage it names, within the next, at a boundary, and within the last."""
    out = tmp_path / "run"
    shutil.copytree(whole, out, symlinks=True)
    mmpost.train(resume=str(out / "checkpoints" / f"step-{step}"))
    assert same_weights(out, whole)
    assert metrics(out) == metrics(whole)


def test_a_stage_without_steps_ends_where_it_stands(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", first=0.0) if "at/reference" in line]
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"]
    assert lines[0]["step"] == 1


def test_what_begins_to_train_later_is_pinned_too(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", late=True) if "at/reference" in line]
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"]


def test_a_model_is_a_reference(whole: Path, tmp_path: Path) -> None:
    first = whole / "checkpoints" / "step-2"
    lines = [line for line in run(tmp_path / "run", refers=str(first)) if "at/reference" in line]
    assert {line["at/reference"] for line in lines} == {metrics(whole)[2]["at/reference"]}
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / "trainer" / "tensors.pt", weights_only=True)
    assert list(state["kept"]) == ["reference"]


def test_a_pinned_stage_costs_its_weights_once(whole: Path) -> None:
    file = "trainer/tensors.pt"
    sizes = {n: (whole / "checkpoints" / f"step-{n}" / file).stat().st_size for n in (2, 3)}
    weights = (whole / "checkpoints" / "last" / "model.safetensors").stat().st_size
    assert 0.9 * weights < sizes[3] - sizes[2] < 1.1 * weights
    assert json.loads((whole / "summary.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        ({"refers": "third"}, {}, "found 'third', which has not ended by then"),
        ({"refers": "random-tiny"}, {"model": {"lora": {"rank": 2}}}, "no adapters"),
        ({"refers": "OTHER"}, {"model": {"freeze": ["vision"]}}, "agrees with the trained model in all frozen weights"),
    ],
)
def test_what_cannot_be_a_reference_is_refused(
    task: dict[str, Any], settings: dict[str, Any], said: str, whole: Path, tmp_path: Path
) -> None:
    if task["refers"] == "OTHER":
        task = {"refers": str(whole / "checkpoints" / "step-2")}
    settings = run_config.merge(SETTINGS, {"task": task, **settings})
    with pytest.raises(ConfigError, match=said):
        mmpost.train(**settings, out=str(tmp_path / "run"))


def test_a_reference_that_follows_moves_a_share_of_the_way_when_it_is_time() -> None:
    class Asks(Transform):
        requires_reference = True

        def __call__(self, samples: list[Sample], context: object) -> list[Sample]:
            return samples

    module = torch.nn.Linear(1, 1)
    job = TrainingContext(SimpleNamespace(module=module), None, 0)  # type: ignore[arg-type]
    torch.nn.init.constant_(module.weight, 1.0)
    job.snapshot_weights("reference")
    torch.nn.init.constant_(module.weight, 2.0)
    stage = Stage("s", [], None, 1, (Asks(),), reference_sync=(2, 0.6))
    seen = []
    for done in (1, 2, 3, 4):
        reference.sync(job, stage, done)
        seen.append(round(job.snapshots["reference"]["weight"].item(), 6))
    assert seen == [1.0, 1.6, 1.6, 1.84]
    reference.sync(job, replace(stage, reference_sync=None), 6)
    assert job.snapshots["reference"]["weight"].item() == pytest.approx(1.84)
