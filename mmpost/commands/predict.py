"""`mmpost predict`: writes a model's replies to a file or folder of prompts as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.config import parsing, run_config
from mmpost.core import distributed
from mmpost.errors import ConfigError, DataError
from mmpost.runs import checkpoint
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session, require_generative
from mmpost.training.context import TrainingContext
from mmpost.types import Bench, Reply, Sample

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""The task that `predict` uses if none is given: unchanged prompts, greedy decoding, no scores."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost predict`."""
    predict(arguments)
    return 0


def predict(arguments: Sequence[str | Mapping[str, Any]]) -> int:
    """Write one line per reply to `out=FILE.jsonl`. Returns the number of samples that this call answered.

    The task's benches on `data.test` define the prompts, how replies are sampled, and how they are scored. An existing
    file is continued: samples that it contains are skipped, and a truncated last line is rewritten. Samples are
    distributed over the ranks; rank 0 writes them in the order of the data. Raises ConfigError if the file was written
    with other weights.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        given = run_config.merge(given, parsing.parse_argument(argument) if isinstance(argument, str) else argument)
    named = "config" in given or "name" in given.get("task", {})
    config, outside = run_config.load([given] if named else [BARE, given])
    if "out" not in outside:
        raise ConfigError("predict writes to a file: say out=FILE.jsonl")
    task = ConfiguredTask.load(config)
    benches = task.benches("test")
    if not benches:
        raise ConfigError("nothing to answer: say data.test=FILE, or a folder of images with data.prompt=QUESTION")
    out = Path(outside["out"])
    session = open_session(config, task)
    require_generative(session)
    stamp = checkpoint.weights_hash(session.base)[:16] or session.base
    first = distributed.rank() == 0
    done = distributed.gather(_continue(out, stamp) if first else set())[0]
    compute = config.compute
    count = 0
    for bench in benches:
        for samples in _answered(session.context, bench, done, compute.rollout_batch_size, config.eval.max_samples):
            lines = distributed.gather("".join(_line(bench, s, r, stamp) for s in samples for r in s.replies))
            count += sum(distributed.gather(len(samples)))
            if first:
                _append(out, "".join(lines))
    if first:
        Console().print(f"{count} answered, {len(done)} were there: {out}", highlight=False, soft_wrap=True)
    distributed.stop()
    return count


def _answered(
    job: TrainingContext, bench: Bench, done: set[tuple[str, str]], size: int, most: int
) -> Iterator[list[Sample]]:
    """The bench's remaining samples after its transforms, in rounds of one rollout batch per rank.

    In each round, consecutive ranks take consecutive slices. Sampled replies depend on neither rounds nor ranks.
    """
    indices = range(min(most or len(bench.source), len(bench.source)))
    size = min(size, -(-len(indices) // distributed.world()))
    for start in range(0, len(indices), size * distributed.world()):
        mine = start + distributed.rank() * size
        with job.isolated(f"eval/{bench.name}"):
            samples = job.fetch(bench.source, indices[mine : mine + size])
            samples = [s for s in samples if (bench.name, s.uid) not in done]
            # A transform may communicate between ranks, so either all ranks call it or none.
            for transform in bench.transforms if any(distributed.gather(bool(samples))) else ():
                samples = transform(samples, job)
        yield samples


def _append(out: Path, lines: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(lines)


def _line(bench: Bench, sample: Sample, reply: Reply, stamp: str) -> str:
    frame = None if sample.frame is None else [sample.frame.width, sample.frame.height]
    row = {
        "bench": bench.name,
        "uid": sample.uid,
        "prompt": "".join(p.value for p in sample.prompt if p.modality == "text" and p.role == "user"),
        "reply": reply.text,
        "truncated": bool(reply.columns.get("truncated", 0.0)),
        "scores": dict(reply.scores),
        "frame": frame,
        "weights": stamp,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _continue(out: Path, stamp: str) -> set[tuple[str, str]]:
    """(bench, uid) of the samples in `out`. Removes a truncated last line, and the other lines of the same sample."""
    done: set[tuple[str, str]] = set()
    if not out.exists():
        return done
    place, last = 0, ("", "")
    starts: dict[tuple[str, str], int] = {}
    with out.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                place = starts.pop(last, place)
                break
            try:
                row = json.loads(line)
                last, weights = (str(row["bench"]), str(row["uid"])), row["weights"]
            except (ValueError, KeyError, TypeError) as e:
                raise DataError(
                    f"{out}:{number}: wanted a line of predict, found {line[:60]!r}; name a new file"
                ) from e
            if weights != stamp:
                raise ConfigError(f"out={out} holds replies of other weights ({weights}, now {stamp}); name a new file")
            starts.setdefault(last, place)
            place += len(line)
        else:
            return set(starts)
    with out.open("rb+") as file:
        file.truncate(place)
    return set(starts)
