"""Which replies a step has to compute, and the log-probs that it leaves on them for later steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mmpost.training.context import TrainingContext
from mmpost.types import Objective, Reply, Sample

Mask = list[list[bool]]
"""[sample][reply]"""


def active_reply_mask(job: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> Mask:
    """The replies of a step that are computed: all but those that can have no gradient (`Objective.idle`).

    An optimiser tells a zero gradient, which ages moments and lets weights decay, from none. So an idle reply stays
    where it alone reaches parameters: one, a short one, for the kinds of parts that no other reply has.
    """
    if not job.reuse or objective.unit == "batch" or not any(s.replies for s in samples):
        return [[True] * len(s.replies) for s in samples]
    idle = iter(
        objective.zero_gradient_mask(
            job.model.counts_batch(samples, objective.required_columns - objective.policy_logprob_columns)
        ).tolist()
    )
    busy = [[not next(idle) for _ in s.replies] for s in samples]
    if objective.unit == "group":
        busy = [[any(row)] * len(row) for row in busy]
    places = [(i, j) for i, s in enumerate(samples) for j in range(len(s.replies))]
    reached = {kind for i, j in places if busy[i][j] for kind in _kinds(samples[i], samples[i].replies[j])}

    def order(place: tuple[int, int]) -> tuple[int, int]:
        sample, reply = samples[place[0]], samples[place[0]].replies[place[1]]
        return -len(_kinds(sample, reply)), len(reply.token_ids or ())

    for i, j in sorted((p for p in places if not busy[p[0]][p[1]]), key=order):
        kinds = _kinds(samples[i], samples[i].replies[j])
        if not kinds <= reached:
            reached |= kinds
            busy[i] = [True] * len(busy[i]) if objective.unit == "group" else [*busy[i][:j], True, *busy[i][j + 1 :]]
    return busy


def _kinds(sample: Sample, reply: Reply) -> set[str]:
    return {part.modality for part in (*sample.prompt, *reply.parts)} | {"text"}


def select_replies(samples: Sequence[Sample], mask: Mask) -> list[Sample]:
    """The replies of the mask; samples of which none is left go, those that never had any stay."""
    kept = [
        replace(s, replies=tuple(r for r, keep in zip(s.replies, row, strict=True) if keep))
        for s, row in zip(samples, mask, strict=True)
    ]
    return [s for s, before in zip(kept, samples, strict=True) if s.replies or not before.replies]


def missing_columns(objective: Objective, samples: Sequence[Sample]) -> frozenset[str]:
    """The columns that the objective remembers, and that nobody has written on any of these samples."""
    written = {name for s in samples for owner in (s, *s.replies) for name in owner.columns}
    return objective.policy_logprob_columns - written


def record_policy_logprobs(job: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> list[Sample]:
    """`samples` with the columns that the objective remembers, by a pass over the replies that will be computed."""
    names = missing_columns(objective, samples)
    if not names:
        return list(samples)
    mask = active_reply_mask(job, objective, samples)
    rows = job.logp(select_replies(samples, mask), "policy")
    return write_columns(samples, mask, names, [logp for sample in rows for logp in sample])


def write_columns(
    samples: Sequence[Sample], mask: Mask, names: Collection[str], rows: Iterable[list[float]]
) -> list[Sample]:
    """`samples` with each row of log-probs as the columns `names` of its reply; `rows`: of the mask, in order."""
    if not names:
        return list(samples)
    rest = iter(rows)
    out = []
    for sample, row in zip(samples, mask, strict=True):
        pairs = zip(sample.replies, row, strict=True)
        replies = [
            replace(r, columns={**r.columns, **dict.fromkeys(names, next(rest))}) if kept else r for r, kept in pairs
        ]
        out.append(replace(sample, replies=tuple(replies)))
    return out
