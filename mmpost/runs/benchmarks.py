"""Ask a model the questions of benchmarks: replies go to a ledger, scores to a folder, samples to a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpost.benchmarks.benchmark import benchmark
from mmpost.benchmarks.diff import ResultFile, compare, read_results
from mmpost.benchmarks.ledger import Depends, Entry, Ledger
from mmpost.benchmarks.questions import Questions, subset
from mmpost.benchmarks.scoring import Evaluation, evaluate
from mmpost.config import run_config
from mmpost.config.settings import EvalBenchSettings
from mmpost.core import distributed
from mmpost.core.run_files import write
from mmpost.errors import ConfigError
from mmpost.training.context import TrainingContext
from mmpost.training.evaluation import Estimate
from mmpost.transforms.generate import Generate
from mmpost.types import GenerativeModel, Part, Reply, Sample, Sampling

FOLDER = "benches"
"""Of a run: replies to benchmarks, and a folder of scores for each evaluated step."""


def to_ask(name: str, folder: str, max_samples: int) -> Questions:
    """Questions that a model can answer. Raises ConfigError for others, and what `Questions.load` raises."""
    if benchmark(name).row_reply is not None:
        raise ConfigError(
            f"bench={name}: wanted a benchmark of written replies, found one of what a detector or the like has found; "
            f"score a file of that: mmpost score bench={name} predictions=FILE"
        )
    return Questions.load(name, folder, max_samples)


def sampling(questions: Questions, changes: Mapping[str, Any]) -> Sampling:
    """How replies are sampled: greedily, with the benchmark's limit of tokens, but for `changes`."""
    return run_config.decode(
        Sampling, {"max_tokens": questions.bench.max_tokens, "temperature": 0, **changes}, "sampling."
    )


@dataclass(frozen=True)
class Answers:
    """Replies by question id."""

    replies: dict[str, str]
    truncated: int
    """Replies that were cut off at the limit of tokens."""


def answer(
    questions: Questions, context: TrainingContext, how: Sampling, depends: Depends, folder: Path, batch_size: int
) -> Answers:
    """The model's replies, from the ledger in `folder` or sampled now; ranks share the questions, all get all replies.

    A kill costs at most the batch in flight. Raises ConfigError for a model that writes no replies.
    """
    model = context.model
    if not isinstance(model, GenerativeModel):
        raise ConfigError(
            f"bench={questions.name}: wanted a chat model, which writes replies, found an embedding model; use another"
        )
    ledger = Ledger(folder, questions.name)
    known = ledger.entries()
    mine = questions.samples[distributed.rank() :: distributed.world()]
    keys = {sample.uid: depends.key(sample.uid, model.cache_key(sample)) for sample in mine}
    pending = [sample for sample in mine if keys[sample.uid] not in known]
    for start in range(0, len(pending), batch_size):
        with context.isolated(f"bench/{questions.name}"):
            batch = [context.with_frame(sample) for sample in pending[start : start + batch_size]]
            answered = Generate(n=1, sampling=how)(batch, context)
        ledger.append(
            distributed.rank(),
            [
                Entry(key=keys[s.uid], uid=s.uid, reply=r.text, truncated=bool(r.columns.get("truncated")))
                for s in answered
                for r in s.replies
            ],
        )
    keys = {uid: key for part in distributed.gather(keys) for uid, key in part.items()}
    known = ledger.entries()
    return Answers(
        {sample.uid: known[keys[sample.uid]].reply for sample in questions.samples},
        sum(known[key].truncated for key in keys.values()),
    )


def framed(questions: Questions, context: TrainingContext) -> Questions:
    """The questions with the frame in which the model writes coordinates, where their replies have any."""
    if not questions.bench.coordinates:
        return questions
    return replace(questions, samples=[context.with_frame(sample) for sample in questions.samples])


def write_result(folder: Path, questions: Questions, evaluation: Evaluation, **settings: Any) -> dict[str, Any]:
    """Write `folder/NAME.json`: scores of every question, metrics, and the settings with which to repeat them."""
    result = {"bench": questions.name, "release": questions.release, **settings, **evaluation.as_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{questions.name}.json", json.dumps(result, indent=1).encode())
    return result


def scored_samples(
    questions: Questions, replies: Mapping[str, str], evaluation: Evaluation, limit: int
) -> list[Sample]:
    """About `limit` questions with their replies and scores, for a report.

    First those that the two rules score differently, up to half of them, then a fixed part of all.
    """
    differing = set(evaluation.differing[: limit // 2])
    shown = differing | {sample.uid for sample in subset(questions.bench, questions.samples, limit - len(differing))}
    found = []
    for sample in questions.samples:
        if sample.uid in shown and sample.uid in replies:
            official, strict, _ = evaluation.scores[sample.uid]
            scores = {name: s for name, s in (("official", official), ("strict", strict)) if s is not None}
            reply = Reply((Part("text", replies[sample.uid], "assistant"),), scores=scores)
            found.append(replace(sample, replies=(reply,)))
    return found


class BenchmarksInTraining:
    """The benchmarks of `eval.benches`: the same questions at every evaluation, compared with step 0."""

    def __init__(self, settings: Mapping[str, EvalBenchSettings], folder: str) -> None:
        """Raises what `to_ask` raises."""
        self._settings = settings
        self._questions = {name: to_ask(name, folder, each.samples) for name, each in settings.items()}

    def due(self, step: int) -> list[str]:
        """The benchmarks to evaluate after this step."""
        return [name for name, each in self._settings.items() if each.every and step % each.every == 0]

    def evaluate(
        self, context: TrainingContext, run: Path, weights: str, batch_size: int, names: Sequence[str] | None = None
    ) -> dict[str, Estimate]:
        """The official metrics of the model as it is, as "bench/metric"; "bench/gain" is its mean score minus step 0's.

        `weights` names the weights within the run. The result is the same on all ranks.
        """
        found: dict[str, Estimate] = {}
        step = run / FOLDER / f"step-{context.step:06d}"
        for name in self._settings if names is None else names:
            questions = framed(self._questions[name], context)
            limit = self._settings[name].max_tokens
            how = sampling(questions, {} if limit is None else {"max_tokens": limit})
            depends = Depends(weights, how.model_dump(mode="json"), context.seed, "local")
            answers = answer(questions, context, how, depends, run / FOLDER / "replies", batch_size)
            evaluation = evaluate(questions.bench, questions.samples, answers.replies, name, "", answers.truncated)
            if distributed.rank() == 0:
                write_result(step, questions, evaluation, step=context.step, sampling=how.model_dump(mode="json"))
            found |= {f"{name}/{metric}": estimate for metric, estimate in evaluation.official.items()}
            start = run / FOLDER / "step-000000" / f"{name}.json"
            if context.step and start.exists():
                now = ResultFile(bench=name, release=questions.release, scores=evaluation.scores)
                (gain,) = compare(read_results(start), {name: now}, "official")
                found[f"{name}/gain"] = {"value": gain.value, "n": gain.n, "low": gain.low, "high": gain.high}
        return found


def weights_name(base_hash: str, config: Mapping[str, Any], step: int) -> str:
    """A name for the weights of a run at a step, from all that they follow from."""
    decisive = {key: value for key, value in config.items() if key not in ("log", "checkpoint", "eval")}
    content = json.dumps([base_hash, decisive, step], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
