"""Columns: read and written on replies, and collated into the flat tensors of a batch.

Nothing is changed in place: writing returns new samples and replies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mmpost.core.samples import Batch, Reply, Sample, Value
from mmpost.errors import ColumnError


def reward(sample: Sample, reply: Reply) -> float | None:
    """The reply's reward; None if no reward applies to it (NaN). Raises ColumnError for a reply that was not scored."""
    return finite_or_none(number(sample, reply, "reward", "Score"))


def finite_or_none(value: float | None) -> float | None:
    """The value, with None for NaN."""
    return None if value is None or math.isnan(value) else value


def number(sample: Sample, reply: Reply, name: str, written_by: str) -> float:
    """The reply's value in the per-reply column `name`.

    Raises ColumnError if it has none or one per token; `written_by` names the transform that the message recommends.
    """
    value = reply.columns.get(name)
    if not isinstance(value, int | float):
        raise ColumnError(
            f"{sample.label}: wanted one number per reply in column {name!r}, found {value!r}; put {written_by} "
            "before this transform"
        )
    return float(value)


def numbers(sample: Sample, reply: Reply, name: str, written_by: str) -> Sequence[float]:
    """The reply's values [tok] in the per-token column `name`.

    Raises ColumnError if it has none or one per reply; `written_by` names the transform that the message recommends.
    """
    value = reply.columns.get(name)
    if value is None or isinstance(value, int | float):
        raise ColumnError(
            f"{sample.label}: wanted one number per token in column {name!r}, found {value!r}; put {written_by} "
            "before this transform"
        )
    return value


def token_mask(reply: Reply) -> list[float]:
    """The loss mask [tok] of the reply: its column `mask`, by default 1 for every token."""
    length = len(reply.token_ids or ())
    mask = reply.columns.get("mask", 1.0)
    return [float(mask)] * length if isinstance(mask, int | float) else list(mask)


def with_columns(reply: Reply, **columns: Value) -> Reply:
    """The reply with these columns added or replaced."""
    return replace(reply, columns={**reply.columns, **columns})


def with_column(sample: Sample, name: str, values: Sequence[Value]) -> Sample:
    """The sample with column `name` on its replies; `values` has one entry per reply."""
    return replace(
        sample, replies=tuple(with_columns(reply, **{name: v}) for reply, v in zip(sample.replies, values, strict=True))
    )


def map_replies(samples: Sequence[Sample], change: Callable[[Sample, Reply], Reply]) -> list[Sample]:
    """The samples with each reply replaced by `change(sample, reply)`."""
    return [replace(sample, replies=tuple(change(sample, reply) for reply in sample.replies)) for sample in samples]


def collate(samples: Sequence[Sample], names: Collection[str], inputs: object = None) -> Batch:
    """Collate all replies of `samples`, and the samples themselves, into one batch with the columns `names`.

    A column is looked up on the reply, then on its sample; `mask` defaults to 1. A column is per token if any reply
    has a list for it. Columns of samples also go into `Batch.sample_columns`. Raises ColumnError for a missing column,
    for one that only some of the samples without replies have, and for a list whose length is not that of its reply.
    """
    rows = [(i, sample, reply) for i, sample in enumerate(samples) for reply in sample.replies]
    lengths = torch.tensor([len(reply.token_ids or ()) for _, _, reply in rows], dtype=torch.long)
    columns: dict[str, Tensor] = {}
    per_token = set()
    for name in names:
        values = [_value(sample, reply, name) for _, sample, reply in rows]
        if any(not isinstance(v, float) for v in values):
            per_token.add(name)
            flat = [v for value, (_, s, r) in zip(values, rows, strict=True) for v in _per_token(value, s, r, name)]
            columns[name] = torch.tensor(flat, dtype=torch.float32)
        else:
            columns[name] = torch.tensor(values, dtype=torch.float32)
    return Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(rows)), lengths),
        group_of=torch.tensor([i for i, _, _ in rows], dtype=torch.long),
        columns=columns,
        inputs=inputs,
        per_token_columns=frozenset(per_token),
        sample_ids=torch.tensor([uid_hash(sample.uid) for sample in samples], dtype=torch.long),
        sample_columns=_sample_columns(samples, names),
        modality_mask=_modality_mask(samples),
    )


