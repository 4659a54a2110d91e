"""Which weights a stage's reference log-probs are of: at its start, at an earlier stage's end, or a model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mmpost.errors import ConfigError
from mmpost.training.context import TrainingContext
from mmpost.types import Stage, Transform

Load = Callable[[str], Mapping[str, Tensor]]
"""The weights of a model by its name or folder, on the CPU, by parameter."""


def needs_reference(stage: Stage) -> bool:
    """Whether a transform of the stage asks for reference log-probs."""
    return any(isinstance(t, Transform) and t.requires_reference for t in stage.transforms)


def check(stages: Sequence[Stage]) -> None:
    """Raise ConfigError for a stage whose reference is itself or comes after it."""
    names = [stage.name for stage in stages]
    for place, stage in enumerate(stages):
        if stage.reference in names[place:]:
            raise ConfigError(
                f"stage {stage.name!r}: wanted as its reference an earlier stage, a model, or nothing (the weights at "
                f"its start), found {stage.reference!r}, which has not ended by then; earlier ones: {names[:place]}"
            )


def end_stage(job: TrainingContext, stage: Stage, stages: Sequence[Stage]) -> None:
    """`stage` has ended: pin the weights as they are where a later stage refers to them."""
    if _pin(stage.name) in _needed(stages, stage):
        job.snapshot_weights(_pin(stage.name))


def begin_stage(job: TrainingContext, stage: Stage, stages: Sequence[Stage], load: Load) -> None:
    """`stage` begins, its edits are in place: keep what its reference is, under that name; drop what nobody needs.

    A checkpoint holds all that is kept, so this is not called for a stage that is gone on with.
    """
    earlier = [s.name for s in stages[: _place(stages, stage)]]
    needed = _needed(stages, stage, itself=True)
    for name in [name for name in job.snapshots if name not in needed]:
        del job.snapshots[name]
    for name in job.snapshots:
        job.add_trainable(name)
    if not needs_reference(stage):
        return
    if not stage.reference:
        job.snapshot_weights("reference")
    elif stage.reference in earlier:
        job.set_snapshot("reference", job.snapshots[_pin(stage.reference)])
    else:
        job.set_snapshot("reference", _of_model(job, stage, load(stage.reference)))


def sync(job: TrainingContext, stage: Stage, done: int) -> None:
    """After `done` steps of the stage: move its reference towards the policy, where it is time (`Stage.follow`)."""
    if stage.reference_sync is None or not needs_reference(stage) or done % stage.reference_sync[0]:
        return
    share, now, kept = stage.reference_sync[1], dict(job.model.module.named_parameters()), job.snapshots["reference"]
    job.set_snapshot("reference", {k: w.lerp(now[k].detach().to(w.device, w.dtype), share) for k, w in kept.items()})


def _place(stages: Sequence[Stage], stage: Stage) -> int:
    # By name: a stage that reads what another recorded runs with a source of its own.
    return [s.name for s in stages].index(stage.name)


def _pin(name: str) -> str:
    """What the weights at the end of a stage are kept as."""
    return f"end of {name}"


def _needed(stages: Sequence[Stage], stage: Stage, itself: bool = False) -> set[str]:
    """What the stages after `stage`, or from it on, refer to."""
    rest = stages[_place(stages, stage) + (not itself) :]
    return {_pin(s.reference) for s in rest if needs_reference(s) and s.reference}


def _of_model(job: TrainingContext, stage: Stage, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What trains, as the model has it; what does not train must be the same there."""
    asked = f"stage {stage.name!r}: its reference is the model {stage.reference!r}, which"
    taken = {}
    for name, p in job.model.module.named_parameters():
        if name not in weights or weights[name].shape != p.shape:
            raise ConfigError(
                f"{asked} wants the architecture of the model that trains, and no adapters; found no {name} of shape "
                f"{tuple(p.shape)} in it; name an earlier stage, or a model of this architecture"
            )
        if p.requires_grad:
            taken[name] = weights[name].detach().to("cpu", copy=True)
        elif not weights[name].to(p.device, p.dtype).equal(p.detach()):
            raise ConfigError(
                f"{asked} wants to agree with the model that trains in all that is frozen; found other values in "
                f"{name}; let it train (model.freeze), or name another model"
            )
    return taken
