"""Objectives of a whole optimiser step: outputs of all micro-batches first, the loss on them, then their gradients.

Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"), over
ranks too, for any output of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mmpost.core import distributed
from mmpost.core.collate import joined, on_device
from mmpost.errors import TrainError
from mmpost.training.context import TrainingContext
from mmpost.types import Batch, Engine, Loss, Objective, Outputs

Random = tuple[Tensor, list[Tensor]]
"""States of torch's generators: on the CPU, and on each GPU."""


@dataclass(frozen=True)
class _CachedBatch:
    """A micro-batch after the pass without gradient."""

    batch: Batch
    outputs: Outputs
    before: Random
    """Random states before its forward: dropout is drawn again in the second."""


def fits_one_pass(plan: Sequence[Batch]) -> bool:
    """Whether one micro-batch of one rank is all of the step, so that the plain way is right; asked by all ranks."""
    return distributed.world() == 1 and len(plan) <= 1


def step_counts(objective: Objective, own: Batch) -> Mapping[str, float]:
    """The objective's counts of the step, from this rank's part of it."""
    everything = joined(distributed.gather(on_device(own, torch.device("cpu"))))
    return objective.counts(everything) if everything.samples else {}


def total_loss(loss: Loss, counts: Mapping[str, float]) -> Tensor:
    """What is minimised: each term over its own count."""
    return torch.stack([term / counts[name] for name, term in loss.terms.items()]).sum()


def backward_with_gradient_cache(
    job: TrainingContext,
    engine: Engine,
    objective: Objective,
    plan: Sequence[Batch],
    counts: Mapping[str, float],
    open_columns: frozenset[str],
) -> tuple[float, list[list[float]]]:
    """Add the exact gradient of the step; returns the loss, and the log-probs of this rank's replies by reply.

    Every rank computes the loss of all; the first that has samples counts it, its metrics, and the gradient of scalars
    of the model, so that sums over ranks are right. `open_columns` are written from the log-probs of the first pass.
    Raises TrainError where scalars of the model differ between micro-batches.
    """
    pieces, rows = _first_pass(job, objective, plan, open_columns)
    parts = distributed.gather([(on_device(p.batch, CPU), _moved(p.outputs, CPU)) for p in _bare(pieces)])
    leader = next((rank for rank, part in enumerate(parts) if part), None)
    if leader is None:
        return 0.0, rows
    device = pieces[0].batch.sample_ids.device if pieces else CPU
    everyone = [(on_device(b, device), _moved(o, device)) for part in parts for b, o in part]
    batches, outputs = [b for b, _ in everyone], [o for _, o in everyone]
    leaves, aux = _leaves(outputs, batches)
    loss = objective(_assembled(outputs[0], leaves, aux), joined(batches))
    value = total_loss(loss, counts)
    gradients, of_aux = _gradients(value, leaves, aux)
    first = sum(len(part) for part in parts[: distributed.rank()])
    own = [{key: pieces_[first + i] for key, pieces_ in gradients.items()} for i in range(len(pieces))]
    _second_pass(job, engine, objective, pieces, own, of_aux if distributed.rank() == leader else {})
    if distributed.rank() != leader:
        return 0.0, rows
    for name, (number, count) in loss.metrics.items():
        job.log(name, float(number), float(count))
    return float(value.detach()), rows


CPU = torch.device("cpu")

Key = tuple[str, str]
"""A field of Outputs, and the name of one of its tensors where it has several."""


def _first_pass(
    job: TrainingContext, objective: Objective, plan: Sequence[Batch], open_columns: frozenset[str]
) -> tuple[list[_CachedBatch], list[list[float]]]:
    pieces, rows = [], []
    with torch.no_grad():
        for batch in plan:
            before = _random()
            outputs = job.model(batch, objective.required_outputs, train=True)
            if open_columns:
                assert outputs.logp is not None
                batch = with_columns(batch, open_columns, outputs.logp)
                rows += batch.by_reply(outputs.logp)
            pieces.append(_CachedBatch(batch, outputs, before))
    return pieces, rows


def with_columns(batch: Batch, names: frozenset[str], logp: Tensor) -> Batch:
    """The batch with these log-probs as the columns `names`."""
    columns = {**batch.columns, **dict.fromkeys(names, logp.detach())}
    return replace(batch, columns=columns, per_token_columns={*batch.per_token_columns, *names})


