"""`mmpost eval bench=a,b model=...`: a model's replies to the questions of benchmarks, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.benchmarks.benchmark import Benchmark, benchmark
from mmpost.benchmarks.ledger import Depends, Entry, Ledger
from mmpost.benchmarks.scoring import Evaluation, evaluate, subset, table
from mmpost.config import run_config
from mmpost.core import distributed
from mmpost.core.run_files import locked, write
from mmpost.errors import ConfigError
from mmpost.runs import checkpoint
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import Session, open_session, require_generative
from mmpost.training.context import TrainingContext
from mmpost.transforms.generate import Generate
from mmpost.types import GenerativeModel, Sample, Sampling

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""The model of a session belongs to a task; this one adds nothing to prompts."""
FOLDER = "runs/benches"
"""Where replies are kept by default: by their keys those of several models may lie together."""


def eval_bench(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate `model` on the benchmarks `bench=a,b`: prints a table and writes the scores of each; returns them.

    Replies are kept in `out` and never sampled twice. `sampling.*` changes how they are sampled (greedy, with the
    benchmark's limit of tokens), `eval.max_samples` takes a fixed part of each benchmark, of whole clusters. Raises
    ConfigError for an unknown benchmark, one whose replies no model writes, or a model that writes no replies.
    """
    overrides = dict(arguments)
    names, sampling = str(overrides.pop("bench")).split(","), overrides.pop("sampling", {})
    data = overrides.get("data") or {}
    folder = data.get("benches") if isinstance(data, Mapping) else None
    if folder is None:
        raise ConfigError(f"wanted the folder of official files, found {data!r}; set data.benches=FOLDER")
    overrides["data"] = {key: value for key, value in data.items() if key != "benches"}
    config, paths = run_config.load([BARE, overrides])
    benches = {name: benchmark(name) for name in names}
    for name, bench in benches.items():
        if bench.row_reply is not None:
            raise ConfigError(
                f"bench={name}: wanted a benchmark of written replies, found one of what a detector or the like has "
                f"found in them; score a file of that: mmpost score bench={name} predictions=FILE"
            )
    files = {name: bench.paths(Path(str(folder)), name) for name, bench in benches.items()}
    questions = {
        name: subset(bench, list(bench.rows(files[name])), config.eval.max_samples) for name, bench in benches.items()
    }
    out = Path(paths.get("out", FOLDER))
    with locked(out):
        session = open_session(config, ConfiguredTask.load(config))
        require_generative(session)
        results = {}
        for name, bench in benches.items():
            how = run_config.decode(
                Sampling, {"max_tokens": bench.max_tokens, "temperature": 0, **sampling}, "sampling."
            )
            evaluation = _evaluate(session, name, bench, questions[name], how, out)
            release = bench.release(files[name])
            if distributed.rank() == 0:
                results[name] = _report(name, release, session, how, evaluation, out)
        distributed.stop()
    return results


def _evaluate(
    session: Session, name: str, bench: Benchmark, questions: Sequence[Sample], sampling: Sampling, out: Path
) -> Evaluation:
    weights = checkpoint.weights_hash(session.base)[:16] or session.base
    depends = Depends(weights, sampling.model_dump(mode="json"), session.config.seed, "local")
    ledger = Ledger(out / "replies", name)
    model, known = session.model, ledger.entries()
    assert isinstance(model, GenerativeModel)
    mine = questions[distributed.rank() :: distributed.world()]
    keys = {sample.uid: depends.key(sample.uid, model.cache_key(sample)) for sample in mine}
    pending = [sample for sample in mine if keys[sample.uid] not in known]
    size = session.config.compute.rollout_batch_size
    for start in range(0, len(pending), size):
        batch = _replies(session.context, name, pending[start : start + size], sampling)
        ledger.append(
            distributed.rank(),
            [
                Entry(key=keys[s.uid], uid=s.uid, reply=r.text, truncated=bool(r.columns.get("truncated")))
                for s in batch
                for r in s.replies
            ],
        )
    keys = {uid: key for part in distributed.gather(keys) for uid, key in part.items()}
    known = ledger.entries()
    replies = {uid: known[key].reply for uid, key in keys.items()}
    truncated = sum(known[key].truncated for key in keys.values())
    return evaluate(bench, questions, replies, name, truncated=truncated)


def _replies(context: TrainingContext, name: str, samples: Sequence[Sample], sampling: Sampling) -> list[Sample]:
    with context.isolated(f"bench/{name}"):
        return Generate(n=1, sampling=sampling)([context.with_frame(sample) for sample in samples], context)


def _report(
    name: str, release: str, session: Session, sampling: Sampling, evaluation: Evaluation, out: Path
) -> dict[str, Any]:
    weights = checkpoint.weights_hash(session.base)[:8] or "hub"
    result = {
        "bench": name,
        "release": release,
        "model": session.config.model.name,
        "weights": checkpoint.weights_hash(session.base),
        "settings": session.config.model.model_dump(mode="json"),
        "sampling": sampling.model_dump(mode="json"),
        **evaluation.as_dict(),
    }
    file = out / f"{name}-{weights}.json"
    write(file, json.dumps(result, indent=1).encode())
    console = Console()
    console.print(table(f"{name} ({release}), {session.config.model.name}", evaluation))
    console.print(f"written to {file}", highlight=False, soft_wrap=True)
    return result
