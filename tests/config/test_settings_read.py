"""A setting that no code reads is a bug: two-step runs record which settings are accessed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from published_rows import save
from pydantic import BaseModel

import mmpost
from mmpost.config import registry, run_config
from mmpost.config.settings import Settings
from mmpost.judges.settings import JudgeSettings
from mmpost.judges.tables.config import ChatModel, QuestionModels
from mmpost.types import Task

QUICK = {
    "model": "random-tiny",
    "eval": {"max_samples": 2, "every": 1},
    "log": {"progress": False},
    "steps": 2,
}
STAR = ["light_curve", "spectrum", "record"]
SETTINGS_OF_TASK: dict[str, list[dict[str, Any]]] = {
    "visurf": [
        {"task": {"prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}}},
        {
            "task": {
                "prompts_per_step": 2,
                "num_generations": 2,
                "minibatches": 2,
                "sampling": {"max_tokens": 4, "top_p": 0.9, "temperature": 0.7},
                "policy": {"loss_type": "dapo", "beta": 0.1, "entropy": 0.1, "old": "column", "mismatch": "token"},
                "overlong": {"max_tokens": 4, "buffer": 2},
                "max_resample_times": 1,
                "sft_fraction": 0.5,
            },
            "model": {"lora": {"rank": 2}, "freeze": ["vision"]},
            "data": "OWN",
        },
    ],
    "reason_rft": [
        {
            "task": {
                **{
                    "prompts_per_step": 2,
                    "sft_prompts_per_step": 2,
                    "num_generations": 2,
                    "sampling": {"max_tokens": 4, "top_p": 1, "top_k": 0},
                },
                **{"sft_fraction": 0.5, "family": family, "cot": 4, "problems": 4, "bench_problems": 2},
                **more,
            },
            "stages": {"sft": {"optim": {"warmup": 0}}},
            **data,
        }
        for family, more, data in (
            ("counting", {"reasoning": 0.5, "length_reward": {"score": "accuracy", "after": 0}}, {}),
            ("structure", {"prompt": "{question}", "answer_only": True}, {"data": "OWN"}),
        )
    ],
    "bases.shapes": [{"task": {"prompts_per_step": 2}}],
    "bases.digits": [{"task": {"prompts_per_step": 2}}],
    "bases.aerial": [{"task": {"prompts_per_step": 2}}],
    "bases.tables": [{"model": "random-tiny-tables", "task": {"prompts_per_step": 2, "small_prompts_per_step": 2}}],
    "uav_vl_r1": [
        {
            "task": {
                "prompts_per_step": 2,
                "num_generations": 2,
                "sampling": {"max_tokens": 4},
                "tiles": {"side": 56, "overview": 56},
            }
        },
        {
            "data": "OWN",
            "task": {
                "prompts_per_step": 2,
                "num_generations": 2,
                "sampling": {"max_tokens": 4},
                "mixed": True,
                "sft_fraction": 0.5,
            },
        },
    ],
    "bases.clips": [{"task": {"prompts_per_step": 2, "clips": 4}}],
    "temporal_r1": [
        {"task": {"prompts_per_step": 2, "num_generations": 2, "clips": 4, "sampling": {"max_tokens": 4}}},
        {"data": "VIDEOS", "task": {"prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}}},
    ],
    "bases.sounds": [{"model": "random-tiny-audio", "task": {"prompts_per_step": 2}}],
    "r1_aqa": [
        {
            "model": "random-tiny-audio",
            "task": {"prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}, **more},
            **own,
        }
        for more, own in (
            ({"sft_fraction": 0.5, "prompt": "think"}, {}),
            ({"reward": "released"}, {"data": "SOUND"}),
            ({"speech": "SPOKEN", "val_speaker": "ann"}, {}),
        )
    ],
    "bases.reports": [{"model": "random-tiny-cxr", "task": {"prompts_per_step": 2, "studies": 8}}],
    "cxr_preference": [
        {
            "model": "random-tiny-cxr",
            "task": {
                **{
                    "prompts_per_step": 2,
                    "sft_prompts_per_step": 2,
                    "generation_batch_size": 4,
                    "candidates": 2,
                    "studies": 4,
                    "bench_studies": 2,
                },
                **{"sampling": {"max_tokens": 6}, **more},
            },
            **data,
        }
        for more, data in (
            ({"sft_fraction": 0.5, "pairs": {"control": "matched", "tolerance": 1}}, {}),
            ({"indication_prompt": "{indication}"}, {"data": "OWN"}),
            ({"dataset": "OPEN_I"}, {}),
        )
    ],
    "trivia": [
        {
            "model": "random-tiny-tables",
            "task": {
                **{
                    "prompts_per_step": 2,
                    "sft_prompts_per_step": 2,
                    "num_generations": 2,
                    "generation_batch_size": 2,
                    "scenes": 4,
                    "bench_scenes": 2,
                },
                **{"sampling": {"max_tokens": 4}, "illegal": {"refill": True, "certain_tail": 2}, **more},
            },
            **data,
        }
        for more, data in (
            ({"sft_fraction": 0.5, "pictures": {"low": 0.0, "readings": 2}}, {}),
            ({"learn_from": "label_reward", "pictures": {"by": "random", "n": 2}}, {}),
            ({"warmup_fraction": 0.5, "sft_fraction": 0.5}, {"data": "OWN"}),
        )
    ],
    "sft": [{"data": "OWN", "task": {"prompts_per_step": 2}}],
    "preference": [
        {"task": {"prompts_per_step": 2, "scenes": 8, "bench_scenes": 4, "ref_model_sync_steps": 1}},
        {"data": "PAIRS", "task": {"prompts_per_step": 2, "loss": {"loss_type": "kto"}}},
    ],
    "astrom3": [
        {
            "model": "random-tiny-astro",
            "task": {
                "batch_size": 4,
                "class_batch_size": 4,
                "contrast_fraction": 0.5,
                "stars": 24,
                "bench_stars": 12,
                **more,
            },
            **own,
        }
        for more, own in (
            (
                {
                    **{"modalities": STAR, "missing": 0.2, "anomaly_fraction": 0.2, "label_fraction": 1.0},
                    "contrast": {"modalities": STAR, "pairs": "star"},
                },
                {},
            ),
            (
                {"modalities": ["record"], "crop": "released", "label_fraction": 0.5},
                {"data": "STARS", "optim": {"schedule": "plateau", "warmup": 1, "early_stopping_patience": 3}},
            ),
        )
    ],
    "grpo": [
        {"data": "OWN", "task": {"prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}, **more}}
        for more in (
            {"advantage": {"scale": "batch"}},
            {"advantage": {"normalize": True}},
            {"advantage": {"baseline": True}},
            {"advantage": {"penalty": True}, "kl_reward": {"beta": 0.1, "per_token": True}},
        )
    ],
}
"""Settings of the runs of each task; a new task needs an entry."""


@pytest.fixture
def own_data(tmp_path: Path) -> dict[str, str]:
    """Four user rows that fit every task."""
    from mmpost.data.worlds.digits.scenes import Scenes, answer_text

    lines = []
    for i in range(4):
        scene = Scenes("train", ("largest",), n=4, none=0)[i]
        (tmp_path / f"{i}.png").write_bytes(scene.prompt[0].value.bytes())
        answer = answer_text(scene.truth).removeprefix("<answer>").removesuffix("</answer>")
        row = {"image": f"{i}.png", "problem": "the largest digit", "solution": answer, "response": answer}
        lines.append({**row, "task": "number", "stage": "objects"})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return {"train": str(file), "val": str(file), "test": str(file), "root": str(tmp_path)}


@pytest.fixture
def own_pairs(own_data: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same rows as preference pairs."""
    rows = [json.loads(line) for line in Path(own_data["train"]).read_text().splitlines()]
    pairs = [{"image": r["image"], "prompt": r["problem"], "chosen": r["solution"], "rejected": "[]"} for r in rows]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(pair) for pair in pairs))
    return {"train": str(file), "val": str(file), "test": str(file), "root": str(tmp_path)}


