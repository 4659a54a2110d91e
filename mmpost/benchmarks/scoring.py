"""Score replies to a benchmark's questions, by the official rule and strictly, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from mmpost.benchmarks.benchmark import Benchmark, Rule, Scored
from mmpost.benchmarks.estimates import estimates
from mmpost.core.display import visible
from mmpost.errors import DataError
from mmpost.types import Sample

SHOWN = 5
"""Questions named where there are many."""
Estimates = dict[str, dict[str, float]]
"""Metrics: "value", "n", "low", "high"."""


class Evaluation(NamedTuple):
    """What a file of predictions is worth."""

    official: Estimates
    strict: Estimates
    questions: int
    missing: int
    """Questions without a prediction."""
    unparsed: int
    """Replies that the strict rule cannot read."""
    truncated: int
    """Replies that were cut off at the limit of tokens, as far as known."""
    differing: list[str]
    """Ids of the questions that the two rules score differently."""
    scores: dict[str, tuple[float | None, float | None, str]]
    """By question: official score, strict score, and the cluster; None where a rule leaves it out."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self._asdict() | {"scores": {uid: list(score) for uid, score in self.scores.items()}}


def evaluate(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    replies: Mapping[str, str],
    name: str,
    key: str = "",
    truncated: int = 0,
) -> Evaluation:
    """Score the replies by question id. Questions are read in the order of the data, whatever the order of the replies.

    `key`: that of the replies in their file, which may have an official rule of its own.

    Raises DataError for a reply to no question, and if there is no reply to any.
    """
    known = dict.fromkeys(sample.uid for sample in samples)
    unknown = [uid for uid in replies if uid not in known]
    if unknown:
        raise DataError(
            f"bench={name}: wanted replies to its {len(known)} questions, found {len(unknown)} to others, such as "
            f"{unknown[:SHOWN]}; its ids look like {next(iter(known), '')!r}: name the key of yours, id=NAME"
        )
    official, strict = (_scored(rule, samples, replies) for rule in _rules(benchmark, key))
    by_official, by_strict = ({each.sample.uid: each.score for each in scored} for scored in (official, strict))
    scores = {s.uid: (by_official.get(s.uid), by_strict.get(s.uid), benchmark.cluster(s)) for s in samples}
    return Evaluation(
        estimates(benchmark.summary, _clusters(benchmark, official)),
        estimates(benchmark.summary, _clusters(benchmark, strict)),
        len(samples),
        len(samples) - len(replies),
        sum(scored.reading is None for scored in strict if scored.sample.uid in replies),
        truncated,
        [
            uid
            for uid, (by_script, strictly, _) in scores.items()
            if None not in (by_script, strictly) and by_script != strictly
        ],
        scores,
    )


def without(
    benchmark: Benchmark, samples: Sequence[Sample], replies: Mapping[str, str], seen: Container[str], key: str = ""
) -> tuple[Estimates, Estimates]:
    """The official and the strict metrics without the questions whose ids are `seen`.

    All replies are read, as in `evaluate`, so that what is read from one does not depend on what is left out.
    """
    official, strict = (
        estimates(benchmark.summary, _clusters(benchmark, [each for each in scored if each.sample.uid not in seen]))
        for scored in (_scored(rule, samples, replies) for rule in _rules(benchmark, key))
    )
    return official, strict


def _rules(benchmark: Benchmark, key: str) -> tuple[Rule, Rule]:
    return benchmark.by_key.get(key, benchmark.official), benchmark.strict


def _scored(rule: Rule, samples: Sequence[Sample], replies: Mapping[str, str]) -> list[Scored]:
    """All questions with the reading and the score of their replies."""
    answered = [(sample, replies[sample.uid]) for sample in samples if sample.uid in replies]
    readings = dict(zip((sample.uid for sample, _ in answered), rule.readings(answered), strict=True))
    scored = []
    for sample in samples:
        if sample.uid in readings:
            reading = readings[sample.uid]
            score = rule.scored(sample, reading)
            if score is not None:
                scored.append(Scored(sample, replies[sample.uid], reading, score))
        elif rule.missing == "wrong":
            scored.append(Scored(sample, "", None, 0.0))
    return scored


def _clusters(benchmark: Benchmark, scored: Sequence[Scored]) -> list[list[Scored]]:
    clusters: dict[str, list[Scored]] = defaultdict(list)
    for each in scored:
        clusters[benchmark.cluster(each.sample)].append(each)
    return list(clusters.values())


def side_by_side(title: str, columns: Mapping[str, Estimates]) -> Table:
    """Metrics by heading, in percent, with intervals and the number of questions behind each."""
    out = Table(title=escape(visible(title)), title_justify="left")
    out.add_column("metric")
    for column in columns:
        out.add_column(column, justify="right")
    out.add_column("n", justify="right")
    for name in dict.fromkeys(name for metrics in columns.values() for name in metrics):
        estimates = [metrics.get(name) for metrics in columns.values()]
        n = " / ".join(dict.fromkeys(f"{estimate['n']:g}" for estimate in estimates if estimate))
        out.add_row(escape(visible(name)), *map(_cell, estimates), n)
    return out


def table(title: str, evaluation: Evaluation, blind: Evaluation | None = None) -> Table:
    """Both rules `side_by_side`, with what else is known of the evaluation.

    `blind`: of the replies to the same questions without their media, of which the official metrics are shown.
    """
    columns = {"official": evaluation.official, "strict": evaluation.strict}
    if blind is not None:
        columns["without media"] = blind.official
    out = side_by_side(title, columns)
    out.caption = _caption(evaluation)
    out.caption_justify = "left"
    return out


def _cell(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f}  [dim]{low:.1f} to {high:.1f}"


def _caption(evaluation: Evaluation) -> str:
    parts = [
        f"percent, 95 % intervals; {evaluation.questions} questions",
        f"{evaluation.missing} without a reply",
        *([f"{evaluation.truncated} replies cut off"] if evaluation.truncated else []),
        f"{evaluation.unparsed} replies that the strict rule cannot read",
        f"{len(evaluation.differing)} that the two rules score differently",
    ]
    return ", ".join(parts)
