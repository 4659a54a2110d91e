"""`mmpost score`: computes a task's rewards and metrics for a file of replies, without loading a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mmpost.commands.score_bench import score_bench
from mmpost.config import run_config
from mmpost.data.readers.dataset import open_table
from mmpost.errors import ConfigError, DataError
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.training.evaluation import intervals, table
from mmpost.types import Bench, CoordinateFrame, Objective, Origin, Part, Reply, Sample, Sampling

NAMES = ("uid", "id")
"""Keys that may hold the uid of a row's sample."""
TEXTS = (
    *("reply", "text", "response", "prediction", "output", "completion", "generated_text"),
    *("model_prediction", "model_output"),
)
"""Keys that may hold a row's reply."""
ANSWER = "answer"
"""The key under which files of questions hold the truth (MMAU's, for example), and files of replies the reply."""
BESIDE_ANSWER = {*NAMES, ANSWER, "bench", "frame"}
"""What a row may hold in which `answer` is taken for the reply; anything more makes it a question with its truth."""


@dataclass
class RecordedReplies:
    """A Context that "samples" the replies in the file instead of running a model."""

    replies: Mapping[str, Sequence[str]]
    version: int = 0
    step: int = 0

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, of: str = "policy") -> list[Sample]:
        """Append all of the file's replies to each sample; `n` is ignored."""
        columns = {"truncated": 0.0, "temperature": 1.0}
        return [
            replace(
                s, replies=(*s.replies, *(Reply(_parts(t), "policy", (), {}, columns) for t in self.replies[s.uid]))
            )
            for s in samples
        ]

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        raise ConfigError("the task needs log-probs, which a file of replies does not have; use mmpost eval")

    def attention(self, samples: Sequence[Sample], layers: float = 1 / 3) -> list[list[torch.Tensor]]:
        raise ConfigError("the task needs attention, which a file of replies does not have; use mmpost eval")

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, torch.Tensor]]:
        raise ConfigError("the task needs embeddings, which a file of replies does not have; use mmpost eval")

    def class_logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        raise ConfigError("the task needs class logits, which a file of replies does not have; use mmpost eval")

    def loss(self, samples: Sequence[Sample], objective: Objective) -> float:
        raise ConfigError("the task needs a loss, which a file of replies does not have; use mmpost eval")

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        return Reply(_parts(text), origin, ())

    def rng(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def gather(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Discarded: there is no run to log to."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost score`."""
    score(arguments)
    return 0


def score(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Score `answers=FILE` (rows with uid and reply) on the task's test split. Prints a table and returns the result,
    which is also written to `out=FILE.json` if given.

    Rows may name their `bench`, and the coordinate `frame` of boxes and points, as the output of `mmpost predict` does;
    without a frame, coordinates are in the truth's. `key=NAME` names the key of the replies. Samples without a reply
    are counted and left out; with `missing=wrong` they are scored as an empty reply. Raises DataError for uids that the
    task does not have, for a reply that is not text, and where the only candidate for the replies may be the truth.

    `bench=NAME` scores predictions on a benchmark instead, see `score_bench`.
    """
    overrides = run_config.merged(arguments)
    if "bench" in overrides:
        return score_bench(overrides)
    file, key = overrides.pop("answers", None), overrides.pop("key", None)
    if file is None:
        raise ConfigError("wanted a file of replies, found none; add answers=FILE.jsonl (rows with uid and reply)")
    missing = overrides.pop("missing", "skip")
    if missing not in ("skip", "wrong"):
        raise ConfigError(f"missing={missing}: wanted skip or wrong, for samples without a reply")
    config, paths = run_config.load([overrides])
    benches = ConfiguredTask.load(config).benches("test")
    replies = _read(str(file), (str(key),) if key is not None else TEXTS)
    if key is None and replies.from_answer:
        _require_differences(str(file), replies.texts, benches)
    result: dict[str, Any] = {"answers": str(file), "task": config.task, "scores": {}, "answered": {}}
    known_uids: set[str] = set()
    for bench in benches:
        bench_replies = {uid: texts for (name, uid), texts in replies.texts.items() if name in ("", bench.name)}
        uids = {s.uid for s in bench.source}
        answered = len(uids & bench_replies.keys())
        if not answered:
            continue
        known_uids |= uids
        missing_replies = {uid: [""] for uid in uids} if missing == "wrong" else {}
        samples = _scored(bench, {**missing_replies, **bench_replies}, replies.frames)
        result["answered"][bench.name] = [answered, len(bench.source)]
        scores = intervals(bench.summary, samples)
        result["scores"] |= {f"{bench.name}/{name}": value for name, value in scores.items()}
    unknown = sorted({uid for _, uid in replies.texts} - known_uids)
    if unknown:
        raise DataError(
            f"{file}: {len(unknown)} uids are not in the task's test split, such as {unknown[:3]}; check data.test"
        )
    console = Console()
    console.print(table(f"{config.task['name']}, {file}", {"": result["scores"]}))
    for name, (n, total) in result["answered"].items():
        console.print(f"{name}: {n} of {total} samples have a reply")
    if "out" in paths:
        Path(paths["out"]).write_text(json.dumps(result, indent=1))
    return result


@dataclass
class _Replies:
    """The content of a file of replies; keys are (bench, uid), with an empty bench where the rows name none."""

    texts: dict[tuple[str, str], list[str]]
    frames: dict[tuple[str, str], CoordinateFrame]
    from_answer: bool
    """Whether the replies are what the rows have under `ANSWER`."""


def _read(file: str, keys: Sequence[str]) -> _Replies:
    rows = open_table(file)
    lines = [rows.row(i) for i in range(len(rows))]
    wanted, from_answer = keys, not any(key in line for line in lines for key in keys)
    if from_answer:
        keys = (ANSWER,)
    found = _Replies(defaultdict(list), {}, from_answer)
    for i, row in enumerate(lines):
        place = f"{file}:{rows.number(i)}"
        uid = next((str(row[name]) for name in NAMES if row.get(name) is not None), None)
        key = next((key for key in keys if key in row), None)
        if uid is None or (key is None and ANSWER not in row):
            raise DataError(f"{place}: wanted uid and a reply under one of {wanted}, found the keys {sorted(row)}")
        if key is None:
            continue  # a question without a prediction
        if from_answer and not row.keys() <= BESIDE_ANSWER:
            raise DataError(
                f"{place}: wanted a reply under one of {TEXTS}, found only {ANSWER!r} beside "
                f"{sorted(row.keys() - BESIDE_ANSWER)[:5]}, which may be the truth; name the key: key={ANSWER}"
            )
        if not isinstance(row[key], str):
            raise DataError(f"{place}: wanted the reply as text under {key!r}, found {row[key]!r:.60}; correct the row")
        found.texts[str(row.get("bench") or ""), uid].append(row[key])
        if row.get("frame"):
            found.frames[str(row.get("bench") or ""), uid] = CoordinateFrame(
                float(row["frame"][0]), float(row["frame"][1])
            )
    if not found.texts:
        raise DataError(f"{file}: wanted rows with replies, found none")
    return found


def _require_differences(file: str, texts: Mapping[tuple[str, str], Sequence[str]], benches: Sequence[Bench]) -> None:
    """Raise DataError if all replies equal the truth of their samples: then the file is one of truths."""
    truths = {s.uid: str(s.truth).strip() for bench in benches for s in bench.source}
    known = [(uid, text) for (_, uid), replies in texts.items() if uid in truths for text in replies]
    if known and all(text.strip() == truths[uid] for uid, text in known):
        raise DataError(
            f"{file}: wanted a reply under one of {TEXTS}, found {ANSWER!r}, which equals the truth in each of "
            f"{len(known)} rows; if these are the model's replies, write key={ANSWER}"
        )


def _scored(
    bench: Bench, replies: Mapping[str, Sequence[str]], frames: Mapping[tuple[str, str], CoordinateFrame]
) -> list[Sample]:
    context = RecordedReplies(replies)
    samples = [sample for sample in bench.source if sample.uid in replies]
    samples = [replace(s, frame=frames.get((bench.name, s.uid), frames.get(("", s.uid)))) for s in samples]
    for transform in bench.transforms if samples else ():
        samples = transform(samples, context)
    return samples


def _parts(text: str) -> tuple[Part, ...]:
    return (Part("text", text, "assistant"),)
