"""Which replies of a step need computing, and the policy log-probs that a step records on them for later updates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mmpost.training.context import TrainingContext
from mmpost.types import Objective, Reply, Sample

Mask = list[list[bool]]
"""[sample][reply]"""


def active_reply_mask(context: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> Mask:
    """Which replies of an optimizer step are computed: those that can have a gradient, and a few that cannot.

    `Objective.zero_gradient_mask` names the replies whose gradient is zero. Dropping them all could leave a parameter
    without a gradient, and an optimizer tells that from a zero gradient: it skips the parameter, instead of decaying
    its moments and its weight. For each modality that no active reply has, one idle reply (a short one) therefore
    stays, so that its encoder gets zeros. With `compute.reuse=off` and for objectives of a whole step, all are active.
    """
    if not context.reuse or objective.unit == "batch" or not any(s.replies for s in samples):
        return [[True] * len(s.replies) for s in samples]
    # The policy log-probs are not recorded yet; the mask may not depend on them.
    columns = objective.required_columns - objective.policy_logprob_columns
    idle = iter(objective.zero_gradient_mask(context.model.counts_batch(samples, columns)).tolist())
    active = [[not next(idle) for _ in s.replies] for s in samples]
    if objective.unit == "group":
        active = [[any(row)] * len(row) for row in active]
    places = [(i, j) for i, s in enumerate(samples) for j in range(len(s.replies))]
    covered = {
        modality for i, j in places if active[i][j] for modality in _modalities(samples[i], samples[i].replies[j])
    }

    def most_modalities_first(place: tuple[int, int]) -> tuple[int, int]:
        sample, reply = samples[place[0]], samples[place[0]].replies[place[1]]
        return -len(_modalities(sample, reply)), len(reply.token_ids or ())

    for i, j in sorted((p for p in places if not active[p[0]][p[1]]), key=most_modalities_first):
        modalities = _modalities(samples[i], samples[i].replies[j])
        if not modalities <= covered:
            covered |= modalities
            row = active[i]
            active[i] = [True] * len(row) if objective.unit == "group" else [*row[:j], True, *row[j + 1 :]]
    return active


def _modalities(sample: Sample, reply: Reply) -> set[str]:
    return {part.modality for part in (*sample.prompt, *reply.parts)} | {"text"}


def select_replies(samples: Sequence[Sample], mask: Mask) -> list[Sample]:
    """The samples with the replies of the mask. Samples that lose all replies are dropped; those without any stay."""
    selected = [
        replace(s, replies=tuple(r for r, active in zip(s.replies, row, strict=True) if active))
        for s, row in zip(samples, mask, strict=True)
    ]
    return [s for s, before in zip(selected, samples, strict=True) if s.replies or not before.replies]


def missing_columns(objective: Objective, samples: Sequence[Sample]) -> frozenset[str]:
    """The objective's policy log-prob columns that no transform has written on any of these samples."""
    written = {name for s in samples for owner in (s, *s.replies) for name in owner.columns}
    return objective.policy_logprob_columns - written


def record_policy_logprobs(context: TrainingContext, objective: Objective, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their policy log-prob columns, from a forward pass over the active replies.

    Must be called before the first update on the rollout batch, while the weights are still those that sampled it.
    """
    names = missing_columns(objective, samples)
    if not names:
        return list(samples)
    mask = active_reply_mask(context, objective, samples)
    logp = context.logp(select_replies(samples, mask), "policy")
    return write_columns(samples, mask, names, [row for sample in logp for row in sample])


def write_columns(
    samples: Sequence[Sample], mask: Mask, names: Collection[str], rows: Iterable[list[float]]
) -> list[Sample]:
    """Write log-probs into the columns `names` of the active replies.

    `rows` holds one list of per-token log-probs for each reply of the mask, in order. Idle replies get no column: an
    objective reads it only where a gradient can follow.
    """
    if not names:
        return list(samples)
    remaining = iter(rows)
    out = []
    for sample, row in zip(samples, mask, strict=True):
        replies = [
            replace(r, columns={**r.columns, **dict.fromkeys(names, next(remaining))}) if active else r
            for r, active in zip(sample.replies, row, strict=True)
        ]
        out.append(replace(sample, replies=tuple(replies)))
    return out
