"""Measures one shape: each arm in its own process, with steps in turn."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench_parts import own, peer
from bench_parts.gate import Finished, Gate, Order
from bench_parts.work import Shape, write_rows
from mmpost.models.loading import quiet

ARMS = {"plain": own.work, "shared": own.work, "trl": peer.work}


@dataclass(frozen=True)
class Plan:
    """How a shape is measured."""

    model: Path
    """Folder of the weights."""
    arms: tuple[str, ...]
    steps: int = 5
    warmup: int = 1
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 2
    memory: bool = True
    """Run one more step, for the memory of training."""


def measure(shape: Shape, plan: Plan) -> dict[str, Any]:
    """Times, counts and memory of every arm. Raises RuntimeError with the traceback of an arm that fails."""
    total = plan.warmup + plan.steps + plan.memory
    context = multiprocessing.get_context("spawn")
    arms: dict[str, tuple[Any, Connection]] = {}
    records: dict[str, list[dict[str, Any]]] = {arm: [] for arm in plan.arms}
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), shape, total * shape.prompts, seed=shape.prompt)
        try:
            for arm in plan.arms:
                order = Order(arm, shape, rows, str(plan.model), total, plan.device, plan.dtype, plan.threads)
                here, there = context.Pipe()
                process = context.Process(target=work, args=(order, there), daemon=True)
                process.start()
                there.close()
                arms[arm] = (process, here)
                answer(arm, here)
            for step in range(total):
                request = "memory" if plan.memory and step + 1 == total else "step"
                for arm, (_, connection) in arms.items():
                    connection.send(request)
                    records[arm].append(answer(arm, connection))
        finally:
            for process, connection in arms.values():
                connection.close()
                process.join(timeout=20)
                if process.is_alive():
                    process.terminate()
    return {arm: summary(shape, plan, steps) for arm, steps in records.items()}


def answer(arm: str, connection: Connection) -> Any:
    """The next message of the arm. Raises RuntimeError if the arm failed."""
    try:
        message = connection.recv()
    except EOFError:
        message = {"failed": "its process ended"}
    if isinstance(message, dict) and "failed" in message:
        raise RuntimeError(f"the arm {arm} failed: {message['failed']}")
    return message


def work(order: Order, connection: Connection) -> None:
    """The process of one arm."""
    torch.set_num_threads(order.threads)
    try:
        with quiet():
            ARMS[order.arm](order, Gate(connection, torch.device(order.device)))
    except (Finished, EOFError, BrokenPipeError):
        pass
    except BaseException:
        connection.send({"failed": traceback.format_exc()})
        raise


def summary(shape: Shape, plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges of the timed steps, counts per step, and memory."""
    timed = records[plan.warmup : plan.warmup + plan.steps]
    parts = {name: [r["seconds"].get(name, 0.0) for r in timed] for name in ("step", "rollout", "training")}
    counts = [r["counts"] for r in timed]
    assert all(c == counts[0] for c in counts), f"counts differ between steps: {counts}"
    images = shape.prompts if shape.image else 0
    result = {
        "seconds": {
            name: {"median": statistics.median(values), "low": min(values), "high": max(values)}
            for name, values in parts.items()
        },
        "tokens_training": counts[0].get("tokens/training", 0),
        "tokens_rollout": counts[0].get("tokens/rollout", 0),
        "resident_bytes": timed[-1]["resident"],
    }
    if plan.memory:
        result["training_bytes"] = records[-1]["training_bytes"]
    if images:
        result["tower_training"] = counts[0].get("tower/training", 0) / images
        result["tower_rollout"] = counts[0].get("tower/rollout", 0) / images
        result["processor"] = counts[0].get("processor", 0) / images
    return result
