"""Data selection for any task: filter the sources of its stages by a manifest, or by a measuring stage in the run.

`select.by=...` inserts a data-generation stage that measures the samples before the stages that train on them;
`data.manifest=...` uses the measurements of an earlier `mmpost select`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from mmpost.config import registry, run_config
from mmpost.config.settings import DataSettings, Settings
from mmpost.data.sources.base import Subset
from mmpost.data.sources.selected import select_subset
from mmpost.errors import ConfigError, DataError
from mmpost.selection.manifest import Manifest, ordered, read
from mmpost.selection.selectors import REWARD, SELECTORS
from mmpost.training.context import location
from mmpost.training.stage_checks import refuse_selection_conflicts
from mmpost.transforms.filter_replies import FilterReplies
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import GeneratedDataset, ReadsFrom, SampleRecord, Selector, Source, Stage

NAME = "select"
"""The name of the measuring stage."""
MAX_LOOKED_AT = 100
"""Samples that are read for the reward of a correct reply, where it depends on the sample."""


def apply_selection(
    stages: Sequence[Stage], select: Mapping[str, Any], data: DataSettings, seed: int
) -> Sequence[Stage]:
    """The stages of a task, restricted to the samples selected by `select`, `data.manifest` or `data.max_samples`.

    `seed` determines random subsets of `data`. Raises ConfigError for contradictory
    settings, and DataError for a manifest that does not match the data.
    """
    if select and data.manifest:
        raise ConfigError(
            "select measures the samples in this run, data.manifest uses an earlier measurement: remove one of them"
        )
    if select:
        return list(_with_measuring_stage(stages, select, data, seed))
    if data.manifest:
        return _filtered_by_manifest(stages, read(data.manifest), data, seed)
    if data.subset != "kept" or data.order != "shuffled":
        raise ConfigError(
            f"data.subset={data.subset}, data.order={data.order}: wanted a selection that these apply to; set "
            "data.manifest=FILE or select.by=..."
        )
    return [_with_max_samples(stage, data, seed) for stage in stages] if data.max_samples else stages


def measuring_stage(stages: Sequence[Stage], select: Mapping[str, Any]) -> tuple[Stage, Stage]:
    """A stage that measures the samples of the first training stage that scores rollouts; returned with that stage.

    Replies are sampled and scored by the same transforms as in training, but `k` per sample and all of them, and the
    selector that `select` describes comes last. Raises ConfigError if no stage scores rollouts, or for an unknown
    selector.
    """
    target = next((s for s in stages if s.objective is not None and _score_positions(s)), None)
    if target is None:
        raise ConfigError("select measures samples by the rewards of rollouts, and no stage of the task scores any")
    selector = _selector(select, target)
    transforms = list(target.transforms[: max(_score_positions(target)) + 1])
    transforms = [
        t.model_copy(update={"n": selector.k}) if isinstance(t, Generate) else t  # type: ignore[attr-defined]
        for t in transforms
        if not isinstance(t, FilterReplies)
    ]
    measuring = Stage(
        NAME,
        target.source,
        None,
        target.batch_size,
        (*transforms, selector),  # type: ignore[arg-type]
        gold=target.gold,
        reads_from=target.reads_from,
    )
    return measuring, target


def _score_positions(stage: Stage) -> list[int]:
    return [i for i, t in enumerate(stage.transforms) if isinstance(t, Score)]


def _selector(select: Mapping[str, Any], stage: Stage) -> Settings:
    """The selector that `select` describes; `right` defaults to the declared reward of the stage's gold replies."""
    fields = dict(select)
    name = fields.pop("by", None)
    if not isinstance(name, str):
        raise ConfigError(f"wanted select.by=NAME, found {name!r}; available: {', '.join(SELECTORS)}, or file.py:Class")
    cls: Any = SELECTORS[name] if name in SELECTORS else registry.member(name, "mmpost.transforms")
    bases: list[Any] = list(getattr(cls, "__mro__", ()))
    if not {Selector, Settings} <= {*bases} or "k" not in cls.model_fields:
        raise ConfigError(
            f"select.by={name}: wanted one of {', '.join(SELECTORS)}, or a class derived from Selector and Settings "
            "with a field k"
        )
    selector = run_config.decode(cls, fields, "select.")
    if "right" in cls.model_fields and getattr(selector, "right") is None:  # noqa: B009
        # Declared rewards are weighted sums of scores, so they set no threshold for a single score.
        scores = {getattr(selector, "score", None), *getattr(selector, "discrete", ())}
        if REWARD in scores:
            selector = selector.model_copy(update={"right": _lowest_declared(stage)})
    return selector


