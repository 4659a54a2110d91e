"""Rewards that only look at the text of a reply: formats, repetition, exact match."""

from __future__ import annotations

import itertools
import re

from mmpost.types import Reply, Sample

_STEP = re.compile(
    r"\bstep\s+\d+\b|^[^\S\n]*(?:\d+[.)]|[-*])\s|\b(?:first|second|third|next|then|finally|therefore)\b",
    re.IGNORECASE | re.MULTILINE,
)


def answer(text: str) -> str | None:
    """The content of the first answer tags, or None without tags."""
    return between(text, "<answer>", "</answer>")


def between(text: str, opening: str, closing: str) -> str | None:
    """The text between the first `opening` and the next `closing`; None without them. Linear in the text.

    `re.search(opening + "(.*?)" + closing)` finds the same, but scans the rest once for each `opening`.
    """
    _, found, rest = text.partition(opening)
    content, closed, _ = rest.partition(closing)
    return content if found and closed else None


def is_tagged(text: str, *names: str) -> bool:
    """Whether `text` is <a>...</a><b>...</b>..., with at most whitespace between the blocks of `names`. Linear.

    Whatever the blocks contain is accepted, tags included: it is fullmatch of "<a>.*</a>\\s*<b>.*</b>...".
    """
    opening, closing = f"<{names[0]}>", f"</{names[-1]}>"
    place, end = len(opening), len(text) - len(closing)
    if not (text.startswith(opening) and text.endswith(closing)):
        return False
    for a, b in itertools.pairwise(names):
        boundary = re.compile(rf"</{a}>\s*<{b}>").search(text, place, end)
        if boundary is None:
            return False
        place = boundary.end()
    return place <= end


def answer_or_text(text: str) -> str:
    """The content of the first answer tags, or without tags the whole text; whitespace is stripped."""
    tagged = answer(text)
    return (text if tagged is None else tagged).strip()


def thinks(sample: Sample, reply: Reply) -> float:
    """1 if the first think tags hold more than white space, else 0."""
    return float(bool((between(reply.text, "<think>", "</think>") or "").strip()))


def think_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is <think>...</think><answer>...</answer> and nothing else, and the thought is not empty, else 0.

    With empty tags paid as in released code, a policy that is shown labels without reasoning stops thinking: the empty
    thought is the shortest reply in the format.
    """
    return thinks(sample, reply) * is_tagged(reply.text, "think", "answer")


def caption_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is summary, caption, think and answer tags in this order and nothing else, with a thought that is
    not empty; otherwise 0."""
    return thinks(sample, reply) * is_tagged(reply.text, "summary", "caption", "think", "answer")


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
