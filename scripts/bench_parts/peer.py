"""The arm trl: TRL's GRPOTrainer on the same workload."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

from bench_parts.gate import Gate, Order
from bench_parts.meters import Counters
from bench_parts.work import Row, Shape, reward, unwritable

WANTED = "1.16.0"
MISSING = f"the arm trl needs trl {WANTED}: pip install 'trl=={WANTED}' (or leave it out: --arms plain shared)"


def missing() -> str | None:
    """A message if TRL is missing or has another version, else None."""
    try:
        version = metadata.version("trl")
    except metadata.PackageNotFoundError:
        return MISSING
    return None if version == WANTED else f"{MISSING}; found {version}"


@dataclass
class Clock:
    """Times one step: `preparing` covers rollouts and rewards, the rest is training."""

    gate: Gate
    start: float = 0.0
    prepared: float = 0.0
    """Seconds of preparation so far."""

    def begin(self) -> None:
        self.start, self.prepared = self.gate.now(), 0.0

    @contextmanager
    def preparing(self) -> Iterator[None]:
        start, first = self.gate.now(), not self.prepared
        yield
        self.prepared += self.gate.now() - start
        if first:
            self.gate.training(on=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        start = self.gate.now()
        yield
        self.gate.seconds["rollout"] = self.gate.now() - start

    def end(self) -> None:
        self.gate.seconds["training"] = self.gate.now() - self.start - self.prepared
        self.gate.training(on=False)
        self.gate.done()


def work(order: Order, gate: Gate) -> None:
    """Run TRL's training loop, one step per request of the gate. Raises gate.Finished after the last.

    Gradient checkpointing, on by default in TRL, is off as in the other arms; the other settings equalize the workload.
    """
    # Warnings about experimental features are irrelevant here.
    warnings.simplefilter("ignore")
    import torch
    from datasets import disable_progress_bars
    from transformers import AutoModelForImageTextToText, AutoProcessor

    disable_progress_bars()
    processor = AutoProcessor.from_pretrained(order.model, padding_side="left")
    model: Any = AutoModelForImageTextToText.from_pretrained(
        order.model, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.to(order.device)
    clock = Clock(gate)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = _timed(clock)(
            model=model,
            reward_funcs=cast(Any, _reward_function(order.shape)),
            args=_settings(order, folder, unwritable(model, processor)),
            train_dataset=_dataset(order),
            processing_class=processor,
            callbacks=[_steps(clock)],
        )
        gate.ready(Counters(model, processor, order.shape.side**2 * 4))
        trainer.train()


def _timed(clock: Clock) -> Any:
    """A subclass of GRPOTrainer that measures times."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with clock.writing():
                return super()._generate(*args, **kwargs)

        def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
            with clock.preparing():
                return super()._prepare_inputs(*args, **kwargs)

    return Timed


def _steps(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.end()

    return Steps()


def _settings(order: Order, folder: str, banned: list[int]) -> Any:
    from trl.trainer.grpo_config import GRPOConfig

    shape = order.shape
    return GRPOConfig(
        output_dir=folder,
        max_steps=order.steps,
        per_device_train_batch_size=shape.rows,
        gradient_accumulation_steps=shape.prompts * shape.group // shape.rows,
        num_generations=shape.group,
        max_completion_length=shape.reply,
        generation_kwargs={"suppress_tokens": banned},
        beta=0.0,
        loss_type="grpo",
        temperature=1.0,
        learning_rate=1e-6,
        gradient_checkpointing=False,
        bf16=order.dtype == "bf16",
        use_cpu=order.device == "cpu",
        dataloader_pin_memory=order.device != "cpu",
        shuffle_dataset=False,
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )


def _reward_function(shape: Shape) -> Callable[..., list[float]]:
    """The reward function in TRL's form: `reward` by prompt and index in the group."""

    def reward_function(completion_ids: list[list[int]], uid: list[str], **_: Any) -> list[float]:
        assert {len(ids) for ids in completion_ids} == {shape.reply}, "a reply is shorter than it should be"
        seen: Counter[str] = Counter()
        rewards = []
        for name in uid:
            rewards.append(reward(name, seen[name]))
            seen[name] += 1
        return rewards

    return reward_function


def _dataset(order: Order) -> Any:
    from datasets import Dataset, Image

    dataset = Dataset.from_list([_row(row) for row in order.rows])
    return dataset.cast_column("image", Image()) if order.shape.image else dataset


def _row(row: Row) -> dict[str, Any]:
    image = {"image": row.image} if row.image else {}
    return {"prompt": [{"role": "user", "content": row.text}], "uid": row.uid, **image}
