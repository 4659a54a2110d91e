"""The contract of tasks; tests/config/test_settings_read.py runs them all."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from mmpost.config import registry, run_config
from mmpost.runs.configured_task import make_task
from mmpost.types import Task

TASKS = list(registry.modules("mmpost.tasks"))


def task_class(name: str) -> type[Task]:
    return registry.exported(registry.module(name, "mmpost.tasks"), Task)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_setting_is_documented(name: str) -> None:
    assert task_class(name).__doc__
    undocumented = [path for path, info in run_config.fields(task_class(name)) if not info.description]
    assert not undocumented


def test_every_run_setting_is_documented() -> None:
    assert not [path for path, info in run_config.fields(run_config.RunConfig) if not info.description]


@pytest.mark.parametrize("name", TASKS)
def test_stage_and_bench_names_are_unique(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("own") / "rows.jsonl"
    file.write_text('{"query": "1 + 1?", "response": "2", "solution": "2"}\n')
    needs_data = name in ("sft", "grpo")
    data = {"train": str(file), "val": str(file), "test": str(file)} if needs_data else {}
    run, _ = run_config.load([{"task": name, "data": data}])
    task = make_task(run)
    names = [stage.name for stage in task.stages()]
    assert names
    assert len(set(names)) == len(names)
    assert names == [stage.name for stage in task.stages()], "stages() must be pure"
    for split in ("val", "test"):
        benches = [bench.name for bench in task.benches(split)]
        assert benches
        assert len(set(benches)) == len(benches)
        if task.best_metric:
            assert task.best_metric.lstrip("-").partition("/")[0] in benches


def test_the_fields_of_a_task_are_frozen() -> None:
    task: BaseModel = task_class("visurf")()
    with pytest.raises(ValueError, match="frozen"):
        task.num_generations = 3  # type: ignore[attr-defined]