def _second_pass(
    job: TrainingContext,
    engine: Engine,
    objective: Objective,
    pieces: Sequence[_CachedBatch],
    gradients: Sequence[Mapping[Key, Tensor]],
    of_aux: Mapping[str, Tensor],
) -> None:
    """Each micro-batch again, with its outputs' gradients pushed in; those of `of_aux` with the first alone."""
    with job.model.step([p.batch for p in pieces]):
        for i, piece in enumerate(pieces):
            _set_random(piece.before)
            outputs = job.model(piece.batch, objective.required_outputs, train=True)
            wanted = {**gradients[i], **({("aux", name): g for name, g in of_aux.items()} if i == 0 else {})}
            made = dict(_tensors(outputs))
            # Its gradient at each output is exactly the one that was asked for.
            sums = [(made[key] * g).sum() for key, g in wanted.items() if key in made and made[key].requires_grad]
            if sums:
                engine.backward(torch.stack(sums).sum())


def _bare(pieces: Sequence[_CachedBatch]) -> Iterator[_CachedBatch]:
    """Without what belongs to the model alone."""
    return (replace(p, batch=replace(p.batch, inputs=None)) for p in pieces)


def _tensors(outputs: Outputs) -> Iterator[tuple[Key, Tensor]]:
    for f in fields(outputs):
        value = getattr(outputs, f.name)
        if isinstance(value, Tensor):
            yield (f.name, ""), value
        elif value is not None:
            yield from (((f.name, name), tensor) for name, tensor in value.items())


def _moved(outputs: Outputs, device: torch.device) -> Outputs:
    return _built({key: tensor.detach().to(device) for key, tensor in _tensors(outputs)})


def _built(tensors: Mapping[Key, Tensor]) -> Outputs:
    made: dict[str, dict[str, Tensor]] = {}
    for (owner, name), tensor in tensors.items():
        made.setdefault(owner, {})[name] = tensor
    return Outputs(**{owner: own.get("", own) for owner, own in made.items()})  # type: ignore[arg-type]


def _leaves(outputs: Sequence[Outputs], batches: Sequence[Batch]) -> tuple[dict[Key, list[Tensor]], dict[str, Tensor]]:
    """For each output its pieces, one for each micro-batch; and the scalars of the model, once. All want gradients."""
    found = [dict(_tensors(o)) for o in outputs]
    leaves: dict[Key, list[Tensor]] = {}
    for key in dict.fromkeys(k for own in found for k in own if k[0] != "aux"):
        like = next(own[key] for own in found if key in own)
        # A kind of medium that a micro-batch lacks altogether.
        pieces = [
            own[key] if key in own else like.new_zeros(b.samples, *like.shape[1:])
            for own, b in zip(found, batches, strict=True)
        ]
        leaves[key] = [piece.requires_grad_() for piece in pieces]
    aux = {key[1]: tensor for key, tensor in found[0].items() if key[0] == "aux"}
    for own in found[1:]:
        theirs = {key[1]: tensor for key, tensor in own.items() if key[0] == "aux"}
        other = [
            n for n in aux.keys() | theirs.keys() if n not in aux or n not in theirs or not _equal(aux[n], theirs[n])
        ]
        if other:
            raise TrainError(
                f"wanted scalars of the model (Outputs.aux) that are the same in every micro-batch, found others for "
                f"{sorted(other)}: an objective of the whole batch cannot use them; take one of replies or groups"
            )
    return leaves, {name: tensor.clone().requires_grad_() for name, tensor in aux.items()}


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def _assembled(like: Outputs, leaves: Mapping[Key, Sequence[Tensor]], aux: Mapping[str, Tensor]) -> Outputs:
    whole = {key: torch.cat(list(pieces)) for key, pieces in leaves.items()}
    return _built({**whole, **{("aux", name): tensor for name, tensor in aux.items()}})


def _gradients(
    value: Tensor, leaves: Mapping[Key, Sequence[Tensor]], aux: Mapping[str, Tensor]
) -> tuple[dict[Key, list[Tensor]], dict[str, Tensor]]:
    flat = [*(piece for pieces in leaves.values() for piece in pieces), *aux.values()]
    found = iter(torch.autograd.grad(value, flat, allow_unused=True, materialize_grads=True))
    return {key: [next(found) for _ in pieces] for key, pieces in leaves.items()}, {n: next(found) for n in aux}


def _random() -> Random:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random(state: Random) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
