"""What a stage that makes data recorded: a file of JSON Lines, and the samples in it.

The first line says how it was made (stage, policy, seed, transforms); then there is one line for each sample of the
stage's source, in its order. A kill leaves whole lines and at most one that is cut short, which `begin` takes off.
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


def about(stage: Stage, **more: Any) -> dict[str, Any]:
    """How a stage's recording is made, as plain data: two that say the same hold the same."""
    return {
        "format": FORMAT,
        "stage": stage.name,
        "samples": len(stage.source),
        "together": stage.batch_size,
        "transforms": [described(t) for t in stage.transforms],
        **more,
    }


def described(value: Any) -> Any:
    """Settings by their class and fields, functions by their names, everything else as JSON can say it."""
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


def begin(file: Path, made: Mapping[str, Any], other: Callable[[list[str]], None]) -> dict[int, str]:
    """The uids by index that `file` has; writes its first line where there is none, cuts off a line that is not whole.

    Where the file was made otherwise, `other` hears in which points; it raises, or the file is begun anew.
    """
    first = next(_lines(file), None) if _whole_lines(file) else None
    if first is not None:
        was, now = upgrade_described(first[1].get("made", {})), json.loads(json.dumps(made))
        wrong = [f"{k} (was {was.get(k)!r:.80}, now {now[k]!r:.80})" for k in now if was.get(k) != now[k]]
        if not wrong:
            return {entry.index: entry.uid for _, entry in _entries(file)}
        other(wrong)
    file.parent.mkdir(parents=True, exist_ok=True)
    run_files.write(file, (json.dumps({"made": dict(made)}) + "\n").encode())
    return {}


def _whole_lines(file: Path) -> int:
    """Cut off a last line that is not whole; the bytes that are left."""
    if not file.exists():
        return 0
    end = 0
    with file.open("rb+") as lines:
        for line in lines:
            end += len(line) if line.endswith(b"\n") else 0
        lines.truncate(end)
    return end


def row(index: int, sample: Sample) -> dict[str, Any]:
    """The line of a sample that came through."""
    packed = (sample_io.pack([sample]) or [{}])[0]
    replies = [{**r, "scores": _nulls(r["scores"]), "columns": _nulls(r["columns"])} for r in packed["replies"]]
    return {"uid": sample.uid, "index": index, "columns": _nulls(packed["columns"]), "replies": replies}


def lost(index: int, uid: str, why: str) -> dict[str, Any]:
    """The line of a sample that did not."""
    return {"uid": uid, "index": index, "lost": why}


def append(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add lines; they are on disk when this returns."""
    with file.open("ab") as out:
        out.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode())
        out.flush()
        os.fsync(out.fileno())


class Recording:
    """A whole recording; the Recording that later stages read."""

    def __init__(self, file: Path, source: Source) -> None:
        self.file, self.source = file, source
        found = list(_entries(file))
        self._starts = [start for start, _ in found]
        self.records: list[SampleRecord] = [entry for _, entry in found]
        self.made: dict[str, Any] = next(_lines(file))[1]["made"]

    def samples(self) -> Source:
        return _Samples(self, [i for i, entry in enumerate(self.records) if not entry.drop_reason])

    def add_columns(self, columns: Mapping[str, Mapping[str, float]]) -> None:
        """Add columns by uid."""
        self.records = [replace(e, columns={**e.columns, **columns.get(e.uid, {})}) for e in self.records]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of the file after the first."""
        return (found for _, found in _lines(self.file) if "made" not in found)

    def sample(self, number: int) -> Sample:
        """The sample of the number-th entry with its replies."""
        entry = self.records[number]
        drawn = self.source[entry.index]
        if drawn.uid != entry.uid:
            raise DataError(
                f"{self.file}: wanted sample {entry.uid!r} at {entry.index} of the source, found {drawn.uid!r}; the "
                "data have changed since they were recorded: put them back, or record them again"
            )
        with self.file.open("rb") as lines:
            lines.seek(self._starts[number])
            found = json.loads(lines.readline())
        packed = [{**r, "scores": _numbers(r["scores"]), "columns": _numbers(r["columns"])} for r in found["replies"]]
        whole = sample_io.unpack([{**found, "replies": packed}], {entry.uid: drawn})
        assert whole is not None
        return replace(whole[0], columns=entry.columns)

    def digest(self) -> str:
        """SHA-256 of the file: a run that goes on later must find the same."""
        whole = hashlib.sha256()
        with self.file.open("rb") as f:
            while block := f.read(1 << 20):
                whole.update(block)
        return whole.hexdigest()


class _Samples(Indexed):
    def __init__(self, record: Recording, numbers: Sequence[int]) -> None:
        self.record, self.numbers = record, numbers
        self.name = str(record.file)

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, index: int) -> Sample:
        return self.record.sample(self.numbers[index])


def _entries(file: Path) -> Iterator[tuple[int, SampleRecord]]:
    """Where each line starts, and what it says; raises DataError for a line that no stage wrote."""
    for number, (start, found) in enumerate(_lines(file), 1):
        if number == 1:
            continue
        try:
            columns = _numbers(found.get("columns", {}))
            yield start, SampleRecord(found["uid"], found["index"], columns, found.get("lost", ""))
        except (KeyError, TypeError, AttributeError) as e:
            raise DataError(f"{file}:{number}: wanted a line with uid and index, found {found!r:.80}") from e


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    place = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found = json.loads(line)
            except ValueError as e:
                raise DataError(
                    f"{file}:{number}: wanted a JSON object, found {line[:60]!r}; move the file away"
                ) from e
            yield place, found
            place += len(line)


def _nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in values.items()}
