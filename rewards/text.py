"""Rewards and measures on the text of a reply alone."""

from __future__ import annotations

import re

from mmpost.types import Reply, Sample

_FORMAT = re.compile(r"<think>.*</think>\s*<answer>.*</answer>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_CAPTION = re.compile(
    r"<summary>.*</summary>\s*<caption>.*</caption>\s*<think>.*</think>\s*<answer>.*</answer>", re.DOTALL
)
_STEP = re.compile(
    r"\bstep\s+\d+\b|^\s*(?:\d+[.)]|[-*])\s|\b(?:first|second|third|next|then|finally|therefore)\b",
    re.IGNORECASE | re.MULTILINE,
)


def answer(text: str) -> str | None:
    """What stands inside the first answer tags, or None where there are none."""
    found = _ANSWER.search(text)
    return found[1] if found else None


def inside(text: str) -> str:
    """What stands inside the first answer tags, over several lines too, else the whole text; white space stripped."""
    found = answer(text)
    return (text if found is None else found).strip()


def think_format(sample: Sample, reply: Reply) -> float:
    """1 where the reply is a thought in think tags, then an answer in answer tags, and nothing else; else 0."""
    return float(_FORMAT.fullmatch(reply.text) is not None)


def caption_format(sample: Sample, reply: Reply) -> float:
    """1 where the reply is a summary, a caption, a thought and an answer in their tags, in this order; else 0."""
    return float(_CAPTION.fullmatch(reply.text) is not None)


def reasoning_steps(sample: Sample, reply: Reply) -> float:
    """A third for each mark of a step, at most 1: "Step 2", a numbered or dashed line, first, then, therefore, ..."""
    return min(1.0, len(_STEP.findall(reply.text)) / 3)


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
