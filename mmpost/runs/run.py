"""One run: its stages in order, its evaluations, logs and checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmpost.config import parsing
from mmpost.config.run_config import RunConfig
from mmpost.core import distributed
from mmpost.core.run_files import write
from mmpost.errors import ConfigError
from mmpost.listeners import Listeners
from mmpost.listeners.from_settings import listeners_of
from mmpost.models.opening import open_model
from mmpost.runs import base_models, checkpoint, resume, summary
from mmpost.runs.benchmarks import BenchmarksInTraining, weights_name
from mmpost.runs.configured_task import ConfiguredTask, evaluated_tasks
from mmpost.runs.run_state import FORMAT, RunState
from mmpost.runs.session import open_session
from mmpost.selection.recorder import StageRecorder
from mmpost.training import reference, trainer
from mmpost.training.batches import RolloutBatcher
from mmpost.training.evaluation import Estimate, run_benches, select_benches
from mmpost.training.logprob_cache import LogprobCache
from mmpost.training.media_probe import measure_media_use
from mmpost.training.trainer import Interrupted, LocalEngine, StopSignal
from mmpost.types import Bench, GenerativeModel, Sample, Split, Stage, Update
from mmpost.updates.adam import named_update


class Run:
    """A configured run in its folder, new or resumed from a checkpoint."""

    def __init__(
        self, config: RunConfig, folder: Path, resumed_from: Path | None = None, task: ConfiguredTask | None = None
    ) -> None:
        """`resumed_from`: the checkpoint to continue from; `task`: by default the one that `config` names."""
        self.config = config
        self.evaluated = evaluated_tasks(config)
        # Before the model is loaded, which takes minutes, so that mistakes in data and settings are reported at once.
        task = task or ConfiguredTask.load(config)
        self.stages: list[Stage] = task.stages()
        task.check_monitors(self.stages)
        benchmarks = BenchmarksInTraining(config.eval.benches, config.data.benches)
        # Adapters are applied to the base model first and then loaded; other checkpoints hold the whole model.
        full_weights = resumed_from is not None and not (resumed_from / "trainer" / checkpoint.ADAPTERS).exists()
        self.session = open_session(config, task, str(resumed_from) if full_weights else None)
        self.task, self.model, self.context = self.session.task, self.session.model, self.session.context
        self.folder = Path(distributed.gather(str(folder))[0])
        self.stop = StopSignal()
        self.recorder = StageRecorder(self.folder, self.context, self.stop, self._print)
        self.state = RunState(self.session, self.folder, self.recorder, resumed_from)
        is_main = distributed.rank() == 0
        token_strings = self.model.token_strings if isinstance(self.model, GenerativeModel) else None
        self.listeners = Listeners(list(listeners_of(config.log, token_strings)) if is_main else [])
        self._benches: dict[str, list[Bench]] = {}
        self._benchmarks = benchmarks

    def train(self) -> dict[str, Any]:
        """Evaluate, train all stages, evaluate; returns the content of summary.json.

        If stopped by a signal, the run saves a checkpoint and its summary has the status "stopped". Raises TrainError
        where the disk is full.
        """
        with checkpoint.explained_full_disk(self.folder):
            return self._train()

    def _train(self) -> dict[str, Any]:
        self._prepare()
        self._open()
        results, status, reason = self.state.results, "failed", ""
        try:
            with self.stop:
                self._keep_start()
                if self.config.eval.before and "eval_before" not in results:
                    results["eval_before"] = self._evaluate("test", "before") | self._evaluate_benchmarks()
                if self.config.eval.on_start and "eval_start" not in results:
                    results["eval_start"] = self._evaluate("val", "step-000000")
                try:
                    self._run_stages()
                except Interrupted:
                    self.state.rewind()
                self._save(last=True)
                if self.stop.requested:
                    status, reason = "stopped", "by a signal"
                else:
                    if self.config.eval.after:
                        results["eval_after"] = self._evaluate("test", "after") | self._evaluate_benchmarks()
                    status = "done"
        except BaseException as e:
            reason = f"{type(e).__name__}: {e}"
            raise
        finally:
            content = self._close(status, reason)
        return content

    # Stages.

    def _prepare(self) -> None:
        """Check the stages, add adapters and freeze parameters; all mistakes are reported before any computation."""
        names = [stage.name for stage in self.stages]
        reference.check(self.stages)
        unknown = sorted(set(self.config.stages) - set(names))
        if unknown:
            raise ConfigError(f"stages.{unknown[0]}: the task has the stages {names}")
        self.state.check_resumable(names)
        # All ranks initialize the same adapters; afterwards their random numbers differ.
        torch.manual_seed(self.config.seed)
        self.session.apply_model_settings()
        for stage in self.stages:
            update = self._update(stage)
            if stage.objective is not None:
                update.start(self.model.module, self.model.parameter_groups(), 1)
        torch.manual_seed(self.config.seed + distributed.rank())

    def _update(self, stage: Stage) -> Update:
        return stage.update or named_update(self.task.optim(stage))

    def _run_stages(self) -> None:
        fractions = [(stage.name, self._fraction(stage)) for stage in self.stages]
        pending = self.state.pending
        self.state.steps_per_stage = resume.plan(self.config.steps, fractions, pending.state if pending else None)
        interrupted = self.state.interrupted_stage
        self.state.keep_loaded_weights(self.stages)
        for stage in self.stages:
            is_run = self.state.steps_per_stage[stage.name] or stage.objective is None
            if is_run:
                self._edit(stage)
            if interrupted is not None and stage.name != interrupted:
                # This stage ended before the checkpoint; only its edits are applied again.
                if stage.objective is None and pending is not None:
                    digest = pending.state["made"].get(stage.name, "")
                    self.recorder.load(self.recorder.resolve_source(stage), digest)
                continue
            if is_run:
                self._run_stage(self.recorder.resolve_source(stage), resumes=stage.name == interrupted)
                if self.stop.requested:
                    return
            interrupted = self.state.pending = None
            reference.end_stage(self.context, stage, self.stages)

    def _fraction(self, stage: Stage) -> float:
        settings = self.config.stages.get(stage.name)
        if stage.objective is None:
            return 0.0
        return stage.fraction if settings is None or settings.fraction is None else settings.fraction

    def _edit(self, stage: Stage) -> None:
        """Apply the stage's edits, with the same random initialization on every rank."""
        self.context.scope = stage.name
        with torch.random.fork_rng():
            # Not by the step: a resumed run applies the edits of earlier stages again, at the step that it starts from.
            torch.manual_seed(self.context.seed_for("edits", step=0))
            for edit in stage.edits:
                edit(self.model)

    def _run_stage(self, stage: Stage, resumes: bool) -> None:
        if stage.objective is None:
            self._generate_dataset(stage, resumes)
            return
        state = self.state
        state.update = self._update(stage)
        state.update.start(self.model.module, self.model.parameter_groups(), state.steps_per_stage[stage.name])
        state.progress = trainer.StageProgress()
        self._cache_reference_logprobs(stage)
        batcher = RolloutBatcher(stage, self.context)
        if resumes:
            state.restore_training()
            if state.progress.samples_drawn:
                state.restore_rollout_batch(batcher)
        else:
            reference.begin_stage(self.context, stage, self.stages, self._reference_weights)
        state.pending = None
        engine = LocalEngine(self.model.module, state.update)
        steps = state.steps_per_stage[stage.name]
        condition = trainer.StopCondition(
            steps, self.stop, self.config.max_zero_gradient_steps, lambda: engine.update.should_stop
        )
        trainer.train_stage(self.context, batcher, engine, state.progress, condition, partial(self._after_step, stage))
        if engine.update.should_stop and state.progress.steps_done < steps:
            self._print(f"\nmmpost: stage {stage.name} ends early, after {state.progress.steps_done} of {steps} steps")

    def _generate_dataset(self, stage: Stage, resumes: bool) -> None:
        """Run or resume a stage without objective."""
        if resumes:
            self.state.restore()
        else:
            reference.begin_stage(self.context, stage, self.stages, self._reference_weights)
        self.state.pending = None
        saves = self.state.is_due() or self.config.checkpoint.every
        if saves and not (self.folder / "checkpoints" / f"step-{self.context.step}").is_dir():
            # A kill during data generation then leaves a checkpoint to resume from.
            self._save()
        self.recorder.record(stage, self.state.base_hash or self.config.model.name, self.model.recipe.hash)

    def _cache_reference_logprobs(self, stage: Stage) -> None:
        # Log-probs of a reference that is synchronized with the policy are never reused.
        if not reference.needs_reference(stage) or not self.context.reuse or stage.reference_sync is not None:
            return
        identity = (self.state.base_hash, self.config.model, [s.edits for s in self.stages])
        self.context.logprob_caches["reference"] = LogprobCache(
            base_models.cache_dir() / "logp.sqlite", *identity, recorded=stage.reads_from is not None
        )

    def _reference_weights(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of another model, loaded on the CPU with this run's settings."""
        changes = {"name": name, "device": "cpu", "attn_implementation": "sdpa"}
        settings = self.config.model.model_copy(update=changes)
        model = open_model(base_models.resolve(name, self.config.seed), settings, self.config.compute)
        return dict(model.module.named_parameters())

    # After each step.

    def _after_step(self, stage: Stage, metrics: dict[str, float], samples: Sequence[Sample]) -> None:
        reference.sync(self.context, stage, self.state.progress.steps_done)
        step, log, every = self.context.step, self.config.log, self.config.checkpoint.every
        line: dict[str, Any] = {"step": step, "stage": self.context.scope, **metrics}
        if isinstance(self.model, GenerativeModel):
            escaped = sum(distributed.gather(sum(map(self.model.count_escaped_tokens, samples))))
            if escaped:
                line["data/escaped_tokens"] = escaped
        if log.probe_every and step % log.probe_every == 1 % log.probe_every:
            line |= self._probe(samples)
        improved = False
        if self.config.eval.every and step % self.config.eval.every == 0:
            scores = self._evaluate("val", f"step-{step:06d}")
            line |= {f"eval/{name}": score["value"] for name, score in scores.items()}
            improved = self._improved(scores)
            assert self.state.update is not None
            self.state.update.observe({name: score["value"] for name, score in scores.items()})
        if due := self._benchmarks.due(step):
            line |= {f"eval/{name}": score["value"] for name, score in self._evaluate_benchmarks(due).items()}
        self.listeners.on_metrics(line)
        if log.samples_every and step % log.samples_every == 0:
            self.listeners.on_samples(step, [s for part in distributed.gather(list(samples)) for s in part])
        if self.state.is_due() or improved or (every and step % every == 0):
            self._save(best=improved)

    def _probe(self, samples: Sequence[Sample]) -> dict[str, float]:
        """How much log-probs change without the media, measured on the first rank's samples."""
        if distributed.rank():
            return {}
        with self.context.isolated("probe"):
            use = measure_media_use(samples, self.context)
        return use.numbers() if use else {}

    def _evaluate(self, split: Split, name: str) -> dict[str, Estimate]:
        log = partial(self.listeners.on_eval, name)
        return run_benches(self.context, self._benches_of(split), self.config.eval.max_samples, log)

    def _evaluate_benchmarks(self, names: Sequence[str] | None = None) -> dict[str, Estimate]:
        weights = weights_name(self.state.base_hash, self._resolved(), self.context.step)
        size = self.config.compute.rollout_batch_size
        return self._benchmarks.evaluate(self.context, self.folder, weights, size, names)

    def _benches_of(self, split: Split) -> list[Bench]:
        if split not in self._benches:
            self._benches[split] = select_benches(self.task, self.evaluated, self.config.eval, split)
        return self._benches[split]

    def _keep_start(self) -> None:
        """Keep the weights that a new run starts from, if evaluations compare with them; checkpoints hold them."""
        if self.state.pending is None and reference.needs_start([*self._benches_of("val"), *self._benches_of("test")]):
            self.context.snapshot_weights(reference.START)

    def _improved(self, scores: dict[str, Estimate]) -> bool:
        """Whether these scores are the best so far by the task's `best_metric`; remembers them if so."""
        metric = self.task.best_metric
        name, sign = metric.removeprefix("-"), -1 if metric.startswith("-") else 1
        best = self.state.results.get("eval_best", {})
        if name not in scores or (name in best and sign * scores[name]["value"] <= sign * best[name]["value"]):
            return False
        self.state.results["eval_best"] = scores
        return True

    def _save(self, best: bool = False, last: bool = False) -> None:
        self.state.save([stage.name for stage in self.stages], best=best, last=last)

    # Start and end.

    def _open(self) -> None:
        if distributed.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / "config.yaml", parsing.dump(self._resolved()).encode())
        self.listeners.on_start(self.folder, self._resolved(), self.config.steps)

    def _close(self, status: str, reason: str) -> dict[str, Any]:
        # A rank that failed is alone here, so rows are gathered only if no rank failed.
        messages = list(self.context.skipped)
        skipped = distributed.gather(messages) if status == "done" else [messages]
        notes = list(self.task.task.notes())
        content: dict[str, Any] = {
            "status": status,
            "reason": reason,
            **self.state.results,
            **summary.forgotten(self.state.results, self._benches.get("test", ())),
            **summary.skipped_rows(row for part in skipped for row in part),
            **({"notes": notes} if notes else {}),
            **self.recorder.summary(),
            "format": FORMAT,
            "steps": self.context.step,
            "wall_s": self.state.wall_seconds(),
            "model": self.config.model.name,
            "base_model": self.config.model.base_model or self.config.model.name,
            "base_hash": self.state.base_hash,
            "recipe_hash": self.model.recipe.hash,
            "seed": self.config.seed,
            "versions": summary.versions(),
        }
        if distributed.rank() == 0:
            # The summary comes last: a run that it calls done has everything, and is not resumed after a kill.
            try:
                self.listeners.on_end(content)
            finally:
                summary.write(self.folder, content)
            summary.print_summary(self.folder, content)
        distributed.stop()
        return content

    def _resolved(self) -> dict[str, Any]:
        """All settings with defaults resolved, so that `config=RUN/config.yaml` repeats the run."""
        resolved = self.config.model_dump(mode="json")
        task = self.task.task.model_dump(mode="json", exclude={"data"})
        resolved["task"] = {"name": self.config.task["name"], **task}
        # An `optim` field that a stage of the task sets must stay unset; all others are written out.
        by_stages = {name for stage in self.stages for name in stage.optim} - self.config.optim.model_fields_set
        resolved["optim"] = {name: value for name, value in resolved["optim"].items() if name not in by_stages}
        return resolved

    def _print(self, text: str) -> None:
        if distributed.rank() == 0 and self.config.log.progress:
            print(text, file=sys.stderr)
