"""Ranks and collectives. The only module that uses torch.distributed; every function works in a single process, too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as td

BUCKET = 64 << 20
"""Bytes of gradients per all-reduce."""


def start(device: str) -> None:
    """Join torchrun's process group, if there is one: NCCL on GPUs, gloo on CPUs or with device "cpu"."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not td.is_initialized():
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(local_rank())
        td.init_process_group("nccl" if cuda else "gloo")


def stop() -> None:
    """Leave the process group, if there is one."""
    if td.is_initialized():
        td.destroy_process_group()


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's number; before the group exists, that in the environment."""
    return td.get_rank() if td.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes."""
    return td.get_world_size() if td.is_initialized() else 1


def gather(value: Any) -> list[Any]:
    """All ranks' values in rank order, on every rank. Values are pickled; every rank must call it."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    td.all_gather_object(out, value)
    return out


def total(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all ranks by name; a name may be missing on some ranks. Every rank must call it."""
    sums: dict[str, float] = {}
    # In rank order in float64, so that every rank gets the same bits.
    for rank_values in gather(dict(values)):
        for name, value in rank_values.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        td.barrier()


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum gradients over all ranks in place; a rank without a gradient for a parameter contributes zeros.

    A parameter that has no gradient on any rank keeps none: an optimizer skips it then, as in a single process, where
    a zero gradient would decay its moments and its weight. Every rank must pass the same parameters in the same order.
    """
    if world() == 1:
        return
    ordered = list(parameters)
    if not ordered:
        return
    ranks_with_gradient = torch.tensor([float(p.grad is not None) for p in ordered], device=ordered[0].device)
    td.all_reduce(ranks_with_gradient)
    bucket: list[torch.Tensor] = []
    size = 0
    for p, count in zip(ordered, ranks_with_gradient.tolist(), strict=True):
        if not count:
            continue
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        bucket.append(p.grad)
        size += p.grad.nbytes
        if size >= BUCKET:
            _all_reduce(bucket)
            bucket, size = [], 0
    if bucket:
        _all_reduce(bucket)


def _all_reduce(tensors: Sequence[torch.Tensor]) -> None:
    """Sum tensors over the ranks in place, with one call per dtype."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in same])
        td.all_reduce(flat)
        for t, summed in zip(same, flat.split([t.numel() for t in same]), strict=True):
            t.copy_(summed.view_as(t))
