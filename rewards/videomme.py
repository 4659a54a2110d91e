"""Video-MME's rule (arXiv 2405.21075): the first of the letters A to D, once some beginnings are cut out; and a strict
one. The truth is the letter; meta `options` holds the texts of the options, without their letters."""

from __future__ import annotations

from mmpost.rewards.options import named_option
from mmpost.types import Reply, Sample

LETTERS = "ABCD"
_CUT = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    *("The best option isThe correct option is", "Best answer:Best option:"),
    *("Answer:", "Option:", "The correct answer", "The correct option"),
)
"""Cut out wherever they occur, one after the other. In the script, commas are missing after "The best option is" and
"Best answer:", which are glued to those after them."""


def videomme_letter(text: str) -> str | None:
    """The letter that Video-MME's script reads, the first capital of A to D even in a word; None without one."""
    for beginning in _CUT:
        text = text.replace(beginning, "")
    return next((character for character in text if character in LETTERS), None)


def option_letter(sample: Sample, text: str) -> str | None:
    """The letter of the option that a reply names, by letter or text, in its answer or last line; never a guess."""
    index = named_option(text, sample.meta["options"])
    return None if index is None else chr(ord("A") + index)


def videomme(sample: Sample, reply: Reply) -> float:
    """1 if the letter that Video-MME's script reads is the truth, else 0."""
    return float(videomme_letter(reply.text) == sample.truth)


def videomme_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply names the right option, else 0."""
    return float(option_letter(sample, reply.text) == sample.truth)