def _lowest_declared(stage: Stage) -> float | None:
    """The lowest reward that the stage's gold replies declare; None without any.

    Raises ConfigError if that differs between samples, of which at most MAX_LOOKED_AT, evenly spaced, are read.
    """
    golds = [gold for gold in stage.gold if gold.reward is not None]
    if not any(callable(gold.reward) for gold in golds):
        return min((gold.reward for gold in golds if isinstance(gold.reward, float | int)), default=None)
    lowest: dict[float, str] = {}
    for index in range(0, len(stage.source), max(1, math.ceil(len(stage.source) / MAX_LOOKED_AT))):
        with suppress(DataError):  # raised again where the sample is measured
            sample = stage.source[index]
            values = [gold.reward(sample) if callable(gold.reward) else gold.reward for gold in golds]
            lowest.setdefault(min(value for value in values if value is not None), sample.label)
    if len(lowest) > 1:
        (low, first), *_, (high, other) = sorted(lowest.items())
        raise ConfigError(
            f"select.right: wanted the minimum reward of a correct reply, which differs between samples ({low:g} for "
            f"{first}, {high:g} for {other}); set it, or select by a score (select.score=...)"
        )
    return next(iter(lowest), None)


def _with_measuring_stage(
    stages: Sequence[Stage], select: Mapping[str, Any], data: DataSettings, seed: int
) -> Iterator[Stage]:
    """The stages with the measuring stage inserted; later stages with the same source train on the selection."""
    measuring, target = measuring_stage(stages, select)
    reads_from = ReadsFrom(NAME, partial(_selected, data, seed))
    order = "given" if data.order == "manifest" else "shuffled"
    first = stages.index(target)
    for number, stage in enumerate(stages):
        if stage is target:
            yield measuring
        has_same_data = stage.source is target.source and stage.reads_from == target.reads_from
        is_filtered = number >= first and has_same_data and stage.objective is not None
        yield replace(stage, reads_from=reads_from, order=order) if is_filtered else stage


def _selected(data: DataSettings, seed: int, source: Source, recording: GeneratedDataset) -> Source:
    return select_subset(recording.source, ordered(recording.records), data, seed)


def _filtered_by_manifest(stages: Sequence[Stage], manifest: Manifest, data: DataSettings, seed: int) -> list[Stage]:
    """The stages; sources with samples of the manifest are restricted to those that it keeps."""
    uids = {record.uid for record in manifest.records}
    order = "given" if data.order == "manifest" else "shuffled"
    # By id of the source: stages may share one, and indexing it reads all of its samples.
    subsets: dict[int, Subset | None] = {}
    matched: set[str] = set()
    filtered = []
    for stage in stages:
        if id(stage.source) not in subsets:
            index_of = _index_by_uid(stage.source, uids, data.on_error == "skip")
            subsets[id(stage.source)] = _subset(stage, manifest, index_of, data, seed)
            matched |= uids & index_of.keys()
        subset = subsets[id(stage.source)]
        if subset is not None:
            conflicts = manifest.provenance.get("conflicts", {})
            refuse_selection_conflicts(f"stage {stage.name!r} on {manifest.file}", conflicts, stage.transforms)
            stage = replace(stage, source=subset, order=order)
        filtered.append(stage)
    unknown = [record.uid for record in manifest.records if not record.drop_reason and record.uid not in matched]
    if unknown:
        raise DataError(
            f"{manifest.file}: {_first_few(unknown)} of {len(uids)} uids are not in the data that the task trains on; "
            "select again from that data"
        )
    return filtered


def _subset(
    stage: Stage, manifest: Manifest, index_of: Mapping[str, int], data: DataSettings, seed: int
) -> Subset | None:
    """The samples of a stage's source that the manifest keeps; None if it lists none of them."""
    listed = [replace(record, index=index_of[record.uid]) for record in manifest.records if record.uid in index_of]
    if not listed:
        return None
    uids = {record.uid for record in manifest.records}
    unlisted = [uid for uid in index_of if uid not in uids]
    if unlisted and manifest.provenance:
        raise DataError(
            f"{manifest.file} was made from other data: {_first_few(unlisted)} of {len(index_of)} samples of stage "
            f"{stage.name!r} are not in it; select again from the data that you train on"
        )
    # A manifest written by hand may list only what it keeps.
    records = [*listed, *(SampleRecord(uid, index_of[uid], {"kept": 0.0}) for uid in unlisted)]
    return select_subset(stage.source, records, data, seed)


def _index_by_uid(source: Source, uids: Collection[str], skip_errors: bool) -> dict[str, int]:
    """The index of each sample by uid. Raises DataError for an unreadable one, unless `skip_errors` or it is in `uids`.

    A manifest lists unreadable samples by their location.
    """
    index_of: dict[str, int] = {}
    for index in range(len(source)):
        try:
            index_of.setdefault(source[index].uid, index)
        except DataError:
            if not skip_errors and location(source, index) not in uids:
                raise
    return index_of


def _with_max_samples(stage: Stage, data: DataSettings, seed: int) -> Stage:
    if len(stage.source) <= data.max_samples:
        return stage
    records = [SampleRecord(str(index), index) for index in range(len(stage.source))]
    return replace(stage, source=select_subset(stage.source, records, data, seed))


def _first_few(uids: Sequence[str]) -> str:
    """The number of uids and up to three of them."""
    return f"{len(uids)} ({', '.join(map(repr, uids[:3]))}{', ...' if len(uids) > 3 else ''})"
