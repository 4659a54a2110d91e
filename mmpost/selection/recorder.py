"""Run data-generation stages: apply the transforms once to every sample of the source, and record the results.

No optimizer steps are taken here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmpost.core import distributed
from mmpost.errors import ConfigError, DataError
from mmpost.selection import manifest, recording
from mmpost.selection.recording import Recording
from mmpost.training.batches import PrefetchingSource
from mmpost.training.context import TrainingContext, location
from mmpost.training.trainer import StopSignal
from mmpost.types import RefillBatch, Sample, Selector, Stage, Transform

PROGRESS_SECONDS = 10.0
"""Time between two progress messages."""

OnMismatch = Callable[[list[str]], None]
"""Called with the differences if a file has another provenance; unless it raises, the file is overwritten."""


def record_stage(
    stage: Stage,
    context: TrainingContext,
    file: Path,
    provenance: Mapping[str, Any],
    on_mismatch: OnMismatch,
    stop: StopSignal,
    log: Callable[[str], None],
) -> Recording | None:
    """Apply the stage's transforms to each sample of its source and record the results in `file`, on rank 0.

    Resumes a partial recording; the file has the same bytes as an uninterrupted one, because batches always have the
    same samples, recorded already or not, and random numbers depend only on seed, stage and uid.
    Returns None if `stop` was requested before the last batch.

    Raises DataError for a sample that cannot be read, unless the context skips those: then it is recorded as dropped.
    Also raises DataError for a uid that occurs twice, and ConfigError for transforms that add samples.
    """
    done = distributed.gather(recording.begin(file, provenance, on_mismatch) if distributed.rank() == 0 else {})[0]
    index_of = {uid: index for index, uid in done.items()}
    source, size = PrefetchingSource(stage.source), len(stage.source)
    batches = [range(start, min(start + stage.batch_size, size)) for start in range(0, size, stage.batch_size)]
    # A partly recorded batch is repeated as a whole: the results of its samples may depend on one another.
    batches = [indices for indices in batches if any(i not in done for i in indices)]
    last_message = time.monotonic()
    for number, indices in enumerate(batches):
        with stop.interruptible():
            rank_rows = _process(stage, context, source, indices[distributed.rank() :: distributed.world()])
        if number + 1 < len(batches):
            # The media of the next batch are read while this one is gathered and written.
            context.model.prefetch(source.prefetch(batches[number + 1][distributed.rank() :: distributed.world()]))
        rows = sorted((row for part in distributed.gather(rank_rows) for row in part), key=lambda row: row["index"])
        _check_unique(stage, rows, index_of)
        if distributed.rank() == 0:
            recording.append(file, [row for row in rows if row["index"] not in done])
        if time.monotonic() - last_message > PROGRESS_SECONDS:
            last_message = time.monotonic()
            log(f"stage {stage.name}: {indices[-1] + 1} of {size} samples")
        if number + 1 < len(batches) and any(distributed.gather(stop.requested)):
            return None
    # Other ranks must not read the file before rank 0 has written its last lines.
    distributed.barrier()
    return finalize(stage, Recording(file, stage.source))


def finalize(stage: Stage, complete: Recording) -> Recording:
    """Add the columns that the stage's selectors derive from all records, such as "kept"; returns `complete`."""
    for transform in stage.transforms:
        if isinstance(transform, Selector):
            complete.add_columns(transform.finalize(complete.records))
    return complete


def _process(
    stage: Stage, context: TrainingContext, source: PrefetchingSource, indices: Sequence[int]
) -> list[dict[str, Any]]:
    """The lines of the samples at `indices`. The context's state is unaffected, except for its skipped samples."""
    samples: dict[int, Sample] = {}
    rows: dict[int, dict[str, Any]] = {}
    with context.isolated(stage.name):
        for index in indices:
            uid = location(source, index)
            try:
                sample = context.with_frame(source[index])
                uid = sample.uid
                context.model.validate(sample)
            except DataError as e:
                rows[index] = recording.dropped_row(index, uid, context.record_skipped(source, index, e))
            else:
                samples[index] = sample
        # Transforms may communicate between ranks, so every rank calls them, even one without samples.
        results = _apply(stage.transforms, list(samples.values()), context)
    by_uid = {result.uid: result for result in results}
    unknown = sorted(by_uid.keys() - {sample.uid for sample in samples.values()})
    if unknown or len(by_uid) < len(results):
        raise ConfigError(
            f"stage {stage.name!r} records each sample once by its uid; its transforms returned {len(results)} samples "
            f"for {len(samples)}, among them {unknown[:3] or 'one uid twice'}"
        )
    for index, sample in samples.items():
        if sample.uid in by_uid:
            rows[index] = recording.row(index, by_uid[sample.uid])
        else:
            rows[index] = recording.dropped_row(index, sample.uid, "dropped by a transform")
    return [rows[index] for index in indices]


