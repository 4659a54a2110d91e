"""OCRBench's rule (arXiv 2305.07895): an accepted text occurs in the reply; and a strict one.

The truth of a sample is a list of accepted texts; its meta holds `formula`, whether they are formulas in LaTeX.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample


def _plain(text: str, formula: bool) -> str:
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if formula else text.lower().strip()


def has_text(sample: Sample, text: str) -> float:
    """1 if the reply has an accepted text in it, whatever is around it; case counts in formulas, blanks do not."""
    formula = bool(sample.meta["formula"])
    reply = _plain(text, formula)
    return float(any(_plain(accepted, formula) in reply for accepted in sample.truth))


def has_words(sample: Sample, text: str | None) -> float:
    """1 if the answer (tagged, else the reply) has an accepted text as whole words; a formula must be all of it."""
    if text is None:
        return 0.0
    if sample.meta["formula"]:
        return float(_plain(text, True).strip("$") in {_plain(accepted, True) for accepted in sample.truth})
    words = _words(text)
    return float(any(_occurs(_words(accepted), words) for accepted in sample.truth))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def _occurs(part: Sequence[str], words: Sequence[str]) -> bool:
    return any(list(part) == list(words[i : i + len(part)]) for i in range(len(words) - len(part) + 1))


def ocrbench(sample: Sample, reply: Reply) -> float:
    """1 if an accepted text occurs in the reply, as OCRBench scores it, else 0."""
    return has_text(sample, reply.text)


def ocrbench_strict(sample: Sample, reply: Reply) -> float:
    """1 if an accepted text occurs in the answer as whole words, else 0."""
    return has_words(sample, answer_or_text(reply.text) or None)
