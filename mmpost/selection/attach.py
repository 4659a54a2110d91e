"""Selection joined to any task: a stage that measures its samples, or a manifest, in front of what it trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mmpost.config import registry, run_config
from mmpost.config.settings import DataSettings, Settings
from mmpost.data.sources.base import Subset
from mmpost.data.sources.selected import select_subset
from mmpost.errors import ConfigError, DataError
from mmpost.selection.manifest import Manifest, ordered, read
from mmpost.selection.selectors import SELECTORS
from mmpost.training.context import location
from mmpost.training.stage_checks import refuse_selection_conflicts
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import GeneratedDataset, ReadsFrom, SampleRecord, Selector, Source, Stage

NAME = "select"
"""The stage that measures."""


def apply_selection(
    stages: Sequence[Stage], select: Mapping[str, Any], data: DataSettings, seed: int
) -> Sequence[Stage]:
    """The stages, drawing from what `select`, `data.manifest` or `data.max_samples` leave of their sources.

    Raises ConfigError for settings that contradict one another.
    """
    if select and data.manifest:
        raise ConfigError(
            "select measures the samples in this run, data.manifest says what was measured: leave one out"
        )
    if select:
        return list(_measured_first(stages, select, data, seed))
    if data.manifest:
        return list(_by_manifest(stages, read(data.manifest), data, seed))
    if data.subset != "kept" or data.order != "shuffled":
        raise ConfigError(
            f"data.subset={data.subset}, data.order={data.order}: wanted a selection that they are about; say "
            "data.manifest=FILE or select.by=..."
        )
    return [_at_most(stage, data, seed) for stage in stages] if data.max_samples else stages


def measuring_stage(stages: Sequence[Stage], select: Mapping[str, Any]) -> tuple[Stage, Stage]:
    """A stage that measures the samples of the first stage that scores rollouts, and that stage.

    Replies are drawn and scored as in training; how many of them, and what follows, is the selector's.
    """
    target = next((s for s in stages if s.objective is not None and _scores(s)), None)
    if target is None:
        raise ConfigError("select judges by the rewards of rollouts, and no stage of the task scores any")
    selector = _selector(select, target)
    steps = list(target.transforms[: max(_scores(target)) + 1])
    steps = [t.model_copy(update={"n": selector.k}) if isinstance(t, Generate) else t for t in steps]  # type: ignore[attr-defined]
    return Stage(NAME, target.source, None, target.batch_size, (*steps, selector), gold=target.gold), target  # type: ignore[arg-type]


def _scores(stage: Stage) -> list[int]:
    return [i for i, t in enumerate(stage.transforms) if isinstance(t, Score)]


def _selector(select: Mapping[str, Any], stage: Stage) -> Settings:
    """The selector with its fields; what a right reply earns is filled in where the stage declares it."""
    given = dict(select)
    name = given.pop("by", None)
    if not isinstance(name, str):
        raise ConfigError(f"wanted select.by=NAME, found {name!r}; there are {', '.join(SELECTORS)}, or file.py:Class")
    kind = SELECTORS[name] if name in SELECTORS else registry.member(name, "mmpost.transforms")
    usable = isinstance(kind, type) and issubclass(kind, Selector) and issubclass(kind, Settings)
    if not usable or "k" not in kind.model_fields:
        raise ConfigError(
            f"select.by={name}: wanted one of {', '.join(SELECTORS)}, or a class derived from Selector and Settings "
            "with a field k"
        )
    selector = run_config.decode(kind, given, "select.")
    declared = [g.reward for g in stage.gold if g.reward is not None]
    if declared and "right" in kind.model_fields and getattr(selector, "right") is None:  # noqa: B009
        about = {getattr(selector, "score", None), *getattr(selector, "discrete", ())}
        if "reward" in about:
            selector = selector.model_copy(update={"right": min(declared)})
    return selector


def _measured_first(
    stages: Sequence[Stage], select: Mapping[str, Any], data: DataSettings, seed: int
) -> Iterator[Stage]:
    measure, target = measuring_stage(stages, select)
    reads = ReadsFrom(NAME, partial(_recorded, data, seed))
    order = "given" if data.order == "manifest" else "shuffled"
    at = stages.index(target)
    for number, stage in enumerate(stages):
        if stage is target:
            yield measure
        theirs = number >= at and stage.source is target.source and stage.objective is not None
        yield replace(stage, reads_from=reads, order=order) if theirs else stage


def _recorded(data: DataSettings, seed: int, source: Source, recording: GeneratedDataset) -> Source:
    return select_subset(source, ordered(recording.records), data, seed)


def _by_manifest(stages: Sequence[Stage], manifest: Manifest, data: DataSettings, seed: int) -> Iterator[Stage]:
    """Stages whose source has samples of the manifest draw from those that it keeps; the others stay as they are."""
    named = {entry.uid: entry for entry in manifest.records}
    order = "given" if data.order == "manifest" else "shuffled"
    parts: dict[int, tuple[Source, Subset | None]] = {}
    found: set[str] = set()
    made = []
    for stage in stages:
        if id(stage.source) not in parts:
            places = _places(stage.source, named, data.on_error == "skip")
            parts[id(stage.source)] = stage.source, _part(stage, manifest, places, data, seed)
            found |= named.keys() & places.keys()
        part = parts[id(stage.source)][1]
        if part is not None:
            why = manifest.made.get("conflicts", {})
            refuse_selection_conflicts(f"stage {stage.name!r} on {manifest.file}", why, stage.transforms)
            stage = replace(stage, source=part, order=order)
        made.append(stage)
    unknown = [e.uid for e in manifest.records if not e.drop_reason and e.uid not in found]
    if unknown:
        raise DataError(
            f"{manifest.file}: {_few(unknown)} of {len(named)} uids are no sample that the task trains on; select "
            "again from the data that you train on"
        )
    yield from made


def _part(stage: Stage, manifest: Manifest, places: Mapping[str, int], data: DataSettings, seed: int) -> Subset | None:
    """What the manifest leaves of a stage's source; None where it is about another."""
    mine = [replace(e, index=places[e.uid]) for e in manifest.records if e.uid in places]
    if not mine:
        return None
    named = {entry.uid for entry in manifest.records}
    strange = [uid for uid in places if uid not in named]
    if strange and manifest.made:
        raise DataError(
            f"{manifest.file} was made from other data: {_few(strange)} of {len(places)} samples of stage "
            f"{stage.name!r} are not in it; select again from the data that you train on"
        )
    # A file made by hand may name only what it keeps.
    others = [SampleRecord(uid, places[uid], {"kept": 0.0}) for uid in strange]
    return select_subset(stage.source, [*mine, *others], data, seed)


def _places(source: Source, named: Mapping[str, SampleRecord], skips: bool) -> dict[str, int]:
    """The index of each uid; samples that cannot be read are passed over where the manifest or the user says so."""
    places: dict[str, int] = {}
    for index in range(len(source)):
        try:
            places.setdefault(source[index].uid, index)
        except DataError:
            if not skips and location(source, index) not in named:
                raise
    return places


def _at_most(stage: Stage, data: DataSettings, seed: int) -> Stage:
    if len(stage.source) <= data.max_samples:
        return stage
    entries = [SampleRecord(str(index), index) for index in range(len(stage.source))]
    return replace(stage, source=select_subset(stage.source, entries, data, seed))


def _few(uids: Sequence[str]) -> str:
    return f"{len(uids)} ({', '.join(map(repr, uids[:3]))}{', ...' if len(uids) > 3 else ''})"
