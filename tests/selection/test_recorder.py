"""Data-generation stages, with a fake policy whose replies follow from (seed, uid) as those of a real one do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mmpost.config.settings import DataSettings, Settings
from mmpost.data.sources.selected import select_subset
from mmpost.errors import ConfigError, DataError
from mmpost.objectives.likelihood import Likelihood
from mmpost.selection import manifest, recorder, recording
from mmpost.selection.recording import Recording
from mmpost.selection.selectors import Difficulty, InstanceFilter
from mmpost.training.batches import RolloutBatcher
from mmpost.training.context import TrainingContext
from mmpost.training.stage_checks import check_stages
from mmpost.training.trainer import StopSignal
from mmpost.transforms.generate import Generate, InjectTruth
from mmpost.transforms.score import Score
from mmpost.types import Context, Part, ReadsFrom, RefillBatch, Reply, Sample, Sampling, Stage, Transform


class FakePolicy:
    """A model that cannot read sample s7; as a policy it answers sample s<i> correctly with probability about i/10."""

    def __init__(self) -> None:
        self.generated_uids: list[str] = []
        self.interrupt_at = ""

    def prefetch(self, samples: Sequence[Sample]) -> None: ...

    def coordinate_frame(self, sample: Sample) -> None:
        return None

    def validate(self, sample: Sample) -> None:
        if sample.uid == "s7":
            raise DataError("s7.png: wanted a picture, found half of one")

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        generated = []
        for sample in samples:
            if sample.uid == self.interrupt_at:
                raise KeyboardInterrupt
            self.generated_uids.append(sample.uid)
            digests = (hashlib.sha256(f"{seed}/{sample.uid}/{i}".encode()).digest()[0] for i in range(n))
            texts = ["right" if d < 25 * int(sample.uid[1:]) else "wrong" for d in digests]
            replies = tuple(
                Reply((Part("text", t, "assistant"),), "policy", (1, 2), {}, {"truncated": 0.0, "temperature": 1.0})
                for t in texts
            )
            generated.append(replace(sample, replies=(*sample.replies, *replies)))
        return generated


SOURCE = [Sample(f"s{i}", (Part("text", str(i)),), truth=i) for i in range(10)]
GENERATE = Generate(n=8, sampling=Sampling())
SCORE = Score(rewards={"right": lambda sample, reply: float(reply.text == "right")})


def stage(*more: Any, prompts: int = 3) -> Stage:
    return Stage("measure", SOURCE, None, prompts, (GENERATE, SCORE, *more))


def run_stage(
    policy: FakePolicy, data_stage: Stage, folder: Path, skip_errors: bool = True, seed: int = 0
) -> Recording | None:
    def raise_mismatch(points: list[str]) -> None:
        raise ConfigError("; ".join(points))

    context = TrainingContext(policy, policy, seed, skip_errors=skip_errors)  # type: ignore[arg-type]
    provenance = recording.provenance(data_stage, policy="p", seed=seed)
    return recorder.record_stage(
        data_stage, context, folder / "measured.jsonl", provenance, raise_mismatch, StopSignal(), print
    )


def run_whole_stage(data_stage: Stage, folder: Path, **fields: Any) -> Recording:
    record = run_stage(FakePolicy(), data_stage, folder, **fields)
    assert record is not None
    return record


FILTER = InstanceFilter(right=1.0)


def test_every_sample_is_processed_once_and_recorded(tmp_path: Path) -> None:
    record = run_whole_stage(stage(FILTER), tmp_path)
    assert [e.uid for e in record.records] == [s.uid for s in SOURCE]
    assert record.records[0].columns == {
        **{"k": 8.0, "n/reward": 8.0, "right/reward": 0.0, "mean/reward": 0.0, "std/reward": 0.0},
        "kept": 0.0,
    }
    assert record.records[7].drop_reason == "sample 7: s7.png: wanted a picture, found half of one"
    kept = sum(e.columns.get("right/reward", 0.0) >= 1 for e in record.records)
    assert 5 < kept < 9
    assert manifest.counts(record.records) == {"samples": 10, "lost": 1, "kept": kept}
    samples = record.samples()
    assert [s.uid for s in samples] == [s.uid for s in SOURCE if s.uid != "s7"]
    assert samples[3].truth == 3
    assert [r.scores["right"] for r in samples[3].replies].count(1.0) == samples[3].columns["right/reward"]
    assert record.provenance["policy"] == "p"


def test_a_stage_whose_samples_were_all_dropped_has_none_for_the_next(tmp_path: Path) -> None:
    def keep_none(samples: list[Sample], context: Context) -> list[Sample]:
        return []

    record = run_whole_stage(stage(keep_none), tmp_path)
    with pytest.raises(DataError, match=r"found none of 10 \(dropped by a transform, sample 7: s7"):
        record.samples()


def test_an_unreadable_sample_stops_the_stage_unless_errors_are_skipped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 7: s7\.png: wanted a picture"):
        run_stage(FakePolicy(), stage(FILTER), tmp_path, skip_errors=False)


@pytest.mark.parametrize("cut", [0, 1, 37])
@pytest.mark.parametrize("uid", ["s0", "s4", "s9"])
def test_an_interrupted_stage_resumes_with_the_missing_samples(uid: str, cut: int, tmp_path: Path) -> None:
    reference = run_whole_stage(stage(FILTER), tmp_path / "whole")
    policy, file = FakePolicy(), tmp_path / "cut" / "measured.jsonl"
    policy.interrupt_at = uid
    with pytest.raises(KeyboardInterrupt):
        run_stage(policy, stage(FILTER), tmp_path / "cut")
    written = file.read_bytes()
    file.write_bytes(written[: len(written) - cut])
    num_lines = file.read_bytes().count(b"\n")
    policy = FakePolicy()
    record = run_stage(policy, stage(FILTER), tmp_path / "cut")
    assert record is not None
    assert file.read_bytes() == reference.file.read_bytes()
    assert record.records == reference.records
    # Complete batches of three are skipped; an interrupted one is sampled again, and its missing lines are written.
    assert [u for u in policy.generated_uids if u in [s.uid for s in SOURCE[: max(0, num_lines - 1) // 3 * 3]]] == []


def test_a_complete_recording_is_reused_and_a_mismatched_one_refused(tmp_path: Path) -> None:
    run_whole_stage(stage(FILTER), tmp_path)
    policy = FakePolicy()
    assert run_stage(policy, stage(FILTER), tmp_path) is not None
    assert policy.generated_uids == []
    with pytest.raises(ConfigError, match=r"seed \(was 0, now 1\)"):
        run_stage(policy, stage(FILTER), tmp_path, seed=1)
    with pytest.raises(ConfigError, match="transforms"):
        run_stage(policy, stage(FILTER.model_copy(update={"min_correct": 2})), tmp_path)
    text = (tmp_path / "measured.jsonl").read_text().splitlines()
    (tmp_path / "measured.jsonl").write_text("\n".join([*text[:3], "{}", *text[4:], ""]))
    with pytest.raises(DataError, match=r"measured\.jsonl:4: wanted a line with uid and index"):
        run_stage(policy, stage(FILTER), tmp_path)


def test_the_selection_depends_on_the_seed_alone(tmp_path: Path) -> None:
    def columns(seed: int, folder: str, prompts: int = 3) -> list[Any]:
        return [
            e.columns for e in run_whole_stage(stage(FILTER, prompts=prompts), tmp_path / folder, seed=seed).records
        ]

    assert columns(0, "a") == columns(0, "b") == columns(0, "c", prompts=10)
    assert columns(0, "a") != columns(1, "d")


def test_a_later_stage_trains_on_the_recorded_samples(tmp_path: Path) -> None:
    record = run_whole_stage(stage(Difficulty()), tmp_path)
    reads_from = ReadsFrom(
        "measure", lambda source, recorded: select_subset(source, manifest.ordered(recorded.records), DataSettings(), 0)
    )
    later = Stage("rl", SOURCE, Likelihood(), 3, reads_from=reads_from, order="given")
    source = reads_from.build(later.source, record)
    means = [record.records[int(s.uid[1:])].columns["mean/reward"] for s in source]
    assert means == sorted(means, reverse=True)
    assert len(source) == 9
    batcher = RolloutBatcher(replace(later, source=source), TrainingContext(FakePolicy(), None, 0))  # type: ignore[arg-type]
    batch_uids = [s.uid for _ in range(4) for s in batcher.next()]
    assert batch_uids == [s.uid for s in [*source, *source]][:12]
    resumed = RolloutBatcher(replace(later, source=source), TrainingContext(FakePolicy(), None, 0))  # type: ignore[arg-type]
    resumed.drawn = 6
    assert [s.uid for s in resumed.next()] == batch_uids[6:9]


def test_transforms_can_drop_but_not_add_samples(tmp_path: Path) -> None:
    def keep_odd(samples: list[Sample], context: Context) -> list[Sample]:
        return [s for s in samples if int(s.uid[1:]) % 2]

    record = run_whole_stage(stage(keep_odd), tmp_path / "a")
    assert [e.uid for e in record.records if e.drop_reason == "dropped by a transform"] == [
        "s0",
        "s2",
        "s4",
        "s6",
        "s8",
    ]

    def duplicate(samples: list[Sample], context: Context) -> list[Sample]:
        return samples + samples

    with pytest.raises(ConfigError, match="records each sample once by its uid"):
        run_stage(FakePolicy(), stage(duplicate), tmp_path / "b")
    with pytest.raises(DataError, match="found 's1' at 1 and at 3"):
        run_stage(FakePolicy(), replace(stage(), source=[*SOURCE[:3], SOURCE[1]], batch_size=2), tmp_path / "c")


def test_changed_data_are_detected(tmp_path: Path) -> None:
    record = run_whole_stage(stage(), tmp_path)
    record.source = SOURCE[::-1]
    with pytest.raises(DataError, match="wanted sample 's0' at 0 of the source, found 's9'"):
        record.samples()[0]


def test_the_manifest_has_verdicts_and_provenance(tmp_path: Path) -> None:
    data_stage = stage(Difficulty())
    record = run_whole_stage(data_stage, tmp_path)
    manifest.write(tmp_path / manifest.NAME, record, data_stage)
    first, *lines = [json.loads(line) for line in (tmp_path / manifest.NAME).read_text().splitlines()]
    assert first["made"]["policy"] == "p"
    assert [line["measured"].get("order") for line in lines] == [*map(float, range(9)), None]
    assert {len(line["scores"]["reward"]) for line in lines[:-1]} == {line["k"] for line in lines[:-1]} == {8}
    assert (lines[-1]["uid"], lines[-1]["verdict"], lines[-1]["k"]) == ("s7", "drop", 0)
    assert lines[-1]["lost"].endswith("found half of one")
    read = manifest.read(str(tmp_path))
    assert [e.uid for e in read.records] == [line["uid"] for line in lines]


# Transforms that conflict.


class Careful(Transform, Settings):
    """A user's own transform."""

    conflicts: ClassVar[dict[str | type, str]] = {"InjectTruth": "it is careful"}

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return samples


