"""Reference weights of a stage: those at its start, those at the end of an earlier stage, or those of a model.

They are snapshots in the `TrainingContext`: "reference" for the current stage, and "end of NAME" for a stage that a
later one refers to. The weights at the start of the run are another one, for evaluations that compare with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mmpost.errors import ConfigError
from mmpost.training.context import TrainingContext
from mmpost.types import Bench, Stage, Transform

Load = Callable[[str], Mapping[str, Tensor]]
"""Loads the weights of a model, given its name or folder: by parameter, on the CPU."""


START = "start"
"""The snapshot of the weights that the run started from."""


def needs_start(benches: Sequence[Bench]) -> bool:
    """Whether a transform of a bench uses the weights that the run started from."""
    return any(isinstance(t, Transform) and t.requires_start for bench in benches for t in bench.transforms)


def needs_reference(stage: Stage) -> bool:
    """Whether a transform of the stage uses reference log-probs."""
    return any(isinstance(t, Transform) and t.requires_reference for t in stage.transforms)


def check(stages: Sequence[Stage]) -> None:
    """Raise ConfigError for a stage that refers to itself or to a later stage."""
    names = [stage.name for stage in stages]
    for place, stage in enumerate(stages):
        if stage.reference in names[place:]:
            raise ConfigError(
                f"stage {stage.name!r}: wanted as its reference an earlier stage, a model, or nothing (the weights at "
                f"its start), found {stage.reference!r}, which has not ended by then; earlier stages: {names[:place]}"
            )


def end_stage(context: TrainingContext, stage: Stage, stages: Sequence[Stage]) -> None:
    """At the end of `stage`, keep a copy of its weights if a later stage refers to them."""
    if _end_of(stage.name) in _needed(stages, stage):
        context.snapshot_weights(_end_of(stage.name))


def begin_stage(context: TrainingContext, stage: Stage, stages: Sequence[Stage], load: Load) -> None:
    """At the start of `stage`, after its edits, set the snapshot "reference" and drop snapshots that are not needed.

    Not called for a stage that is resumed: checkpoints hold all snapshots. Raises ConfigError where the reference does
    not fit the model that is trained.
    """
    earlier = [s.name for s in stages[: _place(stages, stage)]]
    needed = _needed(stages, stage, inclusive=True)
    for name in [name for name in context.snapshots if name not in (*needed, START)]:
        del context.snapshots[name]
    # Edits and freezing may have made more parameters trainable since the snapshot was taken.
    for name in context.snapshots:
        context.add_trainable(name)
    if not needs_reference(stage):
        return
    if not stage.reference:
        context.snapshot_weights("reference")
    elif stage.reference in earlier:
        context.set_snapshot("reference", context.snapshots[_end_of(stage.reference)])
    else:
        context.set_snapshot("reference", _model_weights(context, stage, load(stage.reference)))


def sync(context: TrainingContext, stage: Stage, steps_done: int) -> None:
    """After `steps_done` steps of the stage, move the reference towards the policy if it is due (`reference_sync`).

    Every n steps, reference = (1 - alpha) * reference + alpha * policy (TR-DPO, Gorbatovski et al. 2024).
    """
    if stage.reference_sync is None or not needs_reference(stage) or steps_done % stage.reference_sync[0]:
        return
    alpha, policy = stage.reference_sync[1], dict(context.model.module.named_parameters())
    weights = context.snapshots["reference"]
    context.set_snapshot(
        "reference", {k: w.lerp(policy[k].detach().to(w.device, w.dtype), alpha) for k, w in weights.items()}
    )


def _place(stages: Sequence[Stage], stage: Stage) -> int:
    # By name: a stage that reads a generated dataset is run as a copy with another source, which is not in the list.
    return [s.name for s in stages].index(stage.name)


def _end_of(name: str) -> str:
    """The name of the snapshot of the weights at the end of a stage; checkpoints store it."""
    return f"end of {name}"


def _needed(stages: Sequence[Stage], stage: Stage, inclusive: bool = False) -> set[str]:
    """Snapshots that the stages after `stage` refer to; `inclusive`: and those of `stage` itself."""
    rest = stages[_place(stages, stage) + (not inclusive) :]
    return {_end_of(s.reference) for s in rest if needs_reference(s) and s.reference}


def _model_weights(context: TrainingContext, stage: Stage, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reference model's values of the trainable parameters; its frozen ones must equal those of the policy.

    Only trainable weights are swapped in to compute reference log-probs, so a difference elsewhere would be lost.
    """
    where = f"stage {stage.name!r}: its reference is the model {stage.reference!r}"
    reference_weights = {}
    for name, p in context.model.module.named_parameters():
        if name not in weights or weights[name].shape != p.shape:
            raise ConfigError(
                f"{where}; wanted one with the architecture of the model that is trained, and no adapters, found no "
                f"{name} of shape {tuple(p.shape)} in it; name an earlier stage, or a model of this architecture"
            )
        if p.requires_grad:
            reference_weights[name] = weights[name].detach().to("cpu", copy=True)
        elif not weights[name].to(p.device, p.dtype).equal(p.detach()):
            raise ConfigError(
                f"{where}; wanted one that agrees with the trained model in all frozen weights, found other values in "
                f"{name}; do not freeze it (model.freeze), or name another model"
            )
    return reference_weights
