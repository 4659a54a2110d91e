"""The generated dataset of a data-generation stage on disk: a JSON Lines file, and the samples read back from it.

The first line holds the provenance (stage, policy, seed, transforms, ...); then there is one line per sample of the
stage's source, in its order. A killed process leaves complete lines and at most one partial line, which `begin`
removes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpost.config.renamed import upgrade_described
from mmpost.core import run_files, sample_io
from mmpost.data.sources.base import Indexed
from mmpost.errors import DataError
from mmpost.types import FunctionTransform, Sample, SampleRecord, Source, Stage

FORMAT = 1


def provenance(stage: Stage, **more: Any) -> dict[str, Any]:
    """Everything that determines the content of a stage's recording, as JSON data.

    Two recordings with equal provenance have equal content. `more`: what the stage does not determine, such as policy,
    seed and step.
    """
    return {
        "format": FORMAT,
        "stage": stage.name,
        "samples": len(stage.source),
        "together": stage.batch_size,
        "transforms": [described(t) for t in stage.transforms],
        **more,
    }


def described(value: Any) -> Any:
    """`value` as JSON data: settings by class and fields, functions and other objects by qualified name."""
    if isinstance(value, FunctionTransform):
        value = value.function
    if hasattr(value, "model_fields_set"):
        fields = {name: described(getattr(value, name)) for name in type(value).model_fields}
        return {"class": type(value).__qualname__, **fields}
    if isinstance(value, Mapping):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [described(v) for v in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def begin(file: Path, expected: Mapping[str, Any], on_mismatch: Callable[[list[str]], None]) -> dict[int, str]:
    """Start or resume a recording with provenance `expected`; returns the recorded uids by index.

    Removes a partial last line. If the file has another provenance, `on_mismatch` is called with the
    differences; unless it raises, the file is overwritten.
    """
    first = next(_lines(file), None) if _remove_partial_line(file) else None
    if first is not None:
        # Recordings of earlier versions may use old names.
        old, new = upgrade_described(first[1].get("made", {})), json.loads(json.dumps(expected))
        differences = [f"{k} (was {old.get(k)!r:.80}, now {new[k]!r:.80})" for k in new if old.get(k) != new[k]]
        if not differences:
            return {record.index: record.uid for _, record in _records(file)}
        on_mismatch(differences)
    file.parent.mkdir(parents=True, exist_ok=True)
    run_files.write(file, (json.dumps({"made": dict(expected)}) + "\n").encode())
    return {}


def _remove_partial_line(file: Path) -> int:
    """Truncate `file` to its complete lines; returns their size in bytes."""
    if not file.exists():
        return 0
    end = 0
    with file.open("rb+") as lines:
        for line in lines:
            end += len(line) if line.endswith(b"\n") else 0
        lines.truncate(end)
    return end


def row(index: int, sample: Sample) -> dict[str, Any]:
    """The line of a sample that passed the transforms; `index`: its position in the stage's source."""
    packed = (sample_io.pack([sample]) or [{}])[0]
    replies = [
        {**r, "scores": _nan_to_null(r["scores"]), "columns": _nan_to_null(r["columns"])} for r in packed["replies"]
    ]
    return {"uid": sample.uid, "index": index, "columns": _nan_to_null(packed["columns"]), "replies": replies}


def dropped_row(index: int, uid: str, reason: str) -> dict[str, Any]:
    """The line of a sample that cannot be read, or that a transform dropped."""
    return {"uid": uid, "index": index, "lost": reason}


def append(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append lines and sync them to disk: they survive a crash right after this call."""
    with file.open("ab") as out:
        out.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode())
        out.flush()
        os.fsync(out.fileno())


class Recording:
    """A complete recording: the `GeneratedDataset` that later stages read.

    Only the records are held in memory. Replies are read from the file, prompts from the stage's source, when a sample
    is accessed.
    """

    def __init__(self, file: Path, source: Source) -> None:
        self.file, self.source = file, source
        offsets_and_records = list(_records(file))
        self._offsets = [offset for offset, _ in offsets_and_records]
        self.records: list[SampleRecord] = [record for _, record in offsets_and_records]
        self.provenance: dict[str, Any] = next(_lines(file))[1]["made"]

    def samples(self) -> Source:
        usable = [i for i, record in enumerate(self.records) if not record.drop_reason]
        if not usable:
            reasons = ", ".join(sorted({record.drop_reason for record in self.records}))
            raise DataError(
                f"{self.file}: wanted samples for the next stage, found none of {len(self.records)} ({reasons}); see "
                "the settings of the transform that dropped them"
            )
        return _Samples(self, usable)

    def add_columns(self, columns: Mapping[str, Mapping[str, float]]) -> None:
        """Add columns to the records, by uid; the file does not change."""
        self.records = [replace(r, columns={**r.columns, **columns.get(r.uid, {})}) for r in self.records]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of the samples, parsed: those that `row` and `dropped_row` made."""
        return (row for _, row in _lines(self.file) if "made" not in row)

    def sample(self, number: int) -> Sample:
        """The sample of `records[number]` with its replies. Raises DataError if the source has changed since."""
        record = self.records[number]
        sample = self.source[record.index]
        if sample.uid != record.uid:
            raise DataError(
                f"{self.file}: wanted sample {record.uid!r} at {record.index} of the source, found {sample.uid!r}; the "
                "data has changed since the recording: restore it, or record again"
            )
        with self.file.open("rb") as lines:
            lines.seek(self._offsets[number])
            row = json.loads(lines.readline())
        replies = [
            {**r, "scores": _null_to_nan(r["scores"]), "columns": _null_to_nan(r["columns"])} for r in row["replies"]
        ]
        unpacked = sample_io.unpack([{**row, "replies": replies}], {record.uid: sample})
        assert unpacked is not None
        # The record's columns rather than the file's: they include those of `add_columns`.
        return replace(unpacked[0], columns=record.columns)

    def digest(self) -> str:
        """SHA-256 of the file, which must be unchanged when a run is resumed."""
        sha = hashlib.sha256()
        with self.file.open("rb") as f:
            while block := f.read(1 << 20):
                sha.update(block)
        return sha.hexdigest()


class _Samples(Indexed):
    """A subset of the samples of a recording."""

    def __init__(self, recording: Recording, numbers: Sequence[int]) -> None:
        self.recording, self.numbers = recording, numbers
        self.name = str(recording.file)

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, index: int) -> Sample:
        return self.recording.sample(self.numbers[index])


def _records(file: Path) -> Iterator[tuple[int, SampleRecord]]:
    """The byte offset and record of each sample's line. Raises DataError for a line without uid and index."""
    for number, (offset, row) in enumerate(_lines(file), 1):
        if number == 1:
            continue
        try:
            columns = _null_to_nan(row.get("columns", {}))
            yield offset, SampleRecord(row["uid"], row["index"], columns, row.get("lost", ""))
        except (KeyError, TypeError, AttributeError) as e:
            raise DataError(f"{file}:{number}: wanted a line with uid and index, found {row!r:.80}") from e


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The byte offset and parsed content of each line, the provenance first."""
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
            except ValueError as e:
                raise DataError(f"{file}:{number}: wanted a JSON object, found {line[:60]!r}; remove the file") from e
            yield offset, content
            offset += len(line)


def _nan_to_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _null_to_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in values.items()}
