"""`mmpost eval bench=a,b model=...`: a model's replies to the questions of benchmarks, and what they are worth."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.benchmarks.ledger import Depends
from mmpost.benchmarks.scoring import Evaluation, evaluate, table
from mmpost.config import run_config
from mmpost.core import distributed
from mmpost.core.run_files import locked
from mmpost.errors import ConfigError
from mmpost.runs import checkpoint
from mmpost.runs.benchmarks import answer, framed, sampling, scored_samples, to_ask, write_result
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session, require_generative
from mmpost.runs.summary import write_evaluation
from mmpost.training.evaluation import Estimate
from mmpost.types import Sample

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""The model of a session belongs to a task; this one adds nothing to prompts."""
FOLDER = "runs/benches"
"""Where replies are kept by default: by their keys those of several models may lie together."""
ON_PAGE = 500
"""About the number of questions of a benchmark that are logged for the report."""


def eval_bench(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate `model` on the benchmarks `bench=a,b`: prints a table of each, returns the results by benchmark.

    Replies are kept in `out` and never sampled twice; results and samples for a report go to a folder of this model and
    these settings in there. `sampling.*` changes how replies are sampled (greedily, with the benchmark's limit of
    tokens), `eval.max_samples` takes a fixed part of each benchmark, of whole clusters, and `blind=false` leaves
    out the same questions without media. Raises ConfigError for an unknown benchmark, one whose replies no
    model writes, or a model without replies.
    """
    overrides = {"blind": True, **arguments}
    names, changes = str(overrides.pop("bench")).split(","), overrides.pop("sampling", {})
    if not isinstance(asks_blind := overrides.pop("blind"), bool):
        raise ConfigError(f"wanted blind=true or false, found blind={asks_blind!r}; correct it")
    config, paths = run_config.load([BARE, overrides])
    asked = [to_ask(name, config.data.benches, config.eval.max_samples) for name in dict.fromkeys(names)]
    out = Path(paths.get("out", FOLDER))
    results: dict[str, Any] = {}
    with locked(out):
        session = open_session(config, ConfiguredTask.load(config))
        require_generative(session)
        weights = checkpoint.weights_hash(session.base)
        settings = {
            "model": config.model.model_dump(mode="json"),
            "sampling": changes,
            "seed": config.seed,
            "max_samples": config.eval.max_samples,
        }
        folder = out / _label(config.model.name, weights, settings)
        columns: dict[str, dict[str, Estimate]] = {"official": {}, "strict": {}}
        logged: list[Sample] = []
        for questions in (framed(each, session.context) for each in asked):
            how = sampling(questions, changes)
            depends = Depends(weights[:16] or session.base, how.model_dump(mode="json"), config.seed, "local")
            more = (session.context, how, depends, out / "replies", config.compute.rollout_batch_size)
            answers = answer(questions, *more)
            blind: Evaluation | None = None
            if asks_blind:
                without = answer(questions.without_media(), *more)
                blind = evaluate(questions.bench, questions.samples, without.replies, questions.name)
            evaluation = evaluate(
                questions.bench, questions.samples, answers.replies, questions.name, truncated=answers.truncated
            )
            if distributed.rank():
                continue
            both = {"official": evaluation.official, "strict": evaluation.strict}
            for rule, metrics in (both if blind is None else both | {"without media": blind.official}).items():
                columns.setdefault(rule, {}).update({f"{questions.name}/{m}": e for m, e in metrics.items()})
            logged += scored_samples(questions, answers.replies, evaluation, ON_PAGE)
            results[questions.name] = write_result(
                folder, questions, evaluation, **settings, weights=weights, blind=blind and blind.official
            )
            title = f"{questions.name} ({questions.release}), {config.model.name}"
            Console().print(table(title, evaluation, blind))
        if distributed.rank() == 0:
            write_evaluation(folder, columns, logged, settings)
            Console().print(f"written to {folder}; mmpost report {folder} shows the questions", soft_wrap=True)
        distributed.stop()
    return results


def _label(model: str, weights: str, settings: Mapping[str, Any]) -> str:
    """The folder's name for the results of a model with these settings."""
    digest = hashlib.sha256(json.dumps([weights, settings], sort_keys=True, default=str).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', Path(model).name)}-{digest[:8]}"
