"""Rewards and measures on the text of a reply alone."""

from __future__ import annotations

import re

from mmpost.types import Reply, Sample

_FORMAT = re.compile(r"<think>.*</think>\s*<answer>.*</answer>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def answer(text: str) -> str | None:
    """What stands inside the first answer tags, or None where there are none."""
    found = _ANSWER.search(text)
    return found[1] if found else None


def think_format(sample: Sample, reply: Reply) -> float:
    """1 where the reply is a thought in think tags, then an answer in answer tags, and nothing else; else 0."""
    return float(_FORMAT.fullmatch(reply.text) is not None)


def non_repeat(sample: Sample, reply: Reply) -> float:
    """1, or 0 where two or more sentences (cut at ".") repeat an earlier one."""
    seen: set[str] = set()
    repeats = 0
    for sentence in reply.text.split("."):
        clean = sentence.strip()
        if not clean:
            continue
        repeats += clean in seen
        seen.add(clean)
    return float(repeats < 2)


def answer_match(sample: Sample, reply: Reply) -> float | None:
    """1 where the answer (inside answer tags, else the whole reply) is the truth but for case and white space.

    None for a sample whose truth is not text or a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    inside = answer(reply.text)
    return float(
        _plain(reply.text if inside is None else inside) == _plain(answer(str(sample.truth)) or str(sample.truth))
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
