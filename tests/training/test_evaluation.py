"""Evaluation: confidence intervals, bench names, and no side effects on the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from mmpost.config.settings import EvalSettings
from mmpost.errors import ConfigError
from mmpost.training.context import TrainingContext
from mmpost.training.evaluation import intervals, run_benches, select_benches
from mmpost.types import Bench, Context, FunctionTransform, Part, Reply, Sample, Split, Stage, Task

SAMPLES = [Sample(f"s{i}", (Part("text", ""),), (Reply((), scores={"hit": float(i % 4 == 0)}),)) for i in range(400)]


def hit_rate(samples: Sequence[Sample]) -> dict[str, float]:
    return {"rate": sum(s.replies[0].scores["hit"] for s in samples) / len(samples)}


def test_the_confidence_interval_is_that_of_a_proportion() -> None:
    score = intervals(hit_rate, SAMPLES)["rate"]
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert score["value"] == 0.25
    assert score["n"] == 400
    assert score["low"] == pytest.approx(0.25 - half, abs=0.012)
    assert score["high"] == pytest.approx(0.25 + half, abs=0.012)


def test_an_undefined_metric_is_left_out() -> None:
    assert intervals(lambda samples: {"a": float("nan"), "b": 1.0}, SAMPLES).keys() == {"b"}


class TwoBenches(Task):
    """A task with two benches."""

    def stages(self) -> Iterator[Stage]:
        yield from ()

    def benches(self, split: Split) -> list[Bench]:
        return [Bench(f"{split}-{name}", SAMPLES, (), hit_rate) for name in ("a", "b")]


def test_benches_of_several_tasks_are_prefixed_by_task() -> None:
    tasks = {"x": TwoBenches(), "y": TwoBenches()}

    def selected(*names: str) -> list[str]:
        settings = EvalSettings.model_validate({"tasks": {"x": {"task": {}}, "y": {"task": {}, "benches": names}}})
        return [bench.name for bench in select_benches(TwoBenches(), tasks, settings, "test")]

    named = selected("test-b")
    assert named == ["x/test-a", "x/test-b", "y/test-b"]
    with pytest.raises(ConfigError, match=r"evaluation of y: wanted the bench .'c'., found test-a, test-b"):
        selected("c")


def test_evaluation_changes_neither_log_nor_random_state() -> None:
    class FramelessModel:
        def coordinate_frame(self, sample: Sample) -> None:
            return None

    def noisy(samples: list[Sample], context: Context) -> list[Sample]:
        context.log("noise", 1.0)
        torch.rand(3)
        return samples

    run_context = TrainingContext(FramelessModel(), None, 0)  # type: ignore[arg-type]
    run_context.scope = "rl"
    run_context.log("loss", 2.0)
    state, number = torch.get_rng_state(), run_context.seed_for("x")
    scores = run_benches(run_context, [Bench("test", SAMPLES, (FunctionTransform(noisy),), hit_rate)], max_samples=8)
    assert scores["test/rate"]["n"] == 8
    assert torch.equal(torch.get_rng_state(), state)
    assert run_context.seed_for("x") == number
    assert run_context.pop_metrics() == {"loss": 2.0}
