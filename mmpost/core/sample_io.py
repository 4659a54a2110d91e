"""Samples as plain data and back: what a checkpoint or a recording stores of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmpost.config.renamed import upgrade_part
from mmpost.core.samples import Part, Reply, Sample


def pack(samples: list[Sample] | None) -> list[dict[str, Any]] | None:
    """A rollout batch as plain data: of each sample what its source cannot give again. Floats survive JSON exactly."""
    if samples is None:
        return None
    return [
        {
            "uid": s.uid,
            "columns": dict(s.columns),
            "replies": [_plain(r) for r in s.replies],
            "options": [getattr(part.value, "options", ()) for part in s.prompt],
        }
        for s in samples
    ]


def _plain(reply: Reply) -> dict[str, Any]:
    """As dataclasses.asdict, which copies each token by itself."""
    return {**vars(reply), "parts": [dict(vars(part)) for part in reply.parts]}


def unpack(packed: list[dict[str, Any]] | None, drawn: Mapping[str, Sample]) -> list[Sample] | None:
    """The rollout batch again; `drawn` has the samples by uid as they were drawn."""
    if packed is None:
        return None
    out = []
    for row in packed:
        replies = tuple(
            Reply(
                parts=tuple(Part(**upgrade_part(p)) for p in r["parts"]),
                origin=r["origin"],
                token_ids=None if r["token_ids"] is None else tuple(r["token_ids"]),
                scores=r["scores"],
                columns=r["columns"],
            )
            for r in row["replies"]
        )
        sample = drawn[row["uid"]]
        prompt = _opened_so(sample.prompt, row.get("options", ()))
        out.append(replace(sample, prompt=prompt, replies=replies, columns=row["columns"]))
    return out


def _opened_so(prompt: tuple[Part, ...], options: Sequence[Any]) -> tuple[Part, ...]:
    """Media with the options that a transform gave them, such as where a window begins."""
    if len(options) != len(prompt):
        return prompt
    return tuple(
        replace(part, value=replace(part.value, options=_tuples(own))) if own else part
        for part, own in zip(prompt, options, strict=True)
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
