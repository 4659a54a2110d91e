"""The tensors of a model's outputs: by name, moved, and joined over micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from mmpost.core.samples import Batch, Outputs
from mmpost.errors import TrainError

Key = tuple[str, str]
"""A field of Outputs, and the name of the tensor within it; empty for a field that is a tensor itself."""


def named_tensors(outputs: Outputs) -> Iterator[tuple[Key, Tensor]]:
    """All tensors of the outputs."""
    for f in fields(outputs):
        value = getattr(outputs, f.name)
        if isinstance(value, Tensor):
            yield (f.name, ""), value
        elif value is not None:
            yield from (((f.name, name), tensor) for name, tensor in value.items())


def from_tensors(tensors: Mapping[Key, Tensor]) -> Outputs:
    """The inverse of `named_tensors`."""
    by_field: dict[str, dict[str, Tensor]] = {}
    for (field, name), tensor in tensors.items():
        by_field.setdefault(field, {})[name] = tensor
    return Outputs(**{field: named.get("", named) for field, named in by_field.items()})  # type: ignore[arg-type]


def detached_to(outputs: Outputs, device: torch.device) -> Outputs:
    """The outputs without their graph, on `device`."""
    return from_tensors({key: tensor.detach().to(device) for key, tensor in named_tensors(outputs)})


def by_micro_batch(outputs: Sequence[Outputs], batches: Sequence[Batch]) -> dict[Key, list[Tensor]]:
    """For each output except scalars of the model, one tensor per micro-batch."""
    tensors = [dict(named_tensors(o)) for o in outputs]
    pieces: dict[Key, list[Tensor]] = {}
    for key in dict.fromkeys(k for named in tensors for k in named if k[0] != "aux"):
        like = next(named[key] for named in tensors if key in named)
        # Zeros stand in for the embeddings of a modality that a micro-batch lacks altogether.
        pieces[key] = [
            named[key] if key in named else like.new_zeros(b.samples, *like.shape[1:])
            for named, b in zip(tensors, batches, strict=True)
        ]
    return pieces


def shared_scalars(outputs: Sequence[Outputs]) -> dict[str, Tensor]:
    """The scalars of the model (`Outputs.aux`), which must be the same in every micro-batch.

    Raises TrainError where they differ, such as an expert-balance loss: they could not be counted once.
    """
    aux = dict(outputs[0].aux)
    for other in outputs[1:]:
        differing = [
            n
            for n in aux.keys() | other.aux.keys()
            if n not in aux or n not in other.aux or not _equal(aux[n], other.aux[n])
        ]
        if differing:
            raise TrainError(
                "wanted scalars of the model (Outputs.aux) that are the same in every micro-batch, found different "
                f"values of {sorted(differing)}: an objective of the whole batch cannot use them; choose an objective "
                "of replies or groups"
            )
    return aux


def _equal(a: Tensor, b: Tensor) -> bool:
    # NaN equals NaN here: a loss that is not finite is reported as such later.
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def concatenated(pieces: Mapping[Key, Sequence[Tensor]], aux: Mapping[str, Tensor]) -> Outputs:
    """The outputs of all micro-batches together."""
    whole = {key: torch.cat(list(parts)) for key, parts in pieces.items()}
    return from_tensors({**whole, **{("aux", name): tensor for name, tensor in aux.items()}})
