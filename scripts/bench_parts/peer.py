"""The arm of trl: its GRPOTrainer with the same work."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from importlib import metadata
from typing import Any, cast

from bench_parts.gate import Gate, Order
from bench_parts.meters import Counters
from bench_parts.work import Row, reward, unwritable

WANTED = "1.16.0"
MISSING = f"the arm trl needs trl {WANTED}: pip install 'trl=={WANTED}' (or leave it out: --arms plain shared)"


def missing() -> str | None:
    """What is missing, in words; None where nothing is."""
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        return MISSING
    return None if found == WANTED else f"{MISSING}; found {found}"


def work(order: Order, gate: Gate) -> None:
    """Steps of its loop, one whenever the gate opens. Raises gate.Finished after the last.

    Gradient checkpointing, on by default there, is off as in the other arms; the rest that is set is equal work.
    """
    # Its notes on experimental parts and settings are no part of a measurement.
    warnings.simplefilter("ignore")
    import torch
    from datasets import Dataset, Image, disable_progress_bars
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    disable_progress_bars()
    shape = order.shape
    processor = AutoProcessor.from_pretrained(order.model, padding_side="left")
    model: Any = AutoModelForImageTextToText.from_pretrained(
        order.model, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.to(order.device)
    dataset = Dataset.from_list([_row(row) for row in order.rows])
    if shape.image:
        dataset = dataset.cast_column("image", Image())

    def drawn(completion_ids: list[list[int]], uid: list[str], **_: Any) -> list[float]:
        assert {len(ids) for ids in completion_ids} == {shape.reply}, "a reply is shorter than it should be"
        seen: Counter[str] = Counter()
        rewards = []
        for name in uid:
            rewards.append(reward(name, seen[name]))
            seen[name] += 1
        return rewards

    class Timed(GRPOTrainer):
        """Only takes the times of what the class above does."""

        prepared, first = 0.0, True

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            start = gate.now()
            found = super()._generate(*args, **kwargs)
            gate.seconds["rollout"] = gate.now() - start
            return found

        def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
            start = gate.now()
            found = super()._prepare_inputs(*args, **kwargs)
            self.prepared += gate.now() - start
            if self.first:
                self.first = False
                gate.training(on=True)
            return found

    class Steps(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            trainer.prepared, trainer.first, self.start = 0.0, True, gate.now()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            gate.seconds["training"] = gate.now() - self.start - trainer.prepared
            gate.training(on=False)
            gate.done()

    with tempfile.TemporaryDirectory() as folder:
        rows = shape.prompts * shape.group // shape.rows
        trainer: Any = Timed(
            model=model,
            reward_funcs=cast(Any, drawn),
            args=GRPOConfig(
                output_dir=folder,
                max_steps=order.steps,
                per_device_train_batch_size=shape.rows,
                gradient_accumulation_steps=rows,
                num_generations=shape.group,
                max_completion_length=shape.reply,
                generation_kwargs={"suppress_tokens": unwritable(model, processor)},
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
            ),
            train_dataset=dataset,
            processing_class=processor,
            callbacks=[Steps()],
        )
        gate.ready(Counters(model, processor, shape.side**2 * 4))
        trainer.train()


def _row(row: Row) -> dict[str, Any]:
    image = {"image": row.image} if row.image else {}
    return {"prompt": [{"role": "user", "content": row.text}], "uid": row.uid, **image}
