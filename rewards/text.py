"""Rewards that only look at the text of a reply: formats, repetition, exact match."""

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
    """The content of the first answer tags, or None without tags."""
    match = _ANSWER.search(text)
    return match[1] if match else None


def answer_or_text(text: str) -> str:
    """The content of the first answer tags, or without tags the whole text; whitespace is stripped."""
    tagged = answer(text)
    return (text if tagged is None else tagged).strip()


def think_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is <think>...</think><answer>...</answer> and nothing else, else 0."""
    return float(_FORMAT.fullmatch(reply.text) is not None)


def caption_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is summary, caption, think and answer tags in this order and nothing else; otherwise 0."""
    return float(_CAPTION.fullmatch(reply.text) is not None)


def reasoning_steps(sample: Sample, reply: Reply) -> float:
    """1/3 for each marker of a reasoning step, at most 1: "Step 2", a list item, "first", "then", "therefore", ..."""
    return min(1.0, len(_STEP.findall(reply.text)) / 3)


def non_repeat(sample: Sample, reply: Reply) -> float:
    """1, or 0 if two or more sentences (split at ".") repeat an earlier one."""
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
    """1 if the answer (inside answer tags, else the whole reply) equals the truth up to case and whitespace, else 0.

    None if the truth is neither text nor a number.
    """
    if not isinstance(sample.truth, str | int | float):
        return None
    truth = answer(str(sample.truth)) or str(sample.truth)
    return float(_normalize(answer_or_text(reply.text)) == _normalize(truth))


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())
