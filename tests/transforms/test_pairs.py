"""Preference pairs from scores, texts and labels, and mismatched replies."""

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
    """Sampled replies with these scores; None if the judge failed."""
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


def reply_indices(sample: Sample) -> list[int]:
    return [int(r.token_ids[0]) for r in sample.replies if r.token_ids]


def test_the_best_is_paired_with_the_worst_and_ties_go_to_the_first() -> None:
    context = FakeContext()
    (paired,) = BuildPairs(score="green")([candidates([0.5, 0.75, 0.75, 0.25])], context)
    assert reply_indices(paired) == [1, 3]
    assert column(paired, "chosen") == [1.0, 0.0]
    assert paired.columns["pair/gap"] == 0.5
    assert BuildPairs(score="green")([candidates([0.4] * 4)], context) == []
    assert context.logs["pairs/kept"] == [1.0, 0.0]


def test_a_failed_judge_is_excluded_and_not_a_zero() -> None:
    context = FakeContext()
    for failed in (None, math.nan):
        (paired,) = BuildPairs(score="green")([candidates([0.5, failed, 0.25, 0.75])], context)
        assert reply_indices(paired) == [3, 2]
        assert paired.columns["pair/unscored"] == 1
    assert context.logs["pairs/unscored"] == [1.0, 1.0]
    assert BuildPairs(score="green")([candidates([None, None]), candidates([0.5, None])], context) == []


def test_scores_closer_than_the_margin_are_no_pair() -> None:
    close_scores = candidates([0.5, 0.5 + 5e-9])
    assert BuildPairs(score="green")([close_scores], FakeContext()) == []
    assert len(BuildPairs(score="green", margin=1e-9)([close_scores], FakeContext())) == 1
    assert BuildPairs(score="green", margin=0.5)([candidates([0.0, 0.5])], FakeContext()) == []


def test_scores_can_be_divided_by_length() -> None:
    """0.6 for six words with a reference of four becomes 0.4; shorter replies get no bonus."""
    long = candidates([0.6, 0.5, 0.3], [6, 2, 4])
    assert reply_indices(BuildPairs(score="green")([long], FakeContext())[0]) == [0, 2]
    (paired,) = BuildPairs(score="green", control="divide")([long], FakeContext())
    assert reply_indices(paired) == [1, 2]
    assert paired.columns["pair/gap"] == pytest.approx(0.2)
    assert [r.scores["green"] for r in paired.replies] == [0.5, 0.3]
    with pytest.raises(ColumnError, match="wants a reference text"):
        BuildPairs(score="green", control="divide")([replace(long, truth=7)], FakeContext())


def test_only_replies_of_equal_length_are_paired() -> None:
    candidates_of_lengths = candidates([0.9, 0.1, 0.6, 0.4], [30, 10, 10, 11])
    (paired,) = BuildPairs(score="green", control="matched")([candidates_of_lengths], FakeContext())
    assert reply_indices(paired) == [2, 1]
    assert (paired.columns["pair/words_chosen"], paired.columns["pair/words_rejected"]) == (10, 10)
    assert BuildPairs(score="green", control="matched")([candidates([1.0, 0.0], [5, 10])], FakeContext()) == []


def test_the_best_is_paired_with_a_random_worse_reply() -> None:
    groups = [candidates([0.9, 0.1, None, 0.5, 0.3, 0.9], uid=f"{'x' * i}") for i in range(40)]
    paired = BuildPairs(score="green", against="random")(groups, FakeContext())
    assert {reply_indices(s)[0] for s in paired} == {0}
    assert {reply_indices(s)[1] for s in paired} == {1, 3, 4}
    second = BuildPairs(score="green", against="random")(groups, FakeContext())
    assert [reply_indices(s) for s in second] == [reply_indices(s) for s in paired]


def test_pairing_against_all_keeps_the_scores() -> None:
    (paired,) = BuildPairs(score="green", against="all")([candidates([0.5, None, 0.75])], FakeContext())
    assert reply_indices(paired) == [0, 2]
    assert column(paired, "chosen") == [0.5, 0.75]
    with pytest.raises(ValueError, match="selects single pairs"):
        BuildPairs(score="green", against="all", control="matched")


def labeled_reply(text: str, **columns: float) -> Reply:
    return Reply((Part("text", text, "assistant"),), "data", columns=columns)


def test_labels_of_the_data_make_pairs() -> None:
    pair = Sample("p", (), (labeled_reply("good", label=1.0), labeled_reply("bad", label=-1.0)))
    (paired,) = EncodePairs()([pair], FakeContext())
    assert column(paired, "chosen") == [1.0, 0.0]
    assert all(r.token_ids for r in paired.replies)
    single = Sample("k", (), (labeled_reply("bad", label=-1.0),))
    with pytest.raises(DataError, match="'k': wanted a chosen and a rejected reply"):
        EncodePairs()([single], FakeContext())
    assert column(EncodePairs(unpaired=True)([single], FakeContext())[0], "chosen") == [0.0]
    with pytest.raises(DataError, match=r"wanted a preference label for the reply .*, found none"):
        EncodePairs(unpaired=True)([Sample("u", (), (labeled_reply("?"),))], FakeContext())
    built = BuildPairs(score="green")([candidates([0.1, 0.9])], FakeContext())
    # The tokens of sampled replies are kept.
    assert EncodePairs()(built, FakeContext()) == built


def test_written_pairs() -> None:
    samples = [Sample("a", (), truth="x"), Sample("b", (), truth=None)]
    context = FakeContext()
    (paired,) = WritePairs(chosen=lambda s: s.truth, rejected=lambda s: "no")(samples, context)
    assert (paired.uid, column(paired, "chosen")) == ("a", [1.0, 0.0])
    assert context.logs["pairs/kept"] == [1.0, 0.0]


def test_mismatched_replies_never_keep_their_own_prompt() -> None:
    """The mismatched replies are a permutation of the replies, with the rows of a pair kept together."""
    samples = [
        Sample(str(i), (), (labeled_reply(f"{i}+", chosen=1.0, ref_logp=0.0), labeled_reply(f"{i}-", chosen=0.0)))
        for i in range(6)
    ]
    paired = Mismatched()(samples, FakeContext())
    assert [s.uid for s in paired] == [s.uid for s in samples]
    order = []
    for sample in paired:
        own_replies, mismatched = sample.replies[:2], sample.replies[2:]
        assert [r.columns["mismatched"] for r in sample.replies] == [0.0, 0.0, 1.0, 1.0]
        assert {r.text[0] for r in own_replies} == {sample.uid}
        assert {r.text[0] for r in mismatched} != {sample.uid}
        assert all("ref_logp" not in r.columns for r in mismatched)
        order.append(int(mismatched[0].text[0]))
    assert Counter(r.text for s in paired for r in s.replies[2:]) == Counter(r.text for s in samples for r in s.replies)
    # Shuffled before the rotation, so not simply the next sample.
    assert order != [5, 0, 1, 2, 3, 4]


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(TrainError, match=r"two or more samples on each rank, found one; set task\.prompts"):
        Mismatched()([Sample("a", (), (labeled_reply("x", chosen=1.0),))], FakeContext())
    assert Mismatched()([], FakeContext()) == []
