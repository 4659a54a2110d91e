"""Where all parts meet: a configuration becomes a task, a model, an engine and listeners, and then a run."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mmpost import bases, checkpoint, config, dist, registry, trainer
from mmpost.config import RunConfig
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.engine.local import LocalEngine
from mmpost.errors import ConfigError
from mmpost.evaluation import Score, run_benches
from mmpost.job import Job
from mmpost.listeners import (
    Curves,
    JsonlMetrics,
    Listener,
    Listeners,
    Progress,
    SamplesLog,
    TensorBoard,
    Trackio,
    Wandb,
)
from mmpost.models.chat import ChatModel
from mmpost.rollout.local import LocalRollout
from mmpost.types import Sample, Split, Stage, Task, Update
from mmpost.updates.plain import Plain

FORMAT = 1
"""Version of the run folder's layout."""
LIBRARIES = ("mmpost", "torch", "torchvision", "transformers", "tokenizers", "peft", "numpy")


def train(words: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Train as configured; returns what summary.json holds."""
    run_config, aside = config.load(words)
    if run_config.compute.threads:
        torch.set_num_threads(run_config.compute.threads)
    name = run_config.task["name"]
    folder = new_folder(aside.get("out"), name)
    return Run(run_config, folder).train()


def evaluate(words: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluate `model` on the task's test split: prints a table, writes eval.json, returns its content.

    eval.json goes into `out`; without one into the run folder that `model` names, else into a new one.
    """
    run_config, aside = config.load(words)
    named = Path(run_config.model.name)
    if "out" not in aside and (named / "checkpoints").is_dir():
        folder = named
    else:
        folder = new_folder(aside.get("out"), f"eval-{run_config.task['name']}")
    run = Run(run_config, folder)
    scores = run_benches(run.job, run.task.benches("test"), run_config.eval.samples)
    result = {"model": str(named), "task": run_config.task, "scores": scores}
    if dist.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "eval.json").write_text(json.dumps(result, indent=1))
        Console().print(table(f"{run_config.task['name']}, test split, {named}", {"": scores}))
        Console().print(f"written to {folder / 'eval.json'}", highlight=False, soft_wrap=True)
    dist.stop()
    return result


def load(name: str, **settings: Any) -> ChatModel:
    """The model that `model=name` means on the command line, with the fields of the `model` section as arguments."""
    run_config = config.decode(config.ModelSettings, {"name": name, **settings}, "model.")
    return ChatModel.load(bases.resolve(name, 0), run_config)


def make_task(run_config: RunConfig) -> Task:
    """The task that a configuration names, with its fields decoded."""
    kind = registry.exported(registry.module(run_config.task["name"], "mmpost.tasks"), Task)
    fields = {k: v for k, v in run_config.task.items() if k != "name"}
    if "data" in fields:
        raise ConfigError("unknown key task.data; the data section is at the top: data.train, data.test, ...")
    return config.decode(kind, {**fields, "data": run_config.data}, "task.")


def new_folder(out: str | None, name: str) -> Path:
    """The run's folder: `out`, which must be new or empty, else runs/<name>/<time>. Every rank gets the same."""
    folder = Path(out) if out else Path("runs") / name / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    if out and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"out={out} is not empty; name a new folder, so that no run is overwritten")
    return folder


