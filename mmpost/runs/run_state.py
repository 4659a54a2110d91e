"""The state of a run besides its weights: saved in checkpoints, restored when the run is resumed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmpost.config.renamed import upgrade_state
from mmpost.core import distributed, sample_io
from mmpost.core.run_files import CursorState
from mmpost.errors import TrainError
from mmpost.runs import checkpoint, prompt_recipe, resume
from mmpost.runs.checkpoint import Snapshot
from mmpost.runs.session import Session
from mmpost.selection.recorder import StageRecorder
from mmpost.training.batches import RolloutBatcher
from mmpost.training.trainer import StageProgress
from mmpost.types import Stage, Update

FORMAT = 1
"""Version of the run folder's layout."""
SAVING_SHARE = 20
"""Checkpoints by time are at least this many times as far apart as the last one took to save."""


def kept(root: Path) -> str:
    """What remains after a failed save, for its message."""
    good = checkpoint.newest(root)
    return "there is no checkpoint yet" if good is None else f"the last good checkpoint is {good}, which is kept"


class RunState:
    """The mutable state of a run: saves it in checkpoints and restores it."""

    def __init__(self, session: Session, folder: Path, recorder: StageRecorder, resumed_from: Path | None) -> None:
        """`resumed_from`: the checkpoint to continue from. Raises DataError if it is incomplete."""
        self.session, self.folder, self.recorder, self.resumed_from = session, folder, recorder, resumed_from
        self.base_hash = checkpoint.weights_hash(session.base)
        snapshot = checkpoint.load(resumed_from) if resumed_from else None
        self.pending = Snapshot(upgrade_state(snapshot.state), snapshot.tensors) if snapshot else None
        """The checkpoint's content, until the interrupted stage is resumed."""
        if resumed_from and self.pending:
            checkpoint.require_entries(resumed_from, self.pending)
        self.progress = StageProgress()
        self.update: Update | None = None
        self.steps_per_stage: dict[str, int] = {}
        self.results: dict[str, Any] = {}
        """Evaluations so far, as in summary.json."""
        self.best_step: int | None = None
        """The step of the checkpoint that `best` links to. A kill may come between saving and linking it."""
        self._last_stamp = checkpoint.stamp(self.pending) if self.pending else ""
        self._weights: dict[str, torch.Tensor] = {}
        self._started, self._earlier_seconds = time.time(), 0.0
        self._last_save, self._save_seconds = time.monotonic(), 0.0
        if self.pending is not None:
            self.results, self._earlier_seconds = dict(self.pending.state["results"]), self.pending.state["wall_s"]
            self.results.pop("eval_after", None)
            self.best_step = self.pending.state.get("best_step")

    @property
    def interrupted_stage(self) -> str | None:
        """The stage during which the checkpoint was written."""
        return self.pending.state["stage"] or None if self.pending else None

    def wall_seconds(self) -> float:
        """Seconds of this run, including those before it was resumed."""
        return round(self._earlier_seconds + time.time() - self._started, 2)

    # Saving.

    def is_due(self) -> bool:
        """Whether the first rank's clock asks for a checkpoint (`checkpoint.minutes`); every rank must call it."""
        seconds = 60 * self.session.config.checkpoint.minutes
        if not seconds:
            return False
        elapsed = time.monotonic() - self._last_save
        return bool(distributed.gather(elapsed >= max(seconds, SAVING_SHARE * self._save_seconds))[0])

    def save(self, stages: Sequence[str], best: bool = False, last: bool = False) -> None:
        """Write a checkpoint. If writing fails, the run continues without it, unless it is the last one."""
        context, settings = self.session.context, self.session.config.checkpoint
        start = time.monotonic()
        if best:
            self.best_step = context.step
        rollout_batch = distributed.gather(sample_io.pack(self.progress.samples))
        pending_metrics = distributed.gather(dict(self.progress.metrics))
        rng = distributed.gather(torch.get_rng_state())
        if distributed.rank() == 0:
            root, name = self.folder / "checkpoints", f"step-{context.step}"
            snapshot = Snapshot(self._state(stages, rollout_batch, pending_metrics), self._tensors(rng))
            try:
                # Nothing is written twice for one step, unless evaluations have been added since.
                if self._last_stamp != (stamp := checkpoint.stamp(snapshot)) or not (root / name).is_dir():
                    checkpoint.save(root, context.step, self.session.model, snapshot)
                    self._last_stamp = stamp
                else:
                    checkpoint.recover(root)
                if self.best_step is not None:
                    checkpoint.link_best(root, self.best_step)
                checkpoint.prune(root, settings.keep)
            except OSError as e:
                if last:
                    raise TrainError(f"{e}; {kept(root)}; make room, then mmpost train resume={self.folder}") from e
                print(f"mmpost: {e}; training continues, {kept(root)}", file=sys.stderr)
        distributed.barrier()
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - start

    def _state(self, stages: Sequence[str], rollout_batch: list[Any], pending_metrics: list[Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": self.session.context.step,
            "stage": self.session.context.scope,
            "stages": list(stages),
            "plan": self.steps_per_stage,
            "cursor": {name: getattr(self.progress, name) for name in CursorState.model_fields},
            "buffer": rollout_batch,
            "metrics": pending_metrics,
            "made": self.recorder.digests,
            "world": distributed.world(),
            **prompt_recipe.as_dict(self.session.model.recipe),
            "base_hash": self.base_hash,
            "wall_s": self.wall_seconds(),
            "results": self.results,
            "best_step": self.best_step,
        }

    def _tensors(self, rng: list[torch.Tensor]) -> dict[str, Any]:
        update = self.update.state_dict() if self.update else {}
        return {"update": update, "kept": self.session.context.snapshots, "rng": rng}

    # Resuming.

    def check_resumable(self, stages: Sequence[str]) -> None:
        """Raise ConfigError if the run resumed from the checkpoint would differ from the original one."""
        if self.pending is None:
            return
        expected: Mapping[str, Any] = {
            "stages": list(stages),
            "world": distributed.world(),
            "base_hash": self.base_hash,
            "format": FORMAT,
        }
        model, steps = self.session.model, self.session.config.steps
        resume.check(str(self.resumed_from), self.folder, self.pending.state, expected, model.recipe, steps)

    def keep_loaded_weights(self, stages: Sequence[Stage]) -> None:
        """Copy the loaded weights before edits are applied again, since edits may initialize weights (a head) anew."""
        if self.interrupted_stage and any(stage.edits for stage in stages):
            self._weights = resume.weights(self.session.model.module)

    def restore(self) -> None:
        """Restore adapters or edited weights, reference weights, the step, and random generators."""
        assert self.pending is not None
        assert self.resumed_from is not None
        context, module = self.session.context, self.session.model.module
        if (self.resumed_from / "trainer" / checkpoint.ADAPTERS).exists():
            checkpoint.load_adapters(self.resumed_from, module)
        else:
            resume.put_back(module, self._weights)
        context.snapshots = dict(self.pending.tensors["kept"])
        context.step = context.version = self.pending.state["step"]
        torch.set_rng_state(self.pending.tensors["rng"][distributed.rank()])

    def restore_training(self) -> None:
        """`restore`, and the state of the update and of the stage's progress."""
        assert self.pending is not None
        assert self.update is not None
        self.restore()
        self.update.load_state_dict(self.pending.tensors["update"])
        self.progress = StageProgress(**self.pending.state["cursor"])

    def restore_rollout_batch(self, batcher: RolloutBatcher) -> None:
        """Restore the rollout batch, if the checkpoint was written between two updates on one."""
        assert self.pending is not None
        packed = self.pending.state["buffer"][distributed.rank()]
        if packed is not None:
            batcher.drawn = self.progress.samples_drawn
            self.progress.samples = sample_io.unpack(packed, batcher.refetch([row["uid"] for row in packed]))
            # Checkpoints of earlier versions have none.
            self.progress.metrics = self.pending.state.get("metrics", [{}] * distributed.world())[distributed.rank()]
            self.session.context.restore_metrics(self.progress.metrics)

    def rewind(self) -> None:
        """After an interruption within a step: set the random generator back to the last finished step."""
        if self.progress.rng is not None:
            torch.set_rng_state(self.progress.rng)