def uid_hash(uid: str) -> int:
    """A 63-bit hash of a uid, which fits into an int64 tensor and is the same on every machine."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") >> 1


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; `inputs` stays where it is."""
    return replace(
        batch,
        reply_of=batch.reply_of.to(device),
        group_of=batch.group_of.to(device),
        columns={k: v.to(device) for k, v in batch.columns.items()},
        sample_ids=batch.sample_ids.to(device),
        sample_columns={k: v.to(device) for k, v in batch.sample_columns.items()},
        modality_mask={k: v.to(device) for k, v in batch.modality_mask.items()},
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Concatenate at least one batch, without inputs.

    A column that is per token in one batch becomes per token in all; a sample column must be in all non-empty ones.
    """
    per_token = frozenset(name for b in batches for name in b.per_token_columns)
    nonempty = [b for b in batches if b.samples] or batches[:1]
    reply_offsets = _offsets([b.replies for b in batches])
    sample_offsets = _offsets([b.samples for b in batches])
    return Batch(
        reply_of=torch.cat([b.reply_of + offset for b, offset in zip(batches, reply_offsets, strict=True)]),
        group_of=torch.cat([b.group_of + offset for b, offset in zip(batches, sample_offsets, strict=True)]),
        columns={
            name: torch.cat([b.tok(name) if name in per_token else b.columns[name] for b in nonempty])
            for name in nonempty[0].columns
        },
        per_token_columns=per_token,
        sample_ids=torch.cat([b.sample_ids for b in batches]),
        sample_columns={
            name: torch.cat([b.sample_columns[name] for b in nonempty])
            for name in nonempty[0].sample_columns
            if all(name in b.sample_columns for b in nonempty)
        },
        modality_mask={
            modality: torch.cat([b.has(modality) for b in batches])
            for modality in dict.fromkeys(k for b in batches for k in b.modality_mask)
        },
    )


def _offsets(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def with_token_columns(batch: Batch, names: Collection[str], logp: Float[Tensor, " tok"]) -> Batch:
    """The batch with these log-probs, detached, as each of the columns `names`."""
    columns = {**batch.columns, **dict.fromkeys(names, logp.detach())}
    return replace(batch, columns=columns, per_token_columns={*batch.per_token_columns, *names})


def _sample_columns(samples: Sequence[Sample], names: Collection[str]) -> Mapping[str, Tensor]:
    """Those of the columns that every sample has. Raises ColumnError for one that only some samples have.

    Only samples without replies are checked: with replies, a column may be on the replies instead.
    """
    columns = {}
    for name in names:
        values = [sample.columns.get(name) for sample in samples]
        lacking = [sample for sample, value in zip(samples, values, strict=True) if value is None]
        if not lacking and samples:
            columns[name] = torch.tensor(values, dtype=torch.float32)
        unfillable = [sample for sample in lacking if not sample.replies]
        if unfillable and len(lacking) < len(samples):
            raise ColumnError(
                f"the objective reads the column {name!r}, which some samples have, but {unfillable[0].uid!r} has only "
                f"{sorted(unfillable[0].columns)}; write it for every sample"
            )
    return columns


def _modality_mask(samples: Sequence[Sample]) -> dict[str, Tensor]:
    modalities = [{part.modality for part in sample.prompt} for sample in samples]
    return {name: torch.tensor([name in each for each in modalities]) for name in sorted(set().union(*modalities))}


def _value(sample: Sample, reply: Reply, name: str) -> Value:
    value = reply.columns.get(name, sample.columns.get(name, 1.0 if name == "mask" else None))
    if value is None:
        raise ColumnError(
            f"the objective reads the column {name!r}, but reply {sample.replies.index(reply)} of {sample.uid!r} "
            f"has only {sorted({*reply.columns, *sample.columns})}; add the transform that writes it "
            f"(`makes` of the classes in mmpost.transforms) to the stage"
        )
    return float(value) if isinstance(value, float | int) else value


def _per_token(value: Value, sample: Sample, reply: Reply, name: str) -> Sequence[float]:
    length = len(reply.token_ids or ())
    if isinstance(value, float | int):
        return [float(value)] * length
    if len(value) != length:
        raise ColumnError(f"column {name!r} of {sample.label} has {len(value)} values for a reply of {length} tokens")
    return value
