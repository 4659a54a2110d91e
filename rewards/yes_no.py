"""Rewards for questions that are answered by yes or no."""

from __future__ import annotations

import re

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

_WORD = re.compile(r"[a-z]+")
_FIRST = re.compile(r"\W*(yes|no)\b(?!\s+or\b)")


def yes_no(text: str) -> str | None:
    """The one of yes and no that the answer (in tags, else the whole text) has among its words, in any case.

    None if it has neither or both.
    """
    found = {"yes", "no"} & set(_WORD.findall(answer_or_text(text).lower()))
    return found.pop() if len(found) == 1 else None


def pope_yes_no(text: str) -> str:
    """POPE's reading (arXiv 2305.10355): "no" if the first sentence has the word No, no or not, else "yes".

    Its words are what blanks separate once commas are gone, so that an empty reply, "NO" and "No\\n" mean yes.
    """
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def right_yes_no(sample: Sample, reply: Reply) -> float:
    """1 if `yes_no` of the reply is the truth, else 0."""
    return float(yes_no(reply.text) == sample.truth)


def pope(sample: Sample, reply: Reply) -> float:
    """1 if `pope_yes_no` of the reply is the truth, else 0."""
    return float(pope_yes_no(reply.text) == sample.truth)


def first_yes_no(text: str) -> str | None:
    """The first word of the answer if it is yes or no, in any case and without "or" after it, else `yes_no`."""
    first = _FIRST.match(answer_or_text(text).lower())
    return first[1] if first is not None else yes_no(text)


def hallusion_score(sample: Sample, verdict: str | None) -> float:
    """HallusionBench's score (arXiv 2310.14566) of a verdict (right, wrong, unclear), 0 or 1.

    Unclear is right where the figure that a question is about is not shown (meta `no_figure`).
    """
    return float(verdict == "right" or (verdict == "unclear" and bool(sample.meta.get("no_figure"))))


def right_first_yes_no(sample: Sample, reply: Reply) -> float:
    """1 if `first_yes_no` of the reply is the truth, else 0."""
    return float(first_yes_no(reply.text) == sample.truth)
