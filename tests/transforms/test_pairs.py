"""Pairs from scores, texts and the data's word, and replies to other prompts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from mmpost.errors import ColumnError, DataError, TrainError
from mmpost.transforms.pairs import BuildPairs, EncodePairs, Mismatched, WritePairs
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext, column


def candidates(scores: list[float | None], words: list[int] | None = None, uid: str = "a") -> Sample:
    """Sampled replies with these scores; None is a reply whose judge failed."""
    replies = [
        Reply(
            (Part("text", " ".join([f"r{i}"] * (words[i] if words else 2)), "assistant"),),
            "policy",
            (i, 9),
            scores={} if score is None else {"green": score},
        )
        for i, score in enumerate(scores)
    ]
    return Sample(uid, (Part("text", "?"),), tuple(replies), truth="one two three four")


def places(sample: Sample) -> list[int]:
    return [int(r.token_ids[0]) for r in sample.replies if r.token_ids]


def test_the_best_against_the_worst_the_first_of_equals() -> None:
    context = FakeContext()
    (found,) = BuildPairs(score="green")([candidates([0.5, 0.75, 0.75, 0.25])], context)
    assert places(found) == [1, 3]
    assert column(found, "chosen") == [1.0, 0.0]
    assert found.columns["pair/gap"] == 0.5
    assert BuildPairs(score="green")([candidates([0.4] * 4)], context) == []
    assert context.logs["pairs/kept"] == [1.0, 0.0]


def test_a_failed_judge_is_excluded_and_not_a_zero() -> None:
    context = FakeContext()
    for failed in (None, math.nan):
        (found,) = BuildPairs(score="green")([candidates([0.5, failed, 0.25, 0.75])], context)
        assert places(found) == [3, 2]
        assert found.columns["pair/unscored"] == 1
    assert context.logs["pairs/unscored"] == [1.0, 1.0]
    assert BuildPairs(score="green")([candidates([None, None]), candidates([0.5, None])], context) == []


def test_scores_closer_than_the_margin_are_no_pair() -> None:
    near = candidates([0.5, 0.5 + 5e-9])
    assert BuildPairs(score="green")([near], FakeContext()) == []
    assert len(BuildPairs(score="green", margin=1e-9)([near], FakeContext())) == 1
    assert BuildPairs(score="green", margin=0.5)([candidates([0.0, 0.5])], FakeContext()) == []


def test_length_may_be_divided_out() -> None:
    """0.6 for six words where the truth has four is 0.4; a short reply gains nothing."""
    long = candidates([0.6, 0.5, 0.3], [6, 2, 4])
    assert places(BuildPairs(score="green")([long], FakeContext())[0]) == [0, 2]
    (found,) = BuildPairs(score="green", control="divide")([long], FakeContext())
    assert places(found) == [1, 2]
    assert found.columns["pair/gap"] == pytest.approx(0.2)
    assert [r.scores["green"] for r in found.replies] == [0.5, 0.3]
    with pytest.raises(ColumnError, match="wants a reference text"):
        BuildPairs(score="green", control="divide")([replace(long, truth=7)], FakeContext())


def test_only_replies_of_one_length_are_paired() -> None:
    mixed = candidates([0.9, 0.1, 0.6, 0.4], [30, 10, 10, 11])
    (found,) = BuildPairs(score="green", control="matched")([mixed], FakeContext())
    assert places(found) == [2, 1]
    assert (found.columns["pair/words_chosen"], found.columns["pair/words_rejected"]) == (10, 10)
    assert BuildPairs(score="green", control="matched")([candidates([1.0, 0.0], [5, 10])], FakeContext()) == []


def test_against_a_random_worse_one() -> None:
    many = [candidates([0.9, 0.1, None, 0.5, 0.3, 0.9], uid=f"{'x' * i}") for i in range(40)]
    found = BuildPairs(score="green", against="random")(many, FakeContext())
    assert {places(s)[0] for s in found} == {0}
    assert {places(s)[1] for s in found} == {1, 3, 4}
    again = BuildPairs(score="green", against="random")(many, FakeContext())
    assert [places(s) for s in again] == [places(s) for s in found]


def test_all_that_differ_keep_their_scores() -> None:
    (found,) = BuildPairs(score="green", against="all")([candidates([0.5, None, 0.75])], FakeContext())
    assert places(found) == [0, 2]
    assert column(found, "chosen") == [0.5, 0.75]
    with pytest.raises(ValueError, match="selects single pairs"):
        BuildPairs(score="green", against="all", control="matched")


def said(text: str, **columns: float) -> Reply:
    return Reply((Part("text", text, "assistant"),), "data", columns=columns)


def test_judgements_of_the_data() -> None:
    pair = Sample("p", (), (said("good", label=1.0), said("bad", label=-1.0)))
    (found,) = EncodePairs()([pair], FakeContext())
    assert column(found, "chosen") == [1.0, 0.0]
    assert all(r.token_ids for r in found.replies)
    alone = Sample("k", (), (said("bad", label=-1.0),))
    with pytest.raises(DataError, match="k: wanted a chosen and a rejected reply"):
        EncodePairs()([alone], FakeContext())
    assert column(EncodePairs(unpaired=True)([alone], FakeContext())[0], "chosen") == [0.0]
    with pytest.raises(DataError, match=r"wanted a preference label for the reply .*, found none"):
        EncodePairs(unpaired=True)([Sample("u", (), (said("?"),))], FakeContext())
    built = BuildPairs(score="green")([candidates([0.1, 0.9])], FakeContext())
    # Tokens of sampled replies stay as they were drawn.
    assert EncodePairs()(built, FakeContext()) == built


def test_written_pairs() -> None:
    samples = [Sample("a", (), truth="x"), Sample("b", (), truth=None)]
    context = FakeContext()
    (found,) = WritePairs(chosen=lambda s: s.truth, rejected=lambda s: "no")(samples, context)
    assert (found.uid, column(found, "chosen")) == ("a", [1.0, 0.0])
    assert context.logs["pairs/kept"] == [1.0, 0.0]


def test_no_reply_meets_its_own_prompt() -> None:
    """And the mismatched replies are the same set as the others: rows of a pair stay together in the rotation."""
    samples = [
        Sample(str(i), (), (said(f"{i}+", chosen=1.0, ref_logp=0.0), said(f"{i}-", chosen=0.0))) for i in range(6)
    ]
    found = Mismatched()(samples, FakeContext())
    assert [s.uid for s in found] == [s.uid for s in samples]
    order = []
    for sample in found:
        own, others = sample.replies[:2], sample.replies[2:]
        assert [r.columns["mismatched"] for r in sample.replies] == [0.0, 0.0, 1.0, 1.0]
        assert {r.text[0] for r in own} == {sample.uid}
        assert {r.text[0] for r in others} != {sample.uid}
        assert all("ref_logp" not in r.columns for r in others)
        order.append(int(others[0].text[0]))
    assert Counter(r.text for s in found for r in s.replies[2:]) == Counter(r.text for s in samples for r in s.replies)
    # Shuffled before the rotation: not everybody's neighbour in the list.
    assert order != [5, 0, 1, 2, 3, 4]


def test_one_sample_alone_is_refused() -> None:
    with pytest.raises(TrainError, match=r"two or more samples on each rank, found one; set task\.prompts"):
        Mismatched()([Sample("a", (), (said("x", chosen=1.0),))], FakeContext())
    assert Mismatched()([], FakeContext()) == []
