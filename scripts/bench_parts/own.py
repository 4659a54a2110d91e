"""The arms of mmpost: the plain path, and the shared path, which computes each prompt and image once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_parts.gate import Gate, Order
from bench_parts.meters import Counters
from bench_parts.work import Row, Shape, reward, unwritable
from mmpost.config.run_config import RunConfig
from mmpost.config.settings import ComputeSettings, EvalSettings, LogSettings, ModelSettings, OptimSettings
from mmpost.methods.policy_gradient import PolicyGradientTask
from mmpost.models.chat.model import ChatModel
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.run import Run
from mmpost.training import trainer
from mmpost.training.batches import RolloutBatcher
from mmpost.training.trainer import LocalEngine, StopSignal
from mmpost.transforms.score import Score
from mmpost.types import Part, Reply, Sample, Sampling, Stage
from mmpost.updates.adamw import AdamWUpdate


class Bench(PolicyGradientTask):
    """GRPO with predetermined rewards."""

    rows: tuple[Row, ...]

    def stages(self) -> Iterator[Stage]:
        yield self.rl_stage("rl", [sample(row) for row in self.rows], Score(rewards={"drawn": drawn}))


def sample(row: Row) -> Sample:
    image = (Part("image", row.image),) if row.image else ()
    return Sample(row.uid, (*image, Part("text", row.text)))


def drawn(sample: Sample, reply: Reply) -> float:
    """The reward of the reply by its index in the group."""
    return reward(sample.uid, next(i for i, r in enumerate(sample.replies) if r is reply))


def settings(order: Order) -> RunConfig:
    return RunConfig(
        task={"name": "bench"},
        model=ModelSettings(name=order.model, device=order.device, precision=order.dtype),  # type: ignore[arg-type]
        optim=OptimSettings(lr=1e-6),
        compute=ComputeSettings(threads=order.threads, reuse="auto" if order.arm == "shared" else "off"),
        eval=EvalSettings(before=False, after=False),
        log=LogSettings(samples_every=0, probe_every=0, tensorboard=False, progress=False),
        steps=order.steps,
    )


def work(order: Order, gate: Gate, prepare: Callable[[Any], None] | None = None) -> None:
    """Run mmpost's training loop, one step per request of the gate; `prepare` gets the module before the first step.

    Raises gate.Finished after the last.
    """
    shape: Shape = order.shape
    with tempfile.TemporaryDirectory() as folder:
        task = Bench(
            rows=tuple(order.rows),
            num_generations=shape.group,
            prompts_per_step=shape.prompts,
            sampling=Sampling(max_tokens=shape.reply),
        )
        config = settings(order)
        run = Run(config, Path(folder), task=ConfiguredTask(task, config))
        model = run.model
        assert isinstance(model, ChatModel)
        model.backbone.banned[unwritable(model.module, model.processor)] = True
        if prepare is not None:
            prepare(model.module)
        (stage,) = task.stages()
        update = AdamWUpdate(run.config.optim)
        update.start(model.module, model.parameter_groups(), order.steps)
        run.context.scope = stage.name
        clock = run.context.timer

        @contextmanager
        def measured(name: str) -> Iterator[None]:
            if name == "train":
                gate.training(on=True)
            start = gate.now()
            with clock(name):
                yield
            part = {"train": "training"}.get(name, name)
            gate.seconds[part] = gate.seconds.get(part, 0.0) + gate.now() - start
            if name == "train":
                gate.training(on=False)

        run.context.timer = measured  # type: ignore[method-assign]

        def watch(numbers: dict[str, float], samples: Sequence[Sample]) -> None:
            lengths = {len(r.token_ids or ()) for s in samples for r in s.replies}
            assert lengths == {shape.reply}, f"wanted replies of {shape.reply} tokens, found {lengths}"
            gate.done()

        gate.ready(Counters(model.module, model.processor, shape.side**2 * 4))
        engine = LocalEngine(model.module, update)
        until = trainer.StopCondition(order.steps, StopSignal())
        trainer.train_stage(
            run.context, RolloutBatcher(stage, run.context), engine, trainer.StageProgress(), until, watch
        )
