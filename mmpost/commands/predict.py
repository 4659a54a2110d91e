"""`mmpost predict`: writes a model's replies to a file or folder of prompts as JSON Lines."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmpost.config import run_config
from mmpost.config.run_config import RunConfig
from mmpost.core import distributed
from mmpost.core.run_files import locked_file
from mmpost.errors import ConfigError, DataError
from mmpost.runs import checkpoint
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session, require_generative
from mmpost.selection import recording
from mmpost.training.context import TrainingContext
from mmpost.types import Bench, Reply, Sample

BARE = {"task": {"name": "grpo", "rewards": {}}}
"""The task that `predict` uses if none is given: unchanged prompts, greedy decoding, no scores."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost predict`."""
    predict(arguments)
    return 0


def predict(arguments: Sequence[str | Mapping[str, Any]]) -> int:
    """Write one line per reply to `out=FILE.jsonl`. Returns the number of samples predicted by this call.

    The task's benches on `data.test` define the prompts, how replies are sampled, and how they are scored. An existing
    file is resumed: samples that it contains are skipped, and a truncated last line is rewritten. Samples are
    distributed over the ranks; rank 0 writes them in the order of the data. Raises ConfigError if the file was written
    with other weights or settings, or holds replies to another prompt of the same sample.
    """
    overrides = run_config.merged(arguments)
    has_task = "config" in overrides or "name" in overrides.get("task", {})
    config, paths = run_config.load([overrides] if has_task else [BARE, overrides])
    if "out" not in paths:
        raise ConfigError("wanted an output file, found none; add out=FILE.jsonl")
    task = ConfiguredTask.load(config)
    benches = task.benches("test")
    if not benches:
        raise ConfigError(
            "wanted test data, found none; set data.test=FILE, or data.test=FOLDER (of images) and data.prompt=QUESTION"
        )
    with locked_file(Path(paths["out"])):
        return _predict(config, task, benches, Path(paths["out"]))


def _predict(config: RunConfig, task: ConfiguredTask, benches: Sequence[Bench], out: Path) -> int:
    session = open_session(config, task)
    require_generative(session)
    weights = checkpoint.weights_hash(session.base)[:16] or session.base
    is_main = distributed.rank() == 0
    # What, besides weights and prompts, the replies depend on.
    transforms = [[bench.name, [recording.described(t) for t in bench.transforms]] for bench in benches]
    settings = json.dumps([transforms, session.model.recipe.hash, config.seed], sort_keys=True, default=str)
    stamp = {"weights": weights, "settings": hashlib.sha256(settings.encode()).hexdigest()[:16]}
    done = distributed.gather(_continue(out, stamp) if is_main else {})[0]
    batch_size, max_samples = config.compute.rollout_batch_size, config.eval.max_samples
    count = 0
    for bench in benches:
        for samples in _predict_bench(session.context, bench, done, batch_size, max_samples):
            lines = distributed.gather("".join(_line(bench, s, r, stamp) for s in samples for r in s.replies))
            count += sum(distributed.gather(len(samples)))
            if is_main:
                out.parent.mkdir(parents=True, exist_ok=True)
                with out.open("a", encoding="utf-8") as file:
                    file.write("".join(lines))
    if is_main:
        Console().print(f"{count} samples predicted, {len(done)} already in {out}", highlight=False, soft_wrap=True)
    distributed.stop()
    return count


def _predict_bench(
    context: TrainingContext, bench: Bench, done: Mapping[tuple[str, str], str], batch_size: int, max_samples: int
) -> Iterator[list[Sample]]:
    """The bench's remaining samples after its transforms, in rounds of one rollout batch per rank.

    Consecutive ranks take consecutive slices of a round. Sampled replies depend on neither rounds nor ranks.
    """
    indices = range(min(max_samples or len(bench.source), len(bench.source)))
    batch_size = min(batch_size, -(-len(indices) // distributed.world()))
    for start in range(0, len(indices), batch_size * distributed.world()):
        first = start + distributed.rank() * batch_size
        with context.isolated(f"eval/{bench.name}"):
            samples = context.fetch(bench.source, indices[first : first + batch_size])
            for sample in samples:
                if done.get((bench.name, sample.uid), _prompt(sample)) != _prompt(sample):
                    raise ConfigError(
                        f"wanted the data that the replies in `out` belong to, found another prompt of the sample "
                        f"{sample.uid!r} ({bench.name}): {_prompt(sample)!r:.80}; choose a new file"
                    )
            samples = [s for s in samples if (bench.name, s.uid) not in done]
            # A transform may communicate between ranks, so either all ranks call it or none.
            for transform in bench.transforms if any(distributed.gather(bool(samples))) else ():
                samples = transform(samples, context)
        yield samples


def _prompt(sample: Sample) -> str:
    return "".join(p.value for p in sample.prompt if p.modality == "text" and p.role == "user")


def _line(bench: Bench, sample: Sample, reply: Reply, stamp: Mapping[str, str]) -> str:
    frame = None if sample.frame is None or sample.frame.unknown_family else [sample.frame.width, sample.frame.height]
    row = {
        "bench": bench.name,
        "uid": sample.uid,
        "prompt": _prompt(sample),
        "reply": reply.text,
        "truncated": bool(reply.columns.get("truncated", 0.0)),
        "scores": dict(reply.scores),
        "frame": frame,
        **stamp,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _continue(out: Path, stamp: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The prompts of the samples in `out` by (bench, uid).

    Removes what a kill within a write may have left: a truncated last line, and the last sample where it has fewer
    replies than others of its bench, or is the only one.
    """
    prompts: dict[tuple[str, str], str] = {}
    if not out.exists():
        return prompts
    offset, last = 0, ("", "")
    replies: Counter[tuple[str, str]] = Counter()
    offsets: dict[tuple[str, str], int] = {}
    with out.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                offset = offsets.pop(last, offset)
                break
            try:
                row = json.loads(line)
                last, prompt, written = (str(row["bench"]), str(row["uid"])), row["prompt"], {k: row[k] for k in stamp}
            except (ValueError, KeyError, TypeError) as e:
                raise DataError(
                    f"{out}:{number}: wanted a line that mmpost predict wrote, found {line[:60]!r}; choose a new file"
                ) from e
            for name, value in stamp.items():
                if written[name] != value:
                    raise ConfigError(
                        f"out={out}: wanted replies of the {name} {value}, found {written[name]}; choose a new file"
                    )
            prompts[last] = prompt
            offsets.setdefault(last, offset)
            replies[last] += 1
            offset += len(line)
        else:
            others = [count for sample, count in replies.items() if sample[0] == last[0] and sample != last]
            if not replies or (others and replies[last] >= max(others)):
                return prompts
            offset = offsets.pop(last)
    with out.open("rb+") as file:
        file.truncate(offset)
    return {sample: prompts[sample] for sample in offsets}
