"""Samples to flat tensors: the reply and sample axes on which objectives work."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmpost.core.samples import Batch, Reply, Sample, Value
from mmpost.errors import ColumnError


def reply_space(samples: Sequence[Sample], names: Collection[str], inputs: object = None) -> Batch:
    """All replies of `samples`, and the samples themselves, as one batch with the columns `names`.

    A column is looked for on the reply, then on its sample; `mask` is 1 where nobody set it. A column is per token if
    any reply has a list for it. What a sample has itself is a column of samples too. Raises ColumnError for a missing
    one, for one that only some samples without replies have, and where a list does not fit its reply.
    """
    rows = [(i, sample, reply) for i, sample in enumerate(samples) for reply in sample.replies]
    lengths = torch.tensor([len(reply.token_ids or ()) for _, _, reply in rows], dtype=torch.long)
    columns: dict[str, Tensor] = {}
    per_token = set()
    for name in names:
        values = [_value(sample, reply, name) for _, sample, reply in rows]
        if any(not isinstance(v, float) for v in values):
            per_token.add(name)
            flat = [v for value, (_, s, r) in zip(values, rows, strict=True) for v in _spread(value, s, r, name)]
            columns[name] = torch.tensor(flat, dtype=torch.float32)
        else:
            columns[name] = torch.tensor(values, dtype=torch.float32)
    return Batch(
        reply_of=torch.repeat_interleave(torch.arange(len(rows)), lengths),
        group_of=torch.tensor([i for i, _, _ in rows], dtype=torch.long),
        columns=columns,
        inputs=inputs,
        per_token_columns=frozenset(per_token),
        sample_ids=torch.tensor([number(sample.uid) for sample in samples], dtype=torch.long),
        sample_columns=_sample_columns(samples, names),
        modality_mask=_present(samples),
    )


def number(uid: str) -> int:
    """A number of 63 bits for a uid, the same everywhere."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") >> 1


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    return replace(
        batch,
        reply_of=batch.reply_of.to(device),
        group_of=batch.group_of.to(device),
        columns={k: v.to(device) for k, v in batch.columns.items()},
        sample_ids=batch.sample_ids.to(device),
        sample_columns={k: v.to(device) for k, v in batch.sample_columns.items()},
        modality_mask={k: v.to(device) for k, v in batch.modality_mask.items()},
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, in their order, without inputs; at least one is wanted."""
    per_token = frozenset(name for b in batches for name in b.per_token_columns)
    filled = [b for b in batches if b.samples] or batches[:1]
    replies = _starts([b.replies for b in batches])
    samples = _starts([b.samples for b in batches])
    return Batch(
        reply_of=torch.cat([b.reply_of + start for b, start in zip(batches, replies, strict=True)]),
        group_of=torch.cat([b.group_of + start for b, start in zip(batches, samples, strict=True)]),
        columns={
            name: torch.cat([b.tok(name) if name in per_token else b.columns[name] for b in filled])
            for name in filled[0].columns
        },
        per_token_columns=per_token,
        sample_ids=torch.cat([b.sample_ids for b in batches]),
        sample_columns={
            name: torch.cat([b.sample_columns[name] for b in filled])
            for name in filled[0].sample_columns
            if all(name in b.sample_columns for b in filled)
        },
        modality_mask={
            kind: torch.cat([b.has(kind) for b in batches])
            for kind in dict.fromkeys(k for b in batches for k in b.modality_mask)
        },
    )


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def _sample_columns(samples: Sequence[Sample], names: Collection[str]) -> Mapping[str, Tensor]:
    """The named columns that all samples have. Raises ColumnError where those without replies do not agree."""
    found = {}
    for name in names:
        values = [sample.columns.get(name) for sample in samples]
        lack = [sample for sample, value in zip(samples, values, strict=True) if value is None]
        if not lack and samples:
            found[name] = torch.tensor(values, dtype=torch.float32)
        bare = [sample for sample in lack if not sample.replies]
        if bare and len(lack) < len(samples):
            raise ColumnError(
                f"the objective reads the column {name!r}, which some samples have, but {bare[0].uid!r} has only "
                f"{sorted(bare[0].columns)}; write it for every sample"
            )
    return found


def _present(samples: Sequence[Sample]) -> dict[str, Tensor]:
    kinds = [{part.modality for part in sample.prompt} for sample in samples]
    return {kind: torch.tensor([kind in own for own in kinds]) for kind in sorted(set().union(*kinds))}


def _value(sample: Sample, reply: Reply, name: str) -> Value:
    value = reply.columns.get(name, sample.columns.get(name, 1.0 if name == "mask" else None))
    if value is None:
        raise ColumnError(
            f"the objective reads the column {name!r}, but reply {sample.replies.index(reply)} of {sample.uid!r} "
            f"has only {sorted({*reply.columns, *sample.columns})}; add the transform that makes it "
            f"(`makes` of the classes in mmpost.transforms) to the stage"
        )
    return float(value) if isinstance(value, float | int) else value


def _spread(value: Value, sample: Sample, reply: Reply, name: str) -> Sequence[float]:
    length = len(reply.token_ids or ())
    if isinstance(value, float | int):
        return [float(value)] * length
    if len(value) != length:
        raise ColumnError(
            f"column {name!r} of sample {sample.uid!r} has {len(value)} numbers for a reply of {length} tokens"
        )
    return value
