"""Ranks. The only module that talks to torch.distributed; every function does the obvious thing for one process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as td

BUCKET = 64 << 20
"""Bytes of gradients that are added up over the ranks in one call."""


def start(device: str) -> None:
    """Join the process group that torchrun announced, if any: NCCL on GPUs, gloo on CPUs or with device "cpu"."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not td.is_initialized():
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(local_rank())
        td.init_process_group("nccl" if cuda else "gloo")


def stop() -> None:
    if td.is_initialized():
        td.destroy_process_group()


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's number; known from the environment before the group exists."""
    return td.get_rank() if td.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    return td.get_world_size() if td.is_initialized() else 1


def gather(value: Any) -> list[Any]:
    """`value` of every rank, in rank order, on every rank."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    td.all_gather_object(out, value)
    return out


def total(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over the ranks by name; a name may be missing on some of them."""
    out: dict[str, float] = {}
    for part in gather(dict(values)):
        for name, value in part.items():
            out[name] = out.get(name, 0.0) + value
    return out


def barrier() -> None:
    if world() > 1:
        td.barrier()


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up gradients over the ranks in place; a rank that has none for a parameter contributes zeros.

    A parameter without gradient on every rank keeps none, so that its weights and moments stay as one process would
    leave them. Every rank must pass the same parameters in the same order.
    """
    if world() == 1:
        return
    everything = list(parameters)
    if not everything:
        return
    has = torch.tensor([float(p.grad is not None) for p in everything], device=everything[0].device)
    td.all_reduce(has)
    bucket: list[torch.Tensor] = []
    size = 0
    for p, count in zip(everything, has.tolist(), strict=True):
        if not count:
            continue
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        bucket.append(p.grad)
        size += p.grad.nbytes
        if size >= BUCKET:
            _sum(bucket)
            bucket, size = [], 0
    if bucket:
        _sum(bucket)


def _sum(tensors: Sequence[torch.Tensor]) -> None:
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in same])
        td.all_reduce(flat)
        for t, piece in zip(same, flat.split([t.numel() for t in same]), strict=True):
            t.copy_(piece.view_as(t))
