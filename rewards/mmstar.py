"""MMStar's rule (arXiv 2403.20330): the reply begins with the letter; and a strict one. The truth is the letter."""

from __future__ import annotations

from mmpost.rewards.options import named_option
from mmpost.types import Reply, Sample

_LEADS = ("", "(", "option ", "the answer is ")
LETTERS = "ABCD"


def mmstar_letters(text: str) -> str:
    """What MMStar's script compares with the letter: the character after each of its four beginnings of a reply."""
    text = text.lower().strip().replace("\n", " ")
    return "".join(text[len(lead) : len(lead) + 1] for lead in _LEADS if text.startswith(lead))


def plain_letter(text: str) -> str | None:
    """The letter that a reply names, in its answer or last line; None without one."""
    index = named_option(text, [f"\0{letter}" for letter in LETTERS])
    return None if index is None else LETTERS[index]


def mmstar(sample: Sample, reply: Reply) -> float:
    """1 if the reply begins with the right letter, also after "(", "option " or "the answer is ", else 0."""
    return float(str(sample.truth).lower() in mmstar_letters(reply.text))


def mmstar_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply names the right letter, else 0."""
    return float(plain_letter(reply.text) == sample.truth)
