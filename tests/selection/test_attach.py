"""Data selection: as a stage of a run, from a manifest, at random; and `mmpost select`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import command
from safetensors.torch import load_file

import mmpost
from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError, DataError
from mmpost.runs import base_models
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.selection.attach import measuring_stage
from mmpost.selection.selectors import InstanceFilter
from mmpost.studies.study import Study
from mmpost.training.stage_checks import check_stages
from mmpost.types import Gold, Stage

REWARDS = '''
from mmpost.selection.selectors import InstanceFilter


def even(sample, reply):
    return float(len(reply.text) % 2 == 0)


class Own(InstanceFilter):
    """A selector from elsewhere."""
'''
SMALL: dict[str, Any] = {
    "task": {
        **{
            "name": "visurf",
            "prompts_per_step": 4,
            "num_generations": 2,
            "scenes": 10,
            "inject": False,
            "sft_fraction": 0.5,
        },
        "sampling": {"max_tokens": 6},
    },
    "model": "random-tiny",
    "eval": {"max_samples": 2, "before": False, "after": False},
    "log": {"progress": False, "tensorboard": False},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 4,
}
SELECT = {"by": "rif", "k": 3, "score": "even", "max_correct": 2}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("selection")
    (place / "outside_even.py").write_text(REWARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        yield place
    sys.modules.pop("outside_even", None)


def settings(place: Path, **overrides: Any) -> dict[str, Any]:
    return run_config.merge(
        run_config.merge(SMALL, {"rewards": {"even": f"{place / 'outside_even.py'}:even"}}), overrides
    )


def stages(arguments: Mapping[str, Any]) -> list[Stage]:
    return ConfiguredTask.load(run_config.load([arguments])[0]).stages()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    """The output of `mmpost select`."""
    out = place / "chosen"
    mmpost.select(settings(place, task={"sft_fraction": 0.0}), by="rif", select=SELECT, out=str(out))
    return out


def test_the_command_writes_a_manifest_with_reasons(folder: Path, place: Path) -> None:
    first, *rows = lines(folder / "manifest.jsonl")
    assert [row["uid"] for row in rows] == [f"digits-train-0-{i}" for i in range(10)]
    for row in rows:
        right = sum(row["scores"]["even"])
        assert (row["k"], row["measured"]["right/even"]) == (3, right)
        assert row["verdict"] == ("keep" if 1 <= right <= 2 else "drop")
        assert row["policy"] == first["made"]["policy"]
    assert {row["verdict"] for row in rows} == {"keep", "drop"}
    assert len(rows[0]["policy"]) == 16
    assert "token_ids" in lines(folder / "measured.jsonl")[1]["replies"][0]


def test_measurements_are_reproducible_and_more_replies_extend_fewer(folder: Path, place: Path) -> None:
    arguments = settings(place, task={"sft_fraction": 0.0})
    mmpost.select(arguments, by="rif", select=SELECT, out=str(place / "again"))
    assert (place / "again" / "manifest.jsonl").read_bytes() == (folder / "manifest.jsonl").read_bytes()
    mmpost.select(arguments, by="rif", select={**SELECT, "k": 6, "max_correct": None}, out=str(place / "more"))
    fewer_replies, more_replies = (lines(f / "manifest.jsonl")[1:] for f in (folder, place / "more"))
    for a, b in zip(fewer_replies, more_replies, strict=True):
        assert b["scores"]["even"][:3] == a["scores"]["even"]
        assert b["verdict"] == "keep" or sum(a["scores"]["even"]) == 0


def test_an_interrupted_command_resumes(folder: Path, place: Path) -> None:
    out, file = place / "killed", place / "killed.yaml"
    file.write_text(
        parsing.dump(settings(place, task={"sft_fraction": 0.0, "prompts_per_step": 1, "scenes": 24}, select=SELECT))
    )
    process = command(["select", f"config={file}", f"out={out}"], place / "killed.log")
    measured = out / "measured.jsonl"
    for _ in range(6000):
        if process.poll() is not None or (measured.exists() and measured.read_bytes().count(b"\n") > 2):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = measured.read_bytes()
    assert 2 < written.count(b"\n") < 25, process.output()
    assert not (out / "manifest.jsonl").exists()
    measured.write_bytes(written[:-5])
    result = mmpost.select(f"config={file}", f"out={out}")
    assert result["samples"] == 24
    assert measured.read_bytes().startswith(written)
    mmpost.select(f"config={file}", f"out={out / 'whole'}")
    for name in ("measured.jsonl", "manifest.jsonl"):
        assert (out / name).read_bytes() == (out / "whole" / name).read_bytes()
    with pytest.raises(ConfigError, match=r"contains measurements that differ in .*seed \(was 0, now 1\)"):
        mmpost.select(f"config={file}", f"out={out}", seed=1)


@pytest.fixture(scope="module")
def finished_run(place: Path) -> Path:
    """A run that trains, measures with its own policy, and continues on the selected samples."""
    mmpost.train(settings(place, select=SELECT), out=str(place / "run"))
    return place / "run"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def test_a_run_measures_with_its_own_policy(finished_run: Path) -> None:
    metrics = lines(finished_run / "metrics.jsonl")
    assert [(line["step"], line["stage"]) for line in metrics] == [(1, "sft"), (2, "sft"), (3, "rl"), (4, "rl")]
    first, *verdicts = lines(finished_run / "manifests" / "select.verdicts.jsonl")
    assert "+" in first["made"]["policy"], "the weights have changed"
    kept_uids = {row["uid"] for row in verdicts if row["verdict"] == "keep"}
    assert 0 < len(kept_uids) < 10
    trained = [row["uid"] for step in (3, 4) for row in lines(finished_run / "samples" / f"step-{step:06d}.jsonl")]
    assert set(trained) <= kept_uids
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["made"] == {"select": {"samples": 10, "lost": 0, "kept": len(kept_uids)}}


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resuming_a_run_with_a_measuring_stage_is_bit_identical(step: int, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, symlinks=True)
    file = run / "manifests" / "select.jsonl"
    expected = file.read_bytes()
    if step < 3:  # as if killed while measuring
        file.write_bytes(expected[: len(expected) // 2])
    mmpost.train(resume=str(run / "checkpoints" / f"step-{step}"))
    assert file.read_bytes() == expected
    a, b = weights(run), weights(finished_run)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_recording_that_changed_since_the_checkpoint_is_refused(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, symlinks=True)
    file = run / "manifests" / "select.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"even": 1.0', b'"even": 0.0', 1))
    with pytest.raises(ConfigError, match="wanted the recording of stage 'select' at the checkpoint, found another"):
        mmpost.train(resume=str(run / "checkpoints" / "step-3"))


def test_a_run_stopped_while_measuring_saves_and_resumes(
    finished_run: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmpost.rollout.local import LocalRollout

    run = tmp_path / "run"
    generate, calls = LocalRollout.generate, []

    def stopped(self: Any, samples: Sequence[Any], n: int, *overrides: Any) -> Any:
        calls.append(n)
        if calls.count(SELECT["k"]) == 2:
            signal.raise_signal(signal.SIGTERM)
        return generate(self, samples, n, *overrides)

    with monkeypatch.context() as patch:
        patch.setattr(LocalRollout, "generate", stopped)
        summary = mmpost.train(settings(place, select=SELECT), out=str(run))
    assert (summary["status"], summary["steps"]) == ("stopped", 2)
    assert len(lines(run / "manifests" / "select.jsonl")) == 1 + 8
    assert mmpost.train(resume=str(run))["status"] == "done"
    a, b = weights(run), weights(finished_run)
    assert all(torch.equal(a[name], b[name]) for name in a)


# Selection of sources, without a model.


def uids(stage: Stage) -> list[str]:
    return [s.uid for s in stage.source]


def test_a_manifest_filters_the_source_of_any_stage(folder: Path, place: Path) -> None:
    keep = [row["uid"] for row in lines(folder / "manifest.jsonl")[1:] if row["verdict"] == "keep"]
    drop = [row["uid"] for row in lines(folder / "manifest.jsonl")[1:] if row["verdict"] == "drop"]
    data = {"manifest": str(folder)}
    for stage in stages(settings(place, data=data)):
        assert uids(stage) == keep
        assert stage.order == "shuffled"
    [sft, rl] = stages(settings(place, data={**data, "subset": "dropped", "order": "manifest"}))
    assert uids(sft) == uids(rl) == drop
    assert rl.order == "given"
    random = [uids(stages(settings(place, data={**data, "subset": "random"}, seed=n))[1]) for n in (0, 0, 1)]
    assert random[0] == random[1] != random[2]
    assert {len(result) for result in random} == {len(keep)}
    assert len(uids(stages(settings(place, data={**data, "max_samples": 1}))[1])) == 1
    assert len(uids(stages(settings(place, data={"max_samples": 4}))[1])) == 4


def test_a_handwritten_manifest_in_its_own_order(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    names = [f"digits-train-0-{i}" for i in (7, 2, 5)]
    file.write_text("".join(json.dumps({"uid": name}) + "\n" for name in names))
    assert uids(stages(settings(place, data={"manifest": str(file), "order": "manifest"}))[1]) == names


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ('{"uid": "digits-train-0-1"}\n{"uid": "elsewhere"}', {}, r"1 \('elsewhere'\) of 2 uids are not in the data"),
        ('{"made": {}}\n{"id": 3}', {}, r"manifest.jsonl:2: wanted a JSON object with a uid"),
        ('{"uid": "a", "verdict": "yes"}', {}, r"manifest.jsonl:1: wanted a verdict of keep or drop, found 'yes'"),
        ('{"uid": "a"}\n{"uid": "a"}', {}, r"manifest.jsonl:2: wanted each uid once"),
        ('{"uid": "digits-train-0-1"}', {"subset": "dropped", "max_samples": 0}, ""),
    ],
)
def test_an_invalid_manifest_is_refused(
    text: str, data: dict[str, Any], message: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifest.jsonl").write_text(text + "\n")
    arguments = settings(place, data={"manifest": str(tmp_path), **data})
    if message:
        with pytest.raises(DataError, match=message):
            stages(arguments)
    else:
        assert len(stages(arguments)[1].source) == 9


def test_a_manifest_of_other_data_is_refused(folder: Path, place: Path) -> None:
    with pytest.raises(DataError, match=r"made from other data: 2 \('digits-train-0-10', 'digits-train-0-11'\) of 12"):
        stages(settings(place, data={"manifest": str(folder)}, task={"scenes": 12}))
    with pytest.raises(DataError, match=r"2 \('digits-train-0-8', 'digits-train-0-9'\) of 10 uids are not in the data"):
        stages(settings(place, data={"manifest": str(folder)}, task={"scenes": 8}))
    with pytest.raises(DataError, match=r"no such file; `mmpost select"):
        stages(settings(place, data={"manifest": str(place / "nowhere.jsonl")}))


def test_filtering_is_not_combined_with_injection(folder: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="chosen by InstanceFilter must not be combined with InjectTruth"):
        stages(settings(place, data={"manifest": str(folder)}, task={"inject": True}))
    with pytest.raises(ConfigError, match="InstanceFilter must not be combined with InjectTruth"):
        stages(settings(place, select=SELECT, task={"inject": True}))
    with pytest.raises(ConfigError, match="VarianceSelection must not be combined with InjectTruth"):
        mmpost.select(settings(place, task={"inject": True}), by="variance", out=str(place / "never"))
    assert [s.name for s in stages(settings(place, select={"by": "difficulty"}, task={"inject": True}))][1] == "select"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data": {"order": "manifest"}}, "data.order=manifest: wanted a selection"),
        ({"data": {"manifest": "x"}, "select": SELECT}, "remove one of them"),
        ({"select": {"k": 3}}, r"wanted select.by=NAME, found None; available: rif, variance, difficulty"),
        ({"select": {"by": "rif", "kk": 3}}, r"unknown key select.kk; did you mean select.k\?"),
        ({"select": {"by": "generate.Generate"}}, "wanted one of rif, variance, difficulty, or a class"),
        ({"select": SELECT, "task": {"sft_fraction": 1.0}, "rewards": None}, "no stage of the task scores any"),
    ],
)
def test_invalid_combinations_are_refused(overrides: dict[str, Any], message: str, place: Path) -> None:
    arguments = {k: v for k, v in settings(place, **overrides).items() if v is not None}
    with pytest.raises(ConfigError, match=message):
        stages(arguments)


def test_the_measuring_stage_has_the_transforms_up_to_the_rewards(place: Path) -> None:
    plain = stages(settings(place))
    stage, target = measuring_stage(plain, {"by": "rif"})
    assert target.name == "rl"
    assert [type(t).__name__ for t in stage.transforms] == ["DropReplies", "Generate", "Score", "InstanceFilter"]
    assert stage.transforms[1].n == 8  # type: ignore[union-attr]
    assert stage.transforms[1].sampling == target.transforms[1].sampling  # type: ignore[union-attr]
    assert stage.source is target.source
    # With user rewards the reward of a correct reply is unknown; without, the task declares it.
    assert stage.transforms[-1].right is None  # type: ignore[union-attr]
    without_rewards = {k: v for k, v in settings(place).items() if k != "rewards"}
    assert measuring_stage(stages(without_rewards), {"by": "rif"})[0].transforms[-1].right == 6.0  # type: ignore[union-attr]
    stage_by_class, _ = measuring_stage(plain, {"by": f"{place / 'outside_even.py'}:Own", "right": 1.0})
    assert isinstance(stage_by_class.transforms[-1], InstanceFilter)
    check_stages([stage_by_class])


def test_a_study_trains_again_when_the_manifest_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    arms = {"selected": {}, "random": {"data": {"subset": "random"}}}
    study = Study.model_validate({"task": "visurf", "set": {"data": {"manifest": str(file)}}, "arms": arms})
    keys = []
    for text in ('{"uid": "a"}\n', '{"uid": "a"}\n', '{"uid": "b"}\n'):
        file.write_text(text)
        keys.append([study.cell(arm, {}, 0, 1).key("base", "code") for arm in arms])
    assert keys[0] == keys[1]
    assert len({*keys[0], *keys[2]}) == 4


def test_the_shipped_study_has_trainable_arms() -> None:
    study = Study.load("selection")
    stages_of_arm = {arm: stages(study.arm_settings(arm, {})) for arm in study.arms}
    assert [s.name for s in stages_of_arm["selected"]] == [s.name for s in stages_of_arm["random"]] == ["select", "rl"]
    assert [s.name for s in stages_of_arm["all"]] == ["rl"]


def test_the_key_of_a_base_includes_its_selection_only_if_set() -> None:
    plain, chosen, fewer_replies = (
        run_config.load([{"task": "visurf", **m}])[0] for m in ({}, {"select": SELECT}, {"data": {"max_samples": 3}})
    )
    assert not {"select", "data"} & base_models._settings(plain).keys()
    assert base_models._settings(chosen)["select"] == SELECT
    assert base_models._settings(fewer_replies)["data"]["max_samples"] == 3


@pytest.mark.slow
def test_two_ranks_measure_the_same(place: Path) -> None:
    file = place / "ranks.yaml"
    file.write_text(parsing.dump(settings(place, task={"sft_fraction": 0.0, "prompts_per_step": 3}, select=SELECT)))
    arguments = ["-m", "mmpost.cli", "select", f"config={file}"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, start in (("one", []), ("two", torchrun)):
        subprocess.run([sys.executable, *start, *arguments, f"out={place / name}"], check=True, timeout=900)
    assert (place / "one" / "measured.jsonl").read_bytes() == (place / "two" / "measured.jsonl").read_bytes()
    assert (place / "one" / "manifest.jsonl").read_bytes() == (place / "two" / "manifest.jsonl").read_bytes()


def test_a_declared_reward_that_differs_between_samples_sets_no_threshold(place: Path) -> None:
    """Rows of referring expressions with and without points have different rewards of a correct reply."""
    without_rewards = {k: v for k, v in settings(place).items() if k != "rewards"}
    stage = next(s for s in stages(without_rewards) if s.name == "rl")
    odd = stage.source[0].uid
    golds = tuple(Gold(g.text, lambda s: 4.0 if s.uid == odd else 6.0) for g in stage.gold)
    with pytest.raises(ConfigError, match=rf"differs between samples \(4 for sample '{odd}', 6 for sample .*set it"):
        measuring_stage([replace(stage, gold=golds)], {"by": "rif"})
    measured, _ = measuring_stage([replace(stage, gold=golds)], {"by": "rif", "right": 5.0})
    assert measured.transforms[-1].right == 5.0  # type: ignore[union-attr]