class Run:
    """One configured run: its task, model and job, and everything that is written about it."""

    def __init__(self, run_config: RunConfig, folder: Path) -> None:
        self.config = run_config
        self.task = make_task(run_config)
        self.stages = [(stage.name, self._share(stage)) for stage in self.task.stages()]
        self._check_stages()
        base = bases.resolve(run_config.model.name, run_config.seed)
        compute = run_config.compute
        device = torch.device("cuda" if torch.cuda.is_available() and run_config.model.device != "cpu" else "cpu")
        dist.start(device)
        self.folder = Path(dist.gather(str(folder))[0])
        torch.manual_seed(run_config.seed + dist.rank())
        self.base_hash = checkpoint.weights_hash(base)
        self.model = ChatModel.load(
            base,
            run_config.model,
            micro_tokens=compute.micro_tokens,
            micro_replies=compute.micro_replies,
            head_chunk=compute.head_chunk,
        )
        self.job = Job(self.model, LocalRollout(self.model, compute.rollout_replies), run_config.seed)
        self.update: Update | None = None
        self.listeners = Listeners(list(self._listeners()) if dist.rank() == 0 else [])
        self._evals: list[dict[str, Score]] = []

    def train(self) -> dict[str, Any]:
        """Evaluate, train all stages, evaluate; leaves the run folder."""
        start = time.time()
        self._open()
        summary: dict[str, Any] = {"status": "failed", "reason": ""}
        try:
            if self.config.eval.before:
                summary["eval_before"] = self._evaluate("test")
            self._stages()
            self._save("end")
            if self.config.eval.after:
                summary["eval_after"] = self._evaluate("test")
            summary["status"] = "done"
        except BaseException as e:
            summary["reason"] = f"{type(e).__name__}: {e}"
            raise
        finally:
            self._close(summary, time.time() - start)
        return summary

    def _stages(self) -> None:
        steps = trainer.share_out(self.config.steps, self.stages)
        for stage in self.task.stages():
            if not steps[stage.name]:
                continue
            self._edit(stage)
            optim = config.stage_optim(self.config, stage.name, stage.optim)
            self.update = stage.update or Plain(optim)
            self.update.start(self.model.module, self.model.parts(), steps[stage.name])
            if any(getattr(t, "reference", False) for t in stage.transforms):
                self.job.keep_weights("reference")
            self.job.label = stage.name
            engine = LocalEngine(self.model.module, self.update)
            trainer.run(self.job, stage, engine, steps[stage.name], self._watch)

    def _edit(self, stage: Stage) -> None:
        """The user's edits come before the first stage's own, each stage's own once."""
        if not self.job.step and self.config.model.lora is not None:
            Lora(self.config.model.lora)(self.model)
        if not self.job.step and self.config.model.freeze:
            Freeze(self.config.model.freeze)(self.model)
        for edit in stage.edits:
            edit(self.model)

    def _watch(self, numbers: dict[str, float], samples: Sequence[Sample]) -> None:
        step = self.job.step
        line: dict[str, Any] = {"step": step, "stage": self.job.label, **numbers}
        if self.config.eval.every and step % self.config.eval.every == 0:
            scores = self._evaluate("val")
            line |= {f"eval/{name}": score["value"] for name, score in scores.items()}
        self.listeners.on_metrics(line)
        if self.config.log.samples_every and step % self.config.log.samples_every == 0:
            self.listeners.on_samples(step, [s for part in dist.gather(list(samples)) for s in part])
        if self.config.checkpoint.every and step % self.config.checkpoint.every == 0:
            self._save(self.job.label)

    def _evaluate(self, split: Split) -> dict[str, Score]:
        scores = run_benches(self.job, self.task.benches(split), self.config.eval.samples)
        if split == "val":
            self._evals.append(scores)
        return scores

    def _save(self, stage: str) -> None:
        if dist.rank() == 0:
            state = {"step": self.job.step, "stage": stage, "recipe": self.model.recipe.hash}
            root, keep = self.folder / "checkpoints", self.config.checkpoint.keep
            checkpoint.save(root, self.job.step, self.model, self.update, state, keep)
        dist.barrier()

    def _open(self) -> None:
        if dist.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(config.dump(self._resolved()))
        self.listeners.on_start(self.folder, self._resolved(), self.config.steps)

    def _close(self, summary: dict[str, Any], seconds: float) -> None:
        best = _best(self._evals, self.task.best)
        summary |= {"eval_best": best} if best else {}
        summary |= {
            "format": FORMAT,
            "steps": self.job.step,
            "wall_s": round(seconds, 2),
            "base_hash": self.base_hash,
            "recipe_hash": self.model.recipe.hash,
            "seed": self.config.seed,
            "versions": {"python": platform.python_version(), **{n: metadata.version(n) for n in LIBRARIES}},
        }
        if dist.rank() == 0:
            (self.folder / "summary.json").write_text(json.dumps(summary, indent=1))
            self.listeners.on_end(summary)
            shown = {k: summary[f"eval_{k}"] for k in ("before", "after") if f"eval_{k}" in summary}
            if shown and summary["status"] == "done":
                Console().print(table("test split", shown))
            Console().print(f"{summary['status']}: {self.folder}", highlight=False, soft_wrap=True)
        dist.stop()

    def _resolved(self) -> dict[str, Any]:
        """All settings as they apply, stage by stage, so that `config=RUN/config.yaml` repeats the run."""
        resolved = self.config.model_dump(mode="json")
        task = self.task.model_dump(mode="json", exclude={"data"})
        resolved["task"] = {"name": self.config.task["name"], **task}
        resolved["stages"] = {
            stage.name: {
                "optim": config.stage_optim(self.config, stage.name, stage.optim).model_dump(mode="json"),
                "share": self._share(stage),
            }
            for stage in self.task.stages()
        }
        return resolved

    def _share(self, stage: Stage) -> float:
        own = self.config.stages.get(stage.name)
        return stage.share if own is None or own.share is None else own.share

    def _check_stages(self) -> None:
        names = [name for name, _ in self.stages]
        unknown = sorted(set(self.config.stages) - set(names))
        if unknown:
            raise ConfigError(f"stages.{unknown[0]}: the task has the stages {names}")
        for stage in self.task.stages():
            if stage.objective.single_update and stage.updates > 1:
                raise ConfigError(
                    f"stage {stage.name!r} makes {stage.updates} updates on each rollout batch, but its objective "
                    "takes the policy as it is for the old one; give it the column old_logp (transform OldLogp)"
                )

    def _listeners(self) -> Iterable[Listener]:
        log = self.config.log
        yield JsonlMetrics()
        yield SamplesLog(self.model.pieces)
        yield Curves()
        if log.progress:
            yield Progress()
        if log.tensorboard:
            yield TensorBoard()
        if log.wandb:
            yield Wandb(log.wandb)
        if log.trackio:
            yield Trackio(log.trackio)


def table(title: str, columns: Mapping[str, Mapping[str, Score]]) -> Table:
    """Scores side by side: value and 95 % interval."""
    out = Table(title=title, title_justify="left")
    out.add_column("metric")
    for name in columns:
        out.add_column(name or "value", justify="right")
    for metric in dict.fromkeys(m for scores in columns.values() for m in scores):
        cells = []
        for scores in columns.values():
            s = scores.get(metric)
            cells.append(f"{s['value']:.4g}  [dim]{s['low']:.4g} to {s['high']:.4g}" if s else "")
        out.add_row(metric, *cells)
    return out


def _best(evals: Sequence[dict[str, Score]], metric: str) -> dict[str, Score]:
    """The evaluation with the highest `metric` (the lowest, with a minus before its name); empty where none has it."""
    name, sign = metric.removeprefix("-"), -1 if metric.startswith("-") else 1
    found = [e for e in evals if name in e]
    return max(found, key=lambda e: sign * e[name]["value"]) if found else {}
