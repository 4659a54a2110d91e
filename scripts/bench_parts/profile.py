"""Profiles one step of an arm of mmpost with torch.profiler: time by module, forward and backward."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from bench_parts import own
from bench_parts.gate import Finished, Gate, Order
from bench_parts.meters import Counters
from bench_parts.run import Plan
from bench_parts.work import Shape, write_rows

MARK = "part:"
KINDS = {
    "cat": "cat",
    "index_select": "gather",
    "index": "gather",
    "copy_": "copy",
    "mm": "linear",
    "addmm": "linear",
    "linear": "linear",
    "bmm": "linear",
}
"""Category of an operation within a module by its name; all others are "pointwise"."""


@dataclass
class Traced(Gate):
    """Runs `warmup` steps and then one that is profiled, rollout and training separately."""

    warmup: int = 1
    shares: dict[str, Counter[str]] = field(default_factory=dict)
    _on: Any = None

    def ready(self, counters: Counters) -> None:
        self.wait()

    def wait(self) -> None:
        self.seconds = {}
        if self.warmup == 0:
            self._begin()

    def done(self) -> None:
        self.warmup -= 1
        if self.warmup < 0:
            raise Finished
        self.wait()

    def training(self, on: bool) -> None:
        if self.warmup:
            return
        self._end("rollout" if on else "training")
        if on:
            self._begin()

    def _begin(self) -> None:
        self._on = profile(activities=[ProfilerActivity.CPU])
        self._on.start()

    def _end(self, name: str) -> None:
        self._on.stop()
        self.shares[name] = shares(list(self._on.events()))


def tables(shape: Shape, plan: Plan, arm: str, least: float = 0.01) -> list[Table]:
    """Profile one step in this process; tables of rollout and training, without fractions of time below `least`."""
    gate = Traced(None, torch.device(plan.device))
    torch.set_num_threads(plan.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), shape, 2 * shape.prompts, seed=0)
        order = Order(arm, shape, rows, str(plan.model), 2, plan.device, plan.dtype, plan.threads)
        with suppress(Finished):
            own.work(order, gate, mark)
    tables = []
    for part, times in gate.shares.items():
        seconds = times.total() / 1e6
        table = Table("", "share", title=f"{shape.name}, {arm}, {part}: {seconds:.2f} s", title_justify="left")
        for name, time in times.most_common():
            if time >= least * times.total():
                table.add_row(name, f"{time / times.total():.1%}")
        tables.append(table)
    return tables


def mark(module: Any) -> None:
    """Label the modules of a model in the profile."""
    language = module.model.language_model
    _range(module.model.visual, "tower")
    _range(module.get_output_embeddings(), "head")
    for layer in language.layers:
        _range(layer.self_attn, "attention")
        _range(layer.mlp, "mlp")
    _range(language, "language, rest")


def _range(part: Any, name: str) -> None:
    open_: list[Any] = []

    def enter(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        length = max((v.shape[1] for v in tensors if v.dim() == 3 and v.is_floating_point()), default=0)
        one = " (a token each)" if length == 1 and name != "tower" else ""
        open_.append(record_function(f"{MARK}{name}{one}"))
        open_[-1].__enter__()

    def leave(*_: Any) -> None:
        open_.pop().__exit__(None, None, None)

    part.register_forward_pre_hook(enter, with_kwargs=True)
    part.register_forward_hook(leave)


def shares(events: list[Any]) -> Counter[str]:
    """Microseconds by module; backward operations count for the module of their forward operation."""
    forward: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not _backward(event):
            forward[event.sequence_nr] = _part(event)
    times: Counter[str] = Counter()
    for event in events:
        if event.name.startswith(MARK):
            times[f"{event.name.removeprefix(MARK)}: python"] += event.self_cpu_time_total
            continue
        source = _backward(event)
        part = f"{forward.get(source.sequence_nr, 'other')}, backward" if source else _part(event)
        times[f"{part}: {_kind(event.name)}"] += event.self_cpu_time_total
    total = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
    times["outside of all operations (python)"] = max(0, total - times.total())
    return times


def _chain(event: Any) -> list[Any]:
    chain = [event]
    while chain[-1].cpu_parent is not None:
        chain.append(chain[-1].cpu_parent)
    return chain


def _backward(event: Any) -> Any:
    return next((e for e in reversed(_chain(event)) if e.name.startswith("autograd::engine")), None)


def _part(event: Any) -> str:
    for e in _chain(event):
        if e.name.startswith(MARK):
            return e.name.removeprefix(MARK)
        if e.name.startswith("Optimizer."):
            return "optimiser"
    return "other"


def _kind(name: str) -> str:
    bare = name.removeprefix("aten::").lstrip("_")
    return "attention product" if bare.startswith("scaled_dot_product") else KINDS.get(bare, "pointwise")