class Shy(Transform):
    conflicts: ClassVar[dict[str | type, str]] = {Careful: "it is shy"}

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return samples


INJECT = InjectTruth(text=lambda sample: str(sample.truth))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            (GENERATE, INJECT, SCORE, FILTER),
            "InstanceFilter must not be combined with InjectTruth: it drops the samples",
        ),
        ((Careful(), INJECT), "Careful must not be combined with InjectTruth: it is careful"),
        ((INJECT, Careful()), "Careful must not be combined with InjectTruth: it is careful"),
        ((Careful(), Shy()), "Shy must not be combined with Careful: it is shy"),
    ],
)
def test_a_stage_with_conflicting_transforms_is_refused(transforms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_stages([Stage("a", SOURCE, None, 3, transforms)])


def test_conflicts_with_the_stage_that_is_read_from_are_refused() -> None:
    reads_from = ReadsFrom("measure", lambda source, recorded: source)
    later = Stage("rl", SOURCE, Likelihood(), 3, (INJECT,), reads_from=reads_from)
    with pytest.raises(ConfigError, match="stage 'rl': InstanceFilter must not be combined with InjectTruth"):
        check_stages([stage(FILTER), later])
    check_stages([stage(Difficulty()), later])
    check_stages([stage(FILTER), replace(later, reads_from=None)])
    with pytest.raises(ConfigError, match="wanted an earlier stage without objective, found none"):
        check_stages([later, stage(FILTER)])


@pytest.mark.parametrize(
    ("invalid_stage", "message"),
    [
        (stage(RefillBatch(3)), "RefillBatch would draw others"),
        (
            replace(stage(FILTER), objective=Likelihood()),
            "InstanceFilter decides after all samples have been processed",
        ),
    ],
)
def test_invalid_stages_are_refused(invalid_stage: Stage, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_stages([invalid_stage])
    with pytest.raises(ConfigError, match="found 'measure' twice"):
        check_stages([stage(), stage()])
