"""Stages that make data: every sample of the source through the transforms, once, on record. No weight moves here."""

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
from mmpost.training.interrupts import StopSignal
from mmpost.types import RefillBatch, Sample, Selector, Stage, Transform

EVERY = 10.0
"""Seconds between two lines about how far it is."""

Other = Callable[[list[str]], None]
"""Hears in which points what a file holds was made otherwise; raises, or the file is begun anew."""


def record_stage(
    stage: Stage,
    job: TrainingContext,
    file: Path,
    about: Mapping[str, Any],
    other: Other,
    stop: StopSignal,
    say: Callable[[str], None],
) -> Recording | None:
    """Record what the transforms make of each sample of the stage's source; None where it was asked to stop before.

    Samples that `file` has already are not made again. A sample is worked on together with the same neighbours whether
    or not some of them are on record, and draws depend on seed, stage and uid, so what a kill cut off ends in the same
    bytes. One that cannot be read raises DataError, or is recorded as lost where the job leaves such samples out.
    """
    done = distributed.gather(recording.begin(file, about, other) if distributed.rank() == 0 else {})[0]
    uids = {uid: index for index, uid in done.items()}
    ahead, size = PrefetchingSource(stage.source), len(stage.source)
    todo = [range(a, min(a + stage.batch_size, size)) for a in range(0, size, stage.batch_size)]
    todo = [indices for indices in todo if any(i not in done for i in indices)]
    told = time.monotonic()
    for number, indices in enumerate(todo):
        with stop.interruptible():
            mine = _together(stage, job, ahead, indices[distributed.rank() :: distributed.world()])
        if number + 1 < len(todo):
            # While this part is gathered and written, the media of the next are read.
            job.model.prefetch(ahead.prefetch(todo[number + 1][distributed.rank() :: distributed.world()]))
        rows = sorted((r for part in distributed.gather(mine) for r in part), key=lambda r: r["index"])
        _unique(stage, rows, uids)
        if distributed.rank() == 0:
            recording.append(file, [r for r in rows if r["index"] not in done])
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            say(f"stage {stage.name}: {indices[-1] + 1} of {size} samples")
        if number + 1 < len(todo) and any(distributed.gather(stop.requested)):
            return None
    distributed.barrier()
    return finalize(stage, Recording(file, stage.source))


def finalize(stage: Stage, record: Recording) -> Recording:
    """The whole recording with what its transforms conclude from all of it."""
    for transform in stage.transforms:
        if isinstance(transform, Selector):
            record.add_columns(transform.finalize(record.records))
    return record


def _together(
    stage: Stage, job: TrainingContext, source: PrefetchingSource, indices: Sequence[int]
) -> list[dict[str, Any]]:
    """The lines of these samples; leaves no trace in the job but what it left out."""
    samples: dict[int, Sample] = {}
    rows: dict[int, dict[str, Any]] = {}
    with job.isolated(stage.name):
        for index in indices:
            uid = location(source, index)
            try:
                sample = job.with_frame(source[index])
                uid = sample.uid
                job.model.validate(sample)
            except DataError as e:
                rows[index] = recording.lost(index, uid, job.record_skipped(source, index, e))
            else:
                samples[index] = sample
        # A transform may speak with the other ranks: all of them call it, also one that has no samples.
        made = _through(stage.transforms, list(samples.values()), job)
    found = {s.uid: s for s in made}
    strange = sorted(found.keys() - {s.uid for s in samples.values()})
    if strange or len(found) < len(made):
        raise ConfigError(
            f"stage {stage.name!r} records each sample once by its uid; its transforms made {len(made)} samples of "
            f"{len(samples)}, among them {strange[:3] or 'one uid twice'}"
        )
    for index, sample in samples.items():
        if sample.uid in found:
            rows[index] = recording.row(index, found[sample.uid])
        else:
            rows[index] = recording.lost(index, sample.uid, "dropped by a transform")
    return [rows[index] for index in indices]


def _through(
    transforms: Sequence[Transform | RefillBatch], samples: list[Sample], job: TrainingContext
) -> list[Sample]:
    for transform in transforms:
        assert not isinstance(transform, RefillBatch)
        samples = transform(samples, job)
    return samples


def _unique(stage: Stage, rows: Sequence[Mapping[str, Any]], uids: dict[str, int]) -> None:
    for row in rows:
        if uids.setdefault(row["uid"], row["index"]) != row["index"]:
            raise DataError(
                f"stage {stage.name!r}: wanted a uid of its own for each sample, found {row['uid']!r} at "
                f"{uids[row['uid']]} and at {row['index']} of the source"
            )


class StageRecorder:
    """The recordings of a run's stages, in its folder."""

    def __init__(self, folder: Path, job: TrainingContext, stop: StopSignal, say: Callable[[str], None]) -> None:
        self.folder, self.job, self.stop, self.say = folder / "manifests", job, stop, say
        self.made: dict[str, Recording] = {}
        self.digests: dict[str, str] = {}
        """By stage: what a checkpoint keeps of its recording."""

    def record(self, stage: Stage, base: str, recipe: str) -> bool:
        """Make the data of a stage, or the rest of them; whether they are whole."""
        policy = base[:16] + (f"+{weights(self.job.model.module)}" if self.job.step else "")
        about = recording.about(stage, policy=policy, seed=self.job.seed, step=self.job.step, recipe=recipe)

        def other(points: list[str]) -> None:
            self.say(f"stage {stage.name}: its data were made otherwise, in {'; '.join(points)}; making them again")

        file = self.folder / f"{stage.name}.jsonl"
        record = record_stage(stage, self.job, file, about, other, self.stop, self.say)
        if record is not None:
            self._keep(stage, record)
        return record is not None

    def load(self, stage: Stage, digest: str) -> None:
        """The data of a stage that was finished before the checkpoint. Raises ConfigError where they changed since."""
        file = self.folder / f"{stage.name}.jsonl"
        if not file.exists() or Recording(file, stage.source).digest() != digest:
            raise ConfigError(
                f"{file}: wanted what stage {stage.name!r} recorded before the checkpoint, found "
                f"{'another file' if file.exists() else 'no file'}; put it back, or start a new run"
            )
        self._keep(stage, finalize(stage, Recording(file, stage.source)))

    def resolve_source(self, stage: Stage) -> Stage:
        """The stage with the source that it reads from another's recording."""
        if stage.reads_from is None:
            return stage
        source = stage.reads_from.build(stage.source, self.made[stage.reads_from.stage])
        self.say(f"stage {stage.name}: {len(source)} samples, from what stage {stage.reads_from.stage} recorded")
        return replace(stage, source=source)

    def summary(self) -> dict[str, Any]:
        """What the run's summary says of them."""
        counts = {name: manifest.counts(record.records) for name, record in self.made.items()}
        return {"made": counts} if counts else {}

    def _keep(self, stage: Stage, record: Recording) -> None:
        self.made[stage.name], self.digests[stage.name] = record, record.digest()
        self.say(f"stage {stage.name}: {manifest.format_counts(record.records)}: {record.file}")
        if any(isinstance(t, Selector) for t in stage.transforms) and distributed.rank() == 0:
            manifest.write(self.folder / f"{stage.name}.verdicts.jsonl", record, stage)


def weights(module: torch.nn.Module) -> str:
    """A short hash of what trains in `module`, as it is now."""
    whole = hashlib.sha256()
    for name, p in sorted(module.named_parameters()):
        if p.requires_grad:
            whole.update(name.encode())
            whole.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]
