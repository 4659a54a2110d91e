"""`mmpost predict`: a model's replies to a file or folder of prompts, as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mmpost import bases, checkpoint, config
from mmpost.build import make_task
from mmpost.errors import ConfigError, DataError
from mmpost.job import Job
from mmpost.models.chat import ChatModel
from mmpost.models.pixels import Kept
from mmpost.rollout.local import LocalRollout
from mmpost.types import Bench, Reply, Sample

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""What `predict` without a task runs: the prompts as they are, the most likely reply, no scores."""


def predict(words: Sequence[str | Mapping[str, Any]]) -> int:
    """Write a line for each reply to `out=FILE.jsonl`; returns how many samples were answered now.

    What is asked and how replies are drawn and scored is the task's word (its benches on `data.test`). A file that is
    there is continued: samples whose uid it has are passed over, a line cut short is written again. Raises ConfigError
    where it was written by other weights.
    """
    given: dict[str, Any] = {}
    for word in words:
        given = config.merge(given, config.parse_word(word) if isinstance(word, str) else word)
    run_config, aside = config.load([given] if "config" in given or "name" in given.get("task", {}) else [BARE, given])
    if "out" not in aside:
        raise ConfigError("predict writes to a file: say out=FILE.jsonl")
    benches = make_task(run_config).benches("test")
    if not benches:
        raise ConfigError("nothing to answer: say data.test=FILE, or a folder of images with data.prompt=QUESTION")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("predict is one process: start it without torchrun, and split data.test for several")
    if run_config.compute.threads:
        torch.set_num_threads(run_config.compute.threads)
    base = bases.resolve(run_config.model.name, run_config.seed)
    stamp = checkpoint.weights_hash(base)[:16] or base
    out = Path(aside["out"])
    done = _continue(out, stamp)
    compute = run_config.compute
    kept = Kept(compute.pixel_bytes, compute.feature_bytes, compute.feature_folder)
    model = ChatModel.load(base, run_config.model, share=compute.share, kept=kept)
    rollout = LocalRollout(model, compute.rollout_replies)
    job = Job(model, rollout, run_config.seed, skips=run_config.data.on_error == "skip")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with out.open("a", encoding="utf-8") as file:
        for bench in benches:
            for samples in _answered(job, bench, done, compute.rollout_replies, run_config.eval.samples):
                file.write("".join(_line(bench, s, r, stamp) for s in samples for r in s.replies))
                file.flush()
                count += len(samples)
    Console().print(f"{count} answered, {len(done)} were there: {out}", highlight=False, soft_wrap=True)
    return count


def _answered(job: Job, bench: Bench, done: set[tuple[str, str]], size: int, most: int) -> Iterator[list[Sample]]:
    """The bench's samples that are not done, through its transforms, as many at a time as are sampled side by side."""
    count = min(most or len(bench.source), len(bench.source))
    with job.aside(f"eval/{bench.name}"):
        for start in range(0, count, size):
            samples = job.take(bench.source, range(start, min(start + size, count)))
            samples = [s for s in samples if (bench.name, s.uid) not in done]
            for transform in bench.transforms if samples else ():
                samples = transform(samples, job)
            yield samples


def _line(bench: Bench, sample: Sample, reply: Reply, stamp: str) -> str:
    frame = None if sample.frame is None else [sample.frame.width, sample.frame.height]
    said = {
        "bench": bench.name,
        "uid": sample.uid,
        "prompt": "".join(p.value for p in sample.prompt if p.kind == "text" and p.role == "user"),
        "reply": reply.text,
        "truncated": bool(reply.columns.get("truncated", 0.0)),
        "scores": dict(reply.scores),
        "frame": frame,
        "weights": stamp,
    }
    return json.dumps(said, ensure_ascii=False) + "\n"


def _continue(out: Path, stamp: str) -> set[tuple[str, str]]:
    """(bench, uid) of what `out` has; cuts off a last line that is not whole, and the others of its sample."""
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