def _apply(
    transforms: Sequence[Transform | RefillBatch], samples: list[Sample], context: TrainingContext
) -> list[Sample]:
    for transform in transforms:
        assert not isinstance(transform, RefillBatch), "check_stages refuses it in data-generation stages"
        samples = transform(samples, context)
    return samples


def _check_unique(stage: Stage, rows: Sequence[Mapping[str, Any]], index_of: dict[str, int]) -> None:
    """Add the uids of `rows` to `index_of`. Raises DataError for one that another sample has."""
    for row in rows:
        if index_of.setdefault(row["uid"], row["index"]) != row["index"]:
            raise DataError(
                f"stage {stage.name!r}: wanted a unique uid for each sample, found {row['uid']!r} at "
                f"{index_of[row['uid']]} and at {row['index']} of the source"
            )


class StageRecorder:
    """The recordings of a run's data-generation stages, in the run's folder."""

    def __init__(self, folder: Path, context: TrainingContext, stop: StopSignal, log: Callable[[str], None]) -> None:
        self.folder, self.context, self.stop, self.log = folder / "manifests", context, stop, log
        self.recordings: dict[str, Recording] = {}
        """By stage name."""
        self.digests: dict[str, str] = {}
        """By stage name: hashes of the files, which checkpoints store."""

    def record(self, stage: Stage, base: str, recipe: str) -> bool:
        """Run or resume a data-generation stage; returns whether it is complete.

        `base`: hash of the base model; `recipe`: hash of how prompts are built.
        """
        # After optimizer steps, the base alone no longer identifies the policy.
        policy = base[:16] + (f"+{trainable_weights_hash(self.context.model.module)}" if self.context.step else "")
        provenance = recording.provenance(
            stage, policy=policy, seed=self.context.seed, step=self.context.step, recipe=recipe
        )

        def log_mismatch(differences: list[str]) -> None:
            self.log(f"stage {stage.name}: recorded data differs in {'; '.join(differences)}; recording again")

        file = self.folder / f"{stage.name}.jsonl"
        complete = record_stage(stage, self.context, file, provenance, log_mismatch, self.stop, self.log)
        if complete is not None:
            self._add(stage, complete)
        return complete is not None

    def load(self, stage: Stage, digest: str) -> None:
        """Load the recording of a stage that was complete at the checkpoint; ConfigError if it has changed since."""
        file = self.folder / f"{stage.name}.jsonl"
        if not file.exists() or Recording(file, stage.source).digest() != digest:
            raise ConfigError(
                f"{file}: wanted the recording of stage {stage.name!r} at the checkpoint, found "
                f"{'another file' if file.exists() else 'no file'}; restore it, or start a new run"
            )
        self._add(stage, finalize(stage, Recording(file, stage.source)))

    def resolve_source(self, stage: Stage) -> Stage:
        """`stage`, with a source built from the recording that it reads, if any."""
        if stage.reads_from is None:
            return stage
        source = stage.reads_from.build(stage.source, self.recordings[stage.reads_from.stage])
        self.log(f"stage {stage.name}: {len(source)} samples, from the output of stage {stage.reads_from.stage}")
        return replace(stage, source=source)

    def summary(self) -> dict[str, Any]:
        """The sample counts of each recording, for the run's summary."""
        counts = {name: manifest.counts(complete.records) for name, complete in self.recordings.items()}
        return {"made": counts} if counts else {}

    def _add(self, stage: Stage, complete: Recording) -> None:
        self.recordings[stage.name], self.digests[stage.name] = complete, complete.digest()
        self.log(f"stage {stage.name}: {manifest.format_counts(complete.records)}: {complete.file}")
        if any(isinstance(t, Selector) for t in stage.transforms) and distributed.rank() == 0:
            manifest.write(self.folder / f"{stage.name}.verdicts.jsonl", complete, stage)


def trainable_weights_hash(module: torch.nn.Module) -> str:
    """The first 16 hex digits of a SHA-256 of the module's trainable parameters, by name."""
    sha = hashlib.sha256()
    for name, p in sorted(module.named_parameters()):
        if p.requires_grad:
            sha.update(name.encode())
            sha.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