@pytest.fixture
def own_videos(tmp_path: Path) -> dict[str, str]:
    """Rows about one video, for temporal tasks."""
    from mmpost.data.worlds.clips import Clips

    (tmp_path / "film.mp4").write_bytes(Clips(n=1)[0].prompt[0].value.bytes())
    solutions = ("7", [0.2, 0.5], {"answer": "A", "start_time": 1, "end_time": 2})
    rows = [{"video": "film.mp4", "problem": "when?", "solution": s, "video_length": 6} for s in solutions]
    file = tmp_path / "films.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return {"train": str(file), "val": str(file), "test": str(file), "root": str(tmp_path)}


@pytest.fixture
def own_sounds(tmp_path: Path) -> dict[str, str]:
    """User rows with sounds, and spoken-digit files in the same folder."""
    from mmpost.data.worlds.sounds import Sounds

    lines = []
    for digit, sample in enumerate(Sounds("train", n=3)):
        for speaker in ("ann", "bea", "cid"):
            (tmp_path / f"{digit}_{speaker}_0.wav").write_bytes(sample.prompt[0].value.bytes())
        asked = {"question": sample.meta["question"], "choices": sample.meta["choices"], "answer": sample.truth}
        lines.append({"audio": f"{digit}_ann_0.wav", **asked})
    file = tmp_path / "sounds.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return {"train": str(file), "val": str(file), "test": str(file), "root": str(tmp_path)}


@pytest.fixture
def own_studies(tmp_path: Path) -> dict[str, str]:
    """Chest radiograph studies in the format of Open-i."""
    from PIL import Image

    folder = tmp_path / "open_i"
    folder.mkdir()
    for i in range(30):
        text = '<AbstractText Label="FINDINGS">No pneumothorax.</AbstractText>'
        (folder / f"{i}.xml").write_text(f'<a><uId id="CXR{i}"/>{text}<parentImage id="film{i}"/></a>')
        Image.new("L", (56, 56), i).save(folder / f"film{i}.png")
    return {"root": str(folder)}


