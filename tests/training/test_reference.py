"""Stage references: an earlier stage or another model as reference stays fixed over stages, steps and resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from small_runs import metrics, resume_copy, same_weights

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

THIS_FILE = str(Path(__file__))
SETTINGS: dict[str, Any] = {
    "task": {"name": THIS_FILE},
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


class LogReference(Transform, Settings):
    """Logs the mean log-prob of fixed replies under policy and reference."""

    requires_reference: ClassVar[bool] = True

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        # Origin "policy" bypasses the cache of reference log-probs.
        fixed = [Sample(s.uid, s.prompt, (context.encode_reply(label(s), "policy"),)) for s in PROBE]
        for of in ("policy", "reference"):
            rows = [x for s in context.logp(fixed, of) for row in s for x in row]
            context.log(f"at/{of}", sum(rows) / len(rows))
        return samples


class Staged(Task):
    """Three supervised stages with a reference."""

    refers: str = "first"
    """Reference of the later stages."""
    late: bool = False
    """The vision encoder is frozen in the first stage."""
    first: float = 1.0
    """Fraction of the first stage."""

    def stages(self) -> Iterator[Stage]:
        edits = {"first": (Freeze(("vision",)),), "second": (thaw,)} if self.late else {}
        for i, name in enumerate(("first", "second", "third")):
            yield Stage(
                name,
                Scenes("train", ("single",), n=8, seed=i),
                Likelihood(),
                batch_size=2,
                transforms=(LogReference(), ReplyFromTruth(text=label)) if i else (ReplyFromTruth(text=label),),
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
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


def test_an_earlier_stage_remains_the_reference_of_later_stages(finished_run: Path) -> None:
    lines = [line for line in metrics(finished_run) if "at/reference" in line]
    assert [line["stage"] for line in lines] == ["second"] * 2 + ["third"] * 2
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"], "the second stage starts from the end of the first"
    assert len({line["at/policy"] for line in lines}) == 4


def test_an_unnamed_reference_is_the_start_of_each_stage(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", refers="") if "at/reference" in line]
    assert [line["at/reference"] == line["at/policy"] for line in lines] == [True, False, True, False]


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_resuming_keeps_the_reference_bit_for_bit(step: int, finished_run: Path, tmp_path: Path) -> None:
    """Resumes at the last step of the reference stage, within the next, at a stage boundary, and within the last."""
    out = resume_copy(finished_run, step, tmp_path / "run")
    assert same_weights(out, finished_run)
    assert metrics(out) == metrics(finished_run)


def test_a_stage_without_steps_keeps_its_weights(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", first=0.0) if "at/reference" in line]
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"]
    assert lines[0]["step"] == 1


def test_parameters_unfrozen_later_are_part_of_the_reference(tmp_path: Path) -> None:
    lines = [line for line in run(tmp_path / "run", late=True) if "at/reference" in line]
    assert len({line["at/reference"] for line in lines}) == 1
    assert lines[0]["at/reference"] == lines[0]["at/policy"]


def test_another_model_can_be_the_reference(finished_run: Path, tmp_path: Path) -> None:
    first = finished_run / "checkpoints" / "step-2"
    lines = [line for line in run(tmp_path / "run", refers=str(first)) if "at/reference" in line]
    assert {line["at/reference"] for line in lines} == {metrics(finished_run)[2]["at/reference"]}
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / "trainer" / "tensors.pt", weights_only=True)
    assert list(state["kept"]) == ["reference"]


def test_a_pinned_reference_is_stored_once(finished_run: Path) -> None:
    file = "trainer/tensors.pt"
    sizes = {n: (finished_run / "checkpoints" / f"step-{n}" / file).stat().st_size for n in (2, 3)}
    weights = (finished_run / "checkpoints" / "last" / "model.safetensors").stat().st_size
    assert 0.9 * weights < sizes[3] - sizes[2] < 1.1 * weights
    assert json.loads((finished_run / "summary.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ({"refers": "third"}, {}, "found 'third', which has not ended by then"),
        ({"refers": "random-tiny"}, {"model": {"lora": {"rank": 2}}}, "no adapters"),
        ({"refers": "OTHER"}, {"model": {"freeze": ["vision"]}}, "agrees with the trained model in all frozen weights"),
    ],
)
def test_an_invalid_reference_is_refused(
    task: dict[str, Any], settings: dict[str, Any], message: str, finished_run: Path, tmp_path: Path
) -> None:
    if task["refers"] == "OTHER":
        task = {"refers": str(finished_run / "checkpoints" / "step-2")}
    settings = run_config.merge(SETTINGS, {"task": task, **settings})
    with pytest.raises(ConfigError, match=message):
        mmpost.train(**settings, out=str(tmp_path / "run"))


def test_a_synced_reference_is_mixed_by_tau_every_n_steps() -> None:
    class NeedsReference(Transform):
        requires_reference = True

        def __call__(self, samples: list[Sample], context: object) -> list[Sample]:
            return samples

    module = torch.nn.Linear(1, 1)
    run_context = TrainingContext(SimpleNamespace(module=module), None, 0)  # type: ignore[arg-type]
    torch.nn.init.constant_(module.weight, 1.0)
    run_context.snapshot_weights("reference")
    torch.nn.init.constant_(module.weight, 2.0)
    stage = Stage("s", [], None, 1, (NeedsReference(),), reference_sync=(2, 0.6))
    weights = []
    for done in (1, 2, 3, 4):
        reference.sync(run_context, stage, done)
        weights.append(round(run_context.snapshots["reference"]["weight"].item(), 6))
    assert weights == [1.0, 1.6, 1.6, 1.84]
    reference.sync(run_context, replace(stage, reference_sync=None), 6)
    assert run_context.snapshots["reference"]["weight"].item() == pytest.approx(1.84)
