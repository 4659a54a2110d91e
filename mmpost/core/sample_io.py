"""Serialize samples to plain data and back, for checkpoints and generated datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmpost.config.renamed import upgrade_part
from mmpost.core.samples import Part, Reply, Sample


def pack(samples: list[Sample] | None) -> list[dict[str, Any]] | None:
    """A rollout batch as plain data: of each sample, only what its source cannot give again.

    Floats survive JSON exactly, so that a resumed run continues bit for bit.
    """
    if samples is None:
        return None
    return [
        {
            "uid": s.uid,
            "columns": dict(s.columns),
            "replies": [_pack_reply(r) for r in s.replies],
            "options": [getattr(part.value, "options", ()) for part in s.prompt],
        }
        for s in samples
    ]


def _pack_reply(reply: Reply) -> dict[str, Any]:
    # Not dataclasses.asdict: it copies token by token, which is slow for long replies.
    return {**vars(reply), "parts": [dict(vars(part)) for part in reply.parts]}


def unpack(packed: list[dict[str, Any]] | None, samples: Mapping[str, Sample]) -> list[Sample] | None:
    """Restore a rollout batch from `pack`; `samples`: by uid, as the source gives them.

    Raises KeyError for a uid that is missing there.
    """
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
        sample = samples[row["uid"]]
        prompt = _with_options(sample.prompt, row.get("options", ()))
        out.append(replace(sample, prompt=prompt, replies=replies, columns=row["columns"]))
    return out


def _with_options(prompt: tuple[Part, ...], options: Sequence[Any]) -> tuple[Part, ...]:
    """The prompt with the media options that a transform had set, such as the start of a window."""
    if len(options) != len(prompt):
        return prompt
    return tuple(
        replace(part, value=replace(part.value, options=_as_tuples(values))) if values else part
        for part, values in zip(prompt, options, strict=True)
    )


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else value
