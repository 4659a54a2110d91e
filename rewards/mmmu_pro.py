"""MMMU-Pro's rule (arXiv 2409.02813): the letter in a reply. The strict rule is `right_option`.

The truth of a sample is the letter; its meta holds `options`, their texts in order.
"""

from __future__ import annotations

from mmpost.rewards.mmmu import ENDS, LONG, letters
from mmpost.types import Reply, Sample

_MARK = "Answer:"


def mmmu_pro_letter(sample: Sample, text: str) -> str | None:
    """The letter that MMMU-Pro's script reads; None where it takes one at random.

    The only one that occurs after the last "Answer:", in words, too; else the last in parentheses; else one before a
    blank, else one before a full stop; else, in more than five words, the last option whose text occurs. Of several
    before a blank or a full stop, the last that is between blanks, or the first in the alphabet if none is.
    """
    known, mark = letters(sample), text.rfind(_MARK)
    if mark >= 0:
        said = [letter for letter in known if letter in text[mark + len(_MARK) :]]
        if len(said) == 1:
            return said[0]
    for end in ENDS:
        text = text.strip(end)
    text = f" {text} "
    for form, last in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in known if form.format(letter) in text]
        if found:
            return max(found, key=lambda letter: text.rfind(last.format(letter)))
    if len(text.split()) > LONG:
        lower, options = text.lower(), dict(zip(known, sample.meta["options"], strict=True))
        found = [letter for letter in known if options[letter].lower() in lower]
        if found:
            return max(found, key=lambda letter: lower.rfind(options[letter].lower()))
    return None


def mmmu_pro(sample: Sample, reply: Reply) -> float:
    """1 if `mmmu_pro_letter` reads the right letter, else 0."""
    return float(mmmu_pro_letter(sample, reply.text) == sample.truth)
