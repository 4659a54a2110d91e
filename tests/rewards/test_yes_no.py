"""Readings of yes and no: POPE's, and a strict one."""

from __future__ import annotations

import pytest

from mmpost.rewards.yes_no import pope, pope_yes_no, right_yes_no, yes_no
from tests.rewards.replies import reply, sample_with_truth


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("yes", "yes", "yes"),
        ("No", "no", "no"),
        ("No, there is none.", "no", "no"),
        ("Yes, there is no doubt", "no", None),
        ("", "yes", None),
        ("NO", "yes", "no"),
        ("No\nThere is none", "yes", "no"),
        ("There is a dog. No.", "yes", "no"),
        ("There is not a dog", "no", None),
        ("I cannot tell", "yes", None),
        ("<think>no dog?</think><answer>yes</answer>", "yes", "yes"),
        ("know yesterday", "yes", None),
    ],
)
def test_readings(text: str, official: str, strict: str | None) -> None:
    assert (pope_yes_no(text), yes_no(text)) == (official, strict)
    sample = sample_with_truth("no")
    assert pope(sample, reply(text)) == (official == "no")
    assert right_yes_no(sample, reply(text)) == (strict == "no")
