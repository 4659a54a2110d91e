"""A setting that nothing reads is a bug: two-step runs record which settings are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import mmpost
from mmpost import config, registry
from mmpost.settings import Settings
from mmpost.types import Task

QUICK = {
    "model": "random-tiny",
    "eval": {"samples": 2, "every": 1},
    "log": {"progress": False},
    "steps": 2,
}
OF_TASK: dict[str, list[dict[str, Any]]] = {
    "visurf": [
        {"task": {"prompts": 2, "group": 2, "sampling": {"max_tokens": 4}}},
        {
            "task": {
                "prompts": 2,
                "group": 2,
                "minibatches": 2,
                "sampling": {"max_tokens": 4, "top_p": 0.9, "temperature": 0.7},
                "policy": {"loss": "dapo", "beta": 0.1, "entropy": 0.1, "old": "column", "mismatch": "token"},
                "overlong": {"max_tokens": 4, "buffer": 2},
                "refill": 1,
                "warm_up": 0.5,
            },
            "model": {"lora": {"rank": 2}, "freeze": ["vision"]},
            "data": "OWN",
        },
    ],
    "reason_rft": [
        {
            "task": {
                **{"prompts": 2, "sft_prompts": 2, "group": 2, "sampling": {"max_tokens": 4, "top_p": 1, "top_k": 0}},
                **{"warm_up": 0.5, "family": family, "cot": 4, "problems": 4, "bench_problems": 2},
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
    "shapes_base": [{"task": {"prompts": 2}}],
    "digits_base": [{"task": {"prompts": 2}}],
    "sft": [{"data": "OWN", "task": {"prompts": 2}}],
    "grpo": [
        {"data": "OWN", "task": {"prompts": 2, "group": 2, "sampling": {"max_tokens": 4}, **more}}
        for more in (
            {"advantage": {"scale": "batch"}},
            {"advantage": {"normalize": True}},
            {"advantage": {"baseline": True}},
            {"advantage": {"penalty": True}, "kl_reward": {"beta": 0.1, "per_token": True}},
        )
    ],
}
"""What each task is run with; a new task needs a line here."""


@pytest.fixture
def own_data(tmp_path: Path) -> dict[str, str]:
    """Four rows of the user's own, for any task."""
    from mmpost.data.digits import Scenes, answer_text

    lines = []
    for i in range(4):
        scene = Scenes("train", ("largest",), n=4, none=0)[i]
        (tmp_path / f"{i}.png").write_bytes(scene.prompt[0].value.bytes())
        answer = answer_text(scene.truth).removeprefix("<answer>").removesuffix("</answer>")
        lines.append({"image": f"{i}.png", "problem": "the largest digit", "solution": answer, "response": answer})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return {"train": str(file), "val": str(file), "test": str(file), "root": str(tmp_path)}


def leaves(kind: type[BaseModel]) -> set[tuple[type[BaseModel], str]]:
    """(section, field) of everything that can be set in `kind` and its sections."""
    found = set()
    for name, info in kind.model_fields.items():
        found.add((kind, name))
        for section in config._sections(info.annotation):
            found |= leaves(section)
    return found


def test_every_setting_is_read(tmp_path: Path, own_data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path / "cache"))
    read: set[tuple[str, str]] = set()
    plain = BaseModel.__getattribute__ if "__getattribute__" in vars(BaseModel) else object.__getattribute__

    def recording(self: Any, name: str) -> Any:
        if not name.startswith("_"):
            read.update((c.__name__, name) for c in type(self).__mro__ if name in getattr(c, "__annotations__", {}))
        return plain(self, name)

    monkeypatch.setattr(Settings, "__getattribute__", recording, raising=False)
    sections = {(config.RunConfig, name) for name in config.RunConfig.model_fields} | leaves(config.RunConfig)
    for name in registry.modules("mmpost.tasks"):
        sections |= leaves(registry.exported(registry.module(name, "mmpost.tasks"), Task))
        for number, settings in enumerate(OF_TASK[name]):
            settings = {**settings, **({"data": own_data} if settings.get("data") == "OWN" else {})}
            words = config.merge(config.merge(QUICK, {"task": name}), settings)
            mmpost.train(words, out=str(tmp_path / f"{name}-{number}"))
    wanted = {
        (next(c for c in kind.__mro__ if name in vars(c).get("__annotations__", {})).__name__, name)
        for kind, name in sections
    }
    unread = {f"{kind}.{name}" for kind, name in wanted - read}
    assert not unread