@pytest.fixture
def judged_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score reports by length: the rules give all reports of random weights the same score."""
    from mmpost.judges.base import Verdict
    from mmpost.judges.radiology.rules import RuleJudge

    rules = RuleJudge.judge

    def judge(self: RuleJudge, pairs: Any) -> list[Verdict]:
        assert len(rules(self, pairs)) == len(pairs)
        return [Verdict(float(len(pair[1]))) for pair in pairs]

    monkeypatch.setattr(RuleJudge, "judge", judge)


OTHER_JUDGES = ("server", "local", "bertscore", "green", "grade", "form", "reasks", "passes")
"""Fields of a judge section that only a judge model reads; covered by tests/judges."""


@pytest.fixture
def own_stars(tmp_path: Path) -> dict[str, str]:
    """The released dataset of variable stars, in miniature."""
    return {"train": save(tmp_path / "stars", 12)}


def fill_placeholders(settings: dict[str, Any], user_data: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Replace the placeholders of OF_TASK by the user data."""
    if settings.get("task", {}).get("dataset") == "OPEN_I":
        settings = {**settings, "task": {**settings["task"], "dataset": user_data["OPEN_I"]["root"]}}
    filled = {**settings, **({"data": user_data[settings["data"]]} if "data" in settings else {})}
    has_speech = filled.get("task", {}).get("speech") == "SPOKEN"
    return {**filled, "task": {**filled["task"], "speech": user_data["SOUND"]["root"]}} if has_speech else filled


def fields_of(section_class: type[BaseModel]) -> set[tuple[type[BaseModel], str]]:
    """(section, field) of every setting of `section_class` and its nested sections."""
    fields = set()
    for name, info in section_class.model_fields.items():
        if issubclass(section_class, JudgeSettings | ChatModel | QuestionModels) and name in OTHER_JUDGES:
            continue
        fields.add((section_class, name))
        for section in run_config._sections(info.annotation):
            fields |= fields_of(section)
    return fields


OWN = {
    **{"OWN": "own_data", "PAIRS": "own_pairs", "VIDEOS": "own_videos", "SOUND": "own_sounds"},
    **{"OPEN_I": "own_studies", "STARS": "own_stars"},
}
"""Fixture of each data placeholder of OF_TASK."""


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all xdist workers of this session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "settings read"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS_OF_TASK)
def test_every_setting_is_read(
    name: str,
    tmp_path: Path,
    shared_folder: Path,
    request: pytest.FixtureRequest,
    judged_by_length: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some settings are read by some tasks only, so the case that finishes last checks the union over all cases."""
    assert set(SETTINGS_OF_TASK) == set(registry.modules("mmpost.tasks"))
    user_data = {
        placeholder: request.getfixturevalue(data)
        for placeholder, data in OWN.items()
        if placeholder in json.dumps(SETTINGS_OF_TASK[name])
    }
    read: set[tuple[str, str]] = set()
    original = BaseModel.__getattribute__ if "__getattribute__" in vars(BaseModel) else object.__getattribute__

    def record_access(self: Any, name: str) -> Any:
        if not name.startswith("_"):
            read.update((c.__name__, name) for c in type(self).__mro__ if name in getattr(c, "__annotations__", {}))
        return original(self, name)

    monkeypatch.setattr(Settings, "__getattribute__", record_access, raising=False)
    for number, settings in enumerate(SETTINGS_OF_TASK[name]):
        run_settings = run_config.merge(run_config.merge(QUICK, {"task": name}), fill_placeholders(settings, user_data))
        mmpost.train(run_settings, out=str(tmp_path / f"{name}-{number}"))
    partial = tmp_path / "read.json"
    partial.write_text(json.dumps(sorted(read)))
    partial.rename(shared_folder / f"{name}.json")  # atomic: another worker may be listing the folder
    files = list(shared_folder.glob("*.json"))
    if len(files) == len(SETTINGS_OF_TASK):
        unread = every_setting() - {tuple(pair) for file in files for pair in json.loads(file.read_text())}
        assert not {f"{section}.{setting}" for section, setting in unread}


def every_setting() -> set[tuple[str, str]]:
    """(declaring class, field) of each setting of a run and of all tasks."""
    sections = {(run_config.RunConfig, name) for name in run_config.RunConfig.model_fields}
    sections |= fields_of(run_config.RunConfig)
    for name in SETTINGS_OF_TASK:
        sections |= fields_of(registry.exported(registry.module(name, "mmpost.tasks"), Task))
    return {
        (next(c for c in section_class.__mro__ if name in vars(c).get("__annotations__", {})).__name__, name)
        for section_class, name in sections
    }
