"""Formats results for the terminal and as Markdown, and describes the machine."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import AutoConfig

from bench_parts.flops import floor
from bench_parts.run import ARMS, Plan
from bench_parts.work import Shape

MIB = 1 << 20
COLUMNS = (
    *("step s", "rollout s", "training s", "vs trl", "vs plain"),
    *("tokens train", "tokens rollout", "tower train", "tower rollout", "processor", "train MiB", "process MiB"),
)


def machine(plan: Plan) -> dict[str, Any]:
    """Hardware, versions and settings that the numbers depend on, without names of machines or folders."""
    names = ("mmpost", "torch", "transformers", "trl", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cuda = plan.device != "cpu"
    return {
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "dtype": plan.dtype,
        "threads": plan.threads,
        "gflops": round(gemm(plan) / 1e9, 1),
        "python": platform.python_version(),
        "versions": versions,
        "steps": plan.steps,
        "warmup": plan.warmup,
    }


def gemm(plan: Plan, size: int = 1024) -> float:
    """FLOP/s of a large matrix product: the best of ten runs."""
    torch.set_num_threads(plan.threads)
    dtype = torch.bfloat16 if plan.dtype == "bf16" else torch.float32
    a = torch.randn(size, size, device=plan.device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, a)
        if plan.device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def floors(shape: Shape, model: Path) -> dict[str, dict[str, float]]:
    """Lower bounds of the FLOPs of a step by arm (`flops.floor`)."""
    config = AutoConfig.from_pretrained(model)
    bounds = {arm: floor(shape, config, arm) for arm in ARMS}
    return {arm: {"rollout": f.rollout, "training": f.training, "step": f.step} for arm, f in bounds.items()}


def cells(measured: dict[str, Any], arm: str) -> list[str]:
    """One line of a table, in the order of COLUMNS."""
    arms, own = measured["arms"], measured["arms"][arm]
    spans = [own["seconds"][name] for name in ("step", "rollout", "training")]
    times = [f"{s['median']:.2f} ({s['low']:.2f}-{s['high']:.2f})" for s in spans]
    ratios = []
    for other in ("trl", "plain"):
        against = arms[other]["seconds"] if other in arms and other != arm else None
        ratios.append(_ratios(against, own["seconds"]) if against else "")
    counts = [str(own["tokens_training"]), str(own["tokens_rollout"])]
    counts += [f"{own[name]:g}" if name in own else "" for name in ("tower_training", "tower_rollout", "processor")]
    memory = [f"{own[name] / MIB:.0f}" if name in own else "" for name in ("training_bytes", "resident_bytes")]
    return [*times, *ratios, *counts, *memory]


def _ratios(other: dict[str, Any], own: dict[str, Any]) -> str:
    """Speed-up of the whole step, and in brackets of rollout and training."""
    step, rollout, training = (other[n]["median"] / own[n]["median"] for n in ("step", "rollout", "training"))
    return f"{step:.2f} ({rollout:.2f}, {training:.2f})"


def table(measured: dict[str, Any]) -> Table:
    lines = {arm: cells(measured, arm) for arm in measured["arms"]}
    title = f"{measured['name']}: {measured['prompts']} prompts a step"
    table = Table("", *lines, title=title, title_justify="left")
    for i, name in enumerate(COLUMNS):
        table.add_row(name, *(line[i] for line in lines.values()))
    return table


def markdown(result: dict[str, Any]) -> str:
    """The tables of docs/performance.md: one line per shape and arm, and the lower bounds."""
    rate = result["machine"]["gflops"] * 1e9
    lines = [f"| shape | arm | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 2)]
    for measured in result["shapes"]:
        lines += [f"| {measured['name']} | {a} | {' | '.join(cells(measured, a))} |" for a in measured["arms"]]
    lines += ["", "| shape | GFLOP trl | plain | shared | trl / shared | plain / shared, training | shared, seconds |"]
    lines.append("|" + "---|" * 7)
    for measured in result["shapes"]:
        trl, plain, shared = (measured["floor"][arm] for arm in ("trl", "plain", "shared"))
        numbers = [f"{arm['step'] / 1e9:.1f}" for arm in (trl, plain, shared)]
        numbers += [f"{trl['step'] / shared['step']:.2f}", f"{plain['training'] / shared['training']:.2f}"]
        lines.append(f"| {measured['name']} | {' | '.join(numbers)} | {shared['step'] / rate:.2f} |")
    return "\n".join(lines)
