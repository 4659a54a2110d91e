"""Stages that make data, with a policy whose replies are drawn from (seed, uid) as the real one's are."""

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


class Fake:
    """A model that cannot read one sample, and a policy that is right as often as a sample's number says, in tens."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.dies_at = ""

    def prefetch(self, samples: Sequence[Sample]) -> None: ...

    def coordinate_frame(self, sample: Sample) -> None:
        return None

    def validate(self, sample: Sample) -> None:
        if sample.uid == "s7":
            raise DataError("s7.png: wanted a picture, found half of one")

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, seed: int) -> list[Sample]:
        out = []
        for sample in samples:
            if sample.uid == self.dies_at:
                raise KeyboardInterrupt
            self.drawn.append(sample.uid)
            digests = (hashlib.sha256(f"{seed}/{sample.uid}/{i}".encode()).digest()[0] for i in range(n))
            texts = ["right" if d < 25 * int(sample.uid[1:]) else "wrong" for d in digests]
            replies = tuple(
                Reply((Part("text", t, "assistant"),), "policy", (1, 2), {}, {"truncated": 0.0, "temperature": 1.0})
                for t in texts
            )
            out.append(replace(sample, replies=(*sample.replies, *replies)))
        return out


SOURCE = [Sample(f"s{i}", (Part("text", str(i)),), truth=i) for i in range(10)]
DRAW = Generate(n=8, sampling=Sampling())
SCORE = Score(rewards={"right": lambda sample, reply: float(reply.text == "right")})


def stage(*more: Any, prompts: int = 3) -> Stage:
    return Stage("measure", SOURCE, None, prompts, (DRAW, SCORE, *more))


def made(fake: Fake, of: Stage, folder: Path, skips: bool = True, seed: int = 0) -> Recording | None:
    def other(points: list[str]) -> None:
        raise ConfigError("; ".join(points))

    job = TrainingContext(fake, fake, seed, skip_errors=skips)  # type: ignore[arg-type]
    about = recording.provenance(of, policy="p", seed=seed)
    return recorder.record_stage(of, job, folder / "measured.jsonl", about, other, StopSignal(), print)


def whole(of: Stage, folder: Path, **fields: Any) -> Recording:
    record = made(Fake(), of, folder, **fields)
    assert record is not None
    return record


FILTER = InstanceFilter(right=1.0)


def test_every_sample_goes_through_once_and_is_on_record(tmp_path: Path) -> None:
    record = whole(stage(FILTER), tmp_path)
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


def test_what_cannot_be_read_stops_where_it_is_not_to_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 7: s7\.png: wanted a picture"):
        made(Fake(), stage(FILTER), tmp_path, skips=False)


@pytest.mark.parametrize("cut", [0, 1, 37])
@pytest.mark.parametrize("uid", ["s0", "s4", "s9"])
def test_killed_anywhere_it_goes_on_with_what_is_missing(uid: str, cut: int, tmp_path: Path) -> None:
    reference = whole(stage(FILTER), tmp_path / "whole")
    fake, file = Fake(), tmp_path / "cut" / "measured.jsonl"
    fake.dies_at = uid
    with pytest.raises(KeyboardInterrupt):
        made(fake, stage(FILTER), tmp_path / "cut")
    there = file.read_bytes()
    file.write_bytes(there[: len(there) - cut])
    lines = file.read_bytes().count(b"\n")
    fake = Fake()
    record = made(fake, stage(FILTER), tmp_path / "cut")
    assert record is not None
    assert file.read_bytes() == reference.file.read_bytes()
    assert record.records == reference.records
    # Whole groups of three are passed over; of one that was cut, all are drawn again and the missing ones written.
    assert [u for u in fake.drawn if u in [s.uid for s in SOURCE[: max(0, lines - 1) // 3 * 3]]] == []


def test_what_is_whole_is_not_made_again_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    whole(stage(FILTER), tmp_path)
    fake = Fake()
    assert made(fake, stage(FILTER), tmp_path) is not None
    assert fake.drawn == []
    with pytest.raises(ConfigError, match=r"seed \(was 0, now 1\)"):
        made(fake, stage(FILTER), tmp_path, seed=1)
    with pytest.raises(ConfigError, match="transforms"):
        made(fake, stage(FILTER.model_copy(update={"min_correct": 2})), tmp_path)
    text = (tmp_path / "measured.jsonl").read_text().splitlines()
    (tmp_path / "measured.jsonl").write_text("\n".join([*text[:3], "{}", *text[4:], ""]))
    with pytest.raises(DataError, match=r"measured\.jsonl:4: wanted a line with uid and index"):
        made(fake, stage(FILTER), tmp_path)


def test_one_seed_has_one_mask_and_another_has_its_own(tmp_path: Path) -> None:
    def columns(seed: int, folder: str, prompts: int = 3) -> list[Any]:
        return [e.columns for e in whole(stage(FILTER, prompts=prompts), tmp_path / folder, seed=seed).records]

    assert columns(0, "a") == columns(0, "b") == columns(0, "c", prompts=10)
    assert columns(0, "a") != columns(1, "d")


def test_a_later_stage_draws_from_what_was_recorded(tmp_path: Path) -> None:
    record = whole(stage(Difficulty()), tmp_path)
    reads = ReadsFrom(
        "measure", lambda source, found: select_subset(source, manifest.ordered(found.records), DataSettings(), 0)
    )
    later = Stage("rl", SOURCE, Likelihood(), 3, reads_from=reads, order="given")
    source = reads.build(later.source, record)
    means = [record.records[int(s.uid[1:])].columns["mean/reward"] for s in source]
    assert means == sorted(means, reverse=True)
    assert len(source) == 9
    feed = RolloutBatcher(replace(later, source=source), TrainingContext(Fake(), None, 0))  # type: ignore[arg-type]
    drawn = [s.uid for _ in range(4) for s in feed.next()]
    assert drawn == [s.uid for s in [*source, *source]][:12]
    resumed = RolloutBatcher(replace(later, source=source), TrainingContext(Fake(), None, 0))  # type: ignore[arg-type]
    resumed.drawn = 6
    assert [s.uid for s in resumed.next()] == drawn[6:9]


def test_transforms_may_drop_but_not_invent(tmp_path: Path) -> None:
    def odd(samples: list[Sample], context: Context) -> list[Sample]:
        return [s for s in samples if int(s.uid[1:]) % 2]

    record = whole(stage(odd), tmp_path / "a")
    assert [e.uid for e in record.records if e.drop_reason == "dropped by a transform"] == [
        "s0",
        "s2",
        "s4",
        "s6",
        "s8",
    ]

    def twice(samples: list[Sample], context: Context) -> list[Sample]:
        return samples + samples

    with pytest.raises(ConfigError, match="records each sample once by its uid"):
        made(Fake(), stage(twice), tmp_path / "b")
    with pytest.raises(DataError, match="found 's1' at 1 and at 3"):
        made(Fake(), replace(stage(), source=[*SOURCE[:3], SOURCE[1]], batch_size=2), tmp_path / "c")


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    record = whole(stage(), tmp_path)
    record.source = SOURCE[::-1]
    with pytest.raises(DataError, match="wanted sample 's0' at 0 of the source, found 's9'"):
        record.samples()[0]


def test_the_manifest_has_verdicts_with_what_they_are_made_from(tmp_path: Path) -> None:
    of = stage(Difficulty())
    record = whole(of, tmp_path)
    manifest.write(tmp_path / manifest.NAME, record, of)
    first, *lines = [json.loads(line) for line in (tmp_path / manifest.NAME).read_text().splitlines()]
    assert first["made"]["policy"] == "p"
    assert [line["measured"].get("order") for line in lines] == [*map(float, range(9)), None]
    assert {len(line["scores"]["reward"]) for line in lines[:-1]} == {line["k"] for line in lines[:-1]} == {8}
    assert (lines[-1]["uid"], lines[-1]["verdict"], lines[-1]["k"]) == ("s7", "drop", 0)
    assert lines[-1]["lost"].endswith("found half of one")
    read = manifest.read(str(tmp_path))
    assert [e.uid for e in read.records] == [line["uid"] for line in lines]


# What refuses to be combined.


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
        ((DRAW, INJECT, SCORE, FILTER), "InstanceFilter must not be combined with InjectTruth: it drops the samples"),
        ((Careful(), INJECT), "Careful must not be combined with InjectTruth: it is careful"),
        ((INJECT, Careful()), "Careful must not be combined with InjectTruth: it is careful"),
        ((Careful(), Shy()), "Shy must not be combined with Careful: it is shy"),
    ],
)
def test_a_stage_with_transforms_that_refuse_one_another_is_refused(transforms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_stages([Stage("a", SOURCE, None, 3, transforms)])


def test_what_was_chosen_before_refuses_as_well() -> None:
    reads = ReadsFrom("measure", lambda source, found: source)
    later = Stage("rl", SOURCE, Likelihood(), 3, (INJECT,), reads_from=reads)
    with pytest.raises(ConfigError, match="stage 'rl': InstanceFilter must not be combined with InjectTruth"):
        check_stages([stage(FILTER), later])
    check_stages([stage(Difficulty()), later])
    check_stages([stage(FILTER), replace(later, reads_from=None)])
    with pytest.raises(ConfigError, match="wanted an earlier stage without objective, found none"):
        check_stages([later, stage(FILTER)])


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (stage(RefillBatch(3)), "RefillBatch would draw others"),
        (
            replace(stage(FILTER), objective=Likelihood()),
            "InstanceFilter decides after all samples have been processed",
        ),
    ],
)
def test_what_a_stage_cannot_do_is_refused(of: Stage, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_stages([of])
    with pytest.raises(ConfigError, match="found 'measure' twice"):
        check_stages([stage(), stage()])
