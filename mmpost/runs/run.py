"""One run: its stages in order, and everything that is written about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmpost.config import run_config as config
from mmpost.config.run_config import RunConfig
from mmpost.core import distributed, sample_io
from mmpost.core.run_files import write
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.engine.local import LocalEngine
from mmpost.errors import ConfigError, TrainError
from mmpost.listeners import Listeners
from mmpost.listeners.from_settings import listeners_of
from mmpost.models.opening import open_model
from mmpost.rollout.local import LocalRollout
from mmpost.runs import base_models, checkpoint, prompt_recipe, resume as resuming, summary
from mmpost.runs.checkpoint import Snapshot
from mmpost.selection.recorder import StageRecorder
from mmpost.training import reference, trainer
from mmpost.training.batches import RolloutBatcher
from mmpost.training.context import TrainingContext
from mmpost.training.evaluation import Estimate, benches_of, run_benches
from mmpost.training.interrupts import Interrupted, StopSignal
from mmpost.training.logprob_cache import LogprobCache
from mmpost.training.media_probe import measure_media_use
from mmpost.training.stage_checks import checked_stages
from mmpost.types import Bench, Sample, Split, Stage, Task, Update
from mmpost.updates.plain import Plain

FORMAT = 1
"""Version of the run folder's layout."""


class Run:
    """A configured run in its folder, new or going on from a checkpoint."""

    def __init__(
        self,
        run_config: RunConfig,
        task: Task,
        folder: Path,
        resume: Path | None = None,
        evaluated: Mapping[str, Task] | None = None,
    ) -> None:
        """`evaluated`: the tasks of `eval.tasks`, by the names they have there."""
        self.config, self.task, self.resume, self.evaluated = run_config, task, resume, evaluated or {}
        if run_config.compute.threads:
            torch.set_num_threads(run_config.compute.threads)
        base = base_models.resolve(run_config.model.name, run_config.seed)
        distributed.start(run_config.model.device)
        self.folder = Path(distributed.gather(str(folder))[0])
        self.base_hash = checkpoint.weights_hash(base)
        self.before = checkpoint.load(resume) if resume else None
        whole = resume is not None and not (resume / "trainer" / checkpoint.ADAPTERS).exists()
        compute = run_config.compute
        self.model = open_model(str(resume) if whole else base, run_config.model, compute)
        if resume is None and distributed.rank() == 0:
            prompt_recipe.warn(base, self.model.recipe)
        rollout = LocalRollout(self.model, compute.rollout_batch_size)
        skips, share = run_config.data.on_error == "skip", compute.reuse == "auto"
        self.job = TrainingContext(self.model, rollout, run_config.seed, skips=skips, share=share)
        self.cursor = trainer.StageProgress()
        self._saved = checkpoint.stamp(self.before) if self.before else ""
        """Stamp of the checkpoint that was written last, or gone on from."""
        self.update: Update | None = None
        self.stop = StopSignal()
        self.recordings = StageRecorder(self.folder, self.job, self.stop, self._say)
        self.listeners = Listeners(
            list(listeners_of(run_config.log, self.model.token_strings)) if distributed.rank() == 0 else []
        )
        self.results: dict[str, Any] = {}
        """Evaluations so far, as the summary will hold them."""
        self._start, self._earlier = time.time(), 0.0
        self._plan: dict[str, int] = {}
        self._made: list[Stage] = []
        self._benches: dict[str, list[Bench]] = {}

    def train(self) -> dict[str, Any]:
        """Evaluate, train all stages, evaluate; leaves the run folder. Stopped by a signal, it saves and says so."""
        self._prepare()
        self._open()
        status, reason = "failed", ""
        try:
            with self.stop:
                if self.config.eval.before and "eval_before" not in self.results:
                    self.results["eval_before"] = self._evaluate("test", "before")
                try:
                    self._stages()
                except Interrupted:
                    self._rewind()
                self._save(last=True)
                if self.stop.requested:
                    status, reason = "stopped", "by a signal"
                else:
                    if self.config.eval.after:
                        self.results["eval_after"] = self._evaluate("test", "after")
                    status = "done"
        except BaseException as e:
            reason = f"{type(e).__name__}: {e}"
            raise
        finally:
            ended = self._close(status, reason)
        return ended

    # Stages.

    def _prepare(self) -> None:
        """The stages, and the user's edits: what is wrong with them must show before anything is computed."""
        self._made = checked_stages(self.task)
        self.stages = [(stage.name, self._share(stage)) for stage in self._made]
        self._check_stages()
        if self.before is not None:
            self._check_resume(self.before.state)
        # Every rank draws the same adapters; what ranks draw afterwards is their own.
        torch.manual_seed(self.config.seed)
        if self.config.model.lora is not None:
            Lora(self.config.model.lora)(self.model)
        if self.config.model.freeze:
            Freeze(self.config.model.freeze)(self.model)
        for stage in self._made:
            optim = config.stage_optim(self.config, stage.name, stage.optim)
            if stage.objective is not None:
                (stage.update or Plain(optim)).start(self.model.module, self.model.parameter_groups(), 1)
        torch.manual_seed(self.config.seed + distributed.rank())

    def _stages(self) -> None:
        self._plan = resuming.plan(self.config.steps, self.stages, self.before.state if self.before else None)
        at = self.before.state["stage"] or None if self.before else None
        # Edits are run again, on a model that has had them: what they make afresh (a head) must not stay so.
        self.weights = resuming.weights(self.model.module) if at and any(s.edits for s in self._made) else {}
        for stage in self._made:
            runs = self._plan[stage.name] or stage.objective is None
            if runs:
                self._edit(stage)
            if at is not None and stage.name != at:
                # Finished before the checkpoint; its edits are in place again.
                if stage.objective is None and self.before is not None:
                    self.recordings.load(self.recordings.resolve_source(stage), self.before.state["made"][stage.name])
                continue
            if runs:
                self._run_stage(self.recordings.resolve_source(stage), self.before if at == stage.name else None)
                if self.stop.requested:
                    return
            at = None
            reference.end_stage(self.job, stage, self._made)

    def _run_stage(self, stage: Stage, snapshot: Snapshot | None) -> None:
        if stage.objective is None:
            self._record(stage, snapshot)
            return
        self._enter(stage, snapshot)
        feed, engine = RolloutBatcher(stage, self.job), LocalEngine(self.model.module, self._update())
        if self.before is not None and self.cursor.samples_drawn:
            self._refill(feed)
        self.before = None
        until = trainer.StopCondition(self._plan[stage.name], self.stop, self.config.max_zero_gradient_steps)
        trainer.train_stage(self.job, feed, engine, self.cursor, until, partial(self._watch, stage))

    def _record(self, stage: Stage, snapshot: Snapshot | None) -> None:
        """Make the data of a stage without objective, or what is missing of them."""
        if snapshot is None:
            reference.begin_stage(self.job, stage, self._made, self._weights_of)
        else:
            self._restore(snapshot)
            self.before = None
        if self.config.checkpoint.every and not (self.folder / "checkpoints" / f"step-{self.job.step}").is_dir():
            # A kill while data are made leaves something to go on from.
            self._save()
        self.recordings.record(stage, self.base_hash or self.config.model.name, self.model.recipe.hash)

    def _edit(self, stage: Stage) -> None:
        """The stage's own edits, drawn alike on every rank."""
        self.job.scope = stage.name
        with torch.random.fork_rng():
            torch.manual_seed(self.job.seed_for("edits"))
            for edit in stage.edits:
                edit(self.model)

    def _enter(self, stage: Stage, snapshot: Snapshot | None) -> None:
        """Make the stage's update and kept weights, or take them from a checkpoint."""
        optim = config.stage_optim(self.config, stage.name, stage.optim)
        self.update = stage.update or Plain(optim)
        self.update.start(self.model.module, self.model.parameter_groups(), self._plan[stage.name])
        self.cursor = trainer.StageProgress()
        # What a moving reference says is never asked for again.
        if reference.needs_reference(stage) and self.job.reuse and stage.reference_sync is None:
            decides = (self.base_hash, self.config.model, [s.edits for s in self._made])
            self.job.logprob_caches["reference"] = LogprobCache(
                base_models.cache_dir() / "logp.sqlite", *decides, recorded=stage.reads_from is not None
            )
        if snapshot is None:
            reference.begin_stage(self.job, stage, self._made, self._weights_of)
            return
        self._restore(snapshot)
        self.update.load_state_dict(snapshot.tensors["update"])
        self.cursor = trainer.StageProgress(**snapshot.state["cursor"])

    def _restore(self, snapshot: Snapshot) -> None:
        """Weights that are not the model's own, the step, and random generators."""
        assert self.resume is not None
        if (self.resume / "trainer" / checkpoint.ADAPTERS).exists():
            checkpoint.load_adapters(self.resume, self.model.module)
        else:
            resuming.put_back(self.model.module, self.weights)
        self.job.snapshots = dict(snapshot.tensors["kept"])
        self.job.step = self.job.version = snapshot.state["step"]
        torch.set_rng_state(snapshot.tensors["rng"][distributed.rank()])

    def _weights_of(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of another model; only this section's name and place are not as configured."""
        settings = self.config.model.model_copy(update={"name": name, "device": "cpu", "attn_implementation": "sdpa"})
        other = open_model(base_models.resolve(name, self.config.seed), settings, self.config.compute)
        return dict(other.module.named_parameters())

    def _refill(self, feed: RolloutBatcher) -> None:
        """The rollout batch that the checkpoint stood in, if it stood in one."""
        assert self.before is not None
        packed = self.before.state["buffer"][distributed.rank()]
        if packed is not None:
            feed.drawn = self.cursor.samples_drawn
            self.cursor.samples = sample_io.unpack(packed, feed.refetch([row["uid"] for row in packed]))

    def _update(self) -> Update:
        assert self.update is not None
        return self.update

    def _rewind(self) -> None:
        """Cut off between two steps: random numbers as after the last whole one."""
        if self.cursor.rng is not None:
            torch.set_rng_state(self.cursor.rng)

    # After each step.

    def _watch(self, stage: Stage, numbers: dict[str, float], samples: Sequence[Sample]) -> None:
        reference.sync(self.job, stage, self.cursor.steps_done)
        step, every = self.job.step, self.config.checkpoint.every
        line: dict[str, Any] = {"step": step, "stage": self.job.scope, **numbers}
        escaped = sum(distributed.gather(sum(map(self.model.count_escaped_tokens, samples))))
        if escaped:
            line["data/escaped"] = escaped
        better = False
        if self.config.log.probe_every and step % self.config.log.probe_every == 1 % self.config.log.probe_every:
            line |= self._probe(samples)
        if self.config.eval.every and step % self.config.eval.every == 0:
            scores = self._evaluate("val", f"step-{step:06d}")
            line |= {f"eval/{name}": score["value"] for name, score in scores.items()}
            better = self._better(scores)
        self.listeners.on_metrics(line)
        if self.config.log.samples_every and step % self.config.log.samples_every == 0:
            self.listeners.on_samples(step, [s for part in distributed.gather(list(samples)) for s in part])
        if better or (every and step % every == 0):
            self._save(best=better)

    def _probe(self, samples: Sequence[Sample]) -> dict[str, float]:
        """How far log-probs move without the media, on the first rank's samples."""
        if distributed.rank():
            return {}
        with self.job.isolated("probe"):
            use = measure_media_use(samples, self.job)
        return use.numbers() if use else {}

    def _evaluate(self, split: Split, name: str) -> dict[str, Estimate]:
        if split not in self._benches:
            self._benches[split] = self.benches(split)
        log = partial(self.listeners.on_eval, name)
        return run_benches(self.job, self._benches[split], self.config.eval.max_samples, log)

    def benches(self, split: Split) -> list[Bench]:
        """The evaluations of a split: the task's, or for the test split those of other tasks, where any are named."""
        if split != "test" or not self.evaluated:
            return self.task.benches(split)
        return benches_of(self.evaluated, {name: one.benches for name, one in self.config.eval.tasks.items()})

    def _better(self, scores: dict[str, Estimate]) -> bool:
        """Whether these are the best so far by the task's own metric."""
        name, sign = self.task.best_metric.removeprefix("-"), -1 if self.task.best_metric.startswith("-") else 1
        best = self.results.get("eval_best", {})
        if name not in scores or (name in best and sign * scores[name]["value"] <= sign * best[name]["value"]):
            return False
        self.results["eval_best"] = scores
        return True

    def _save(self, best: bool = False, last: bool = False) -> None:
        """Write a checkpoint; a full disk costs this checkpoint, not the run, unless it is the last."""
        buffer = distributed.gather(sample_io.pack(self.cursor.samples))
        rng = distributed.gather(torch.get_rng_state())
        if distributed.rank() == 0:
            root, folder = self.folder / "checkpoints", f"step-{self.job.step}"
            now = Snapshot(self._state(buffer), self._tensors(rng))
            try:
                if self._saved != (stamp := checkpoint.stamp(now)) or not (root / folder).is_dir():
                    checkpoint.save(root, self.job.step, self.model, now)
                    self._saved = stamp
                if best:
                    checkpoint.set_link(root / "best", folder)
                checkpoint.prune(root, self.config.checkpoint.keep)
            except OSError as e:
                if last:
                    raise TrainError(f"{e}; the last good checkpoint is {checkpoint.newest(root)}") from e
                print(f"mmpost: {e}; training goes on, the last good one stays", file=sys.stderr)
        distributed.barrier()

    def _state(self, buffer: list[Any]) -> dict[str, Any]:
        kept = ("steps_done", "rollout", "updates_done", "samples_drawn", "zero_gradient_steps")
        return {
            "format": FORMAT,
            "step": self.job.step,
            "stage": self.job.scope,
            "stages": [name for name, _ in self.stages],
            "plan": self._plan,
            "cursor": {name: getattr(self.cursor, name) for name in kept},
            "buffer": buffer,
            "made": self.recordings.digests,
            "world": distributed.world(),
            **prompt_recipe.as_dict(self.model.recipe),
            "base_hash": self.base_hash,
            "wall_s": self._wall(),
            "results": self.results,
        }

    def _tensors(self, rng: list[torch.Tensor]) -> dict[str, Any]:
        return {"update": self.update.state_dict() if self.update else {}, "kept": self.job.snapshots, "rng": rng}

    # Start and end.

    def _check_resume(self, state: Mapping[str, Any]) -> None:
        """Refuse to go on where the result would be another run."""
        names = [name for name, _ in self.stages]
        wanted = {"stages": names, "world": distributed.world(), "base_hash": self.base_hash, "format": FORMAT}
        resuming.check(str(self.resume), self.folder, state, wanted, self.model.recipe, self.config.steps)

    def _open(self) -> None:
        if self.before is not None:
            self.results, self._earlier = dict(self.before.state["results"]), self.before.state["wall_s"]
            self.results.pop("eval_after", None)
        if distributed.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / "config.yaml", config.dump(self._resolved()).encode())
        self.listeners.on_start(self.folder, self._resolved(), self.config.steps)

    def _close(self, status: str, reason: str) -> dict[str, Any]:
        # A rank that failed is alone here: the others' rows are asked for only where all have come.
        skipped = distributed.gather(list(self.job.skipped)) if status == "done" else [list(self.job.skipped)]
        ended: dict[str, Any] = {
            "status": status,
            "reason": reason,
            **self.results,
            **summary.skipped_rows(row for part in skipped for row in part),
            **self.recordings.summary(),
            "format": FORMAT,
            "steps": self.job.step,
            "wall_s": self._wall(),
            "model": self.config.model.name,
            "base_model": self.config.model.base_model or self.config.model.name,
            "base_hash": self.base_hash,
            "recipe_hash": self.model.recipe.hash,
            "seed": self.config.seed,
            "versions": summary.versions(),
        }
        if distributed.rank() == 0:
            summary.write(self.folder, ended)
            self.listeners.on_end(ended)
            summary.print_summary(self.folder, ended)
        distributed.stop()
        return ended

    def _wall(self) -> float:
        return round(self._earlier + time.time() - self._start, 2)

    def _resolved(self) -> dict[str, Any]:
        """All settings as they apply, stage by stage, so that `config=RUN/config.yaml` repeats the run."""
        resolved = self.config.model_dump(mode="json")
        task = self.task.model_dump(mode="json", exclude={"data"})
        resolved["task"] = {"name": self.config.task["name"], **task}
        # A field that a stage of the task sets must stay open to it; the others are written out.
        theirs = {field for stage in self._made for field in stage.optim} - self.config.optim.model_fields_set
        resolved["optim"] = {k: v for k, v in resolved["optim"].items() if k not in theirs}
        return resolved

    def _share(self, stage: Stage) -> float:
        own = self.config.stages.get(stage.name)
        if stage.objective is None:
            return 0.0
        return stage.fraction if own is None or own.fraction is None else own.fraction

    def _check_stages(self) -> None:
        names = [name for name, _ in self.stages]
        reference.check(self._made)
        unknown = sorted(set(self.config.stages) - set(names))
        if unknown:
            raise ConfigError(f"stages.{unknown[0]}: the task has the stages {names}")

    def _say(self, text: str) -> None:
        if distributed.rank() == 0 and self.config.log.progress:
            print(text, file=sys.stderr)
