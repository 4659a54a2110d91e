"""TempCompass' rules (arXiv 2403.00476), without its language model: letters, yes or no, one of two captions.

The truth is the answer of the official file; meta has the `task` and, but for yes_no, the `options`: the lines of the
question that hold them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpost.rewards.options import answer_span, named_option
from mmpost.rewards.yes_no import yes_no
from mmpost.types import Reply, Sample

LETTERS = "ABCD"


def tempcompass_reading(sample: Sample, text: str) -> str | None:
    """What TempCompass' script reads of a reply, without "</s>" and white space at its ends; None where it asks its
    language model, and without that counts the reply as wrong.

    multi-choice: the whole answer, a letter, or one with a full stop or a parenthesis at the beginning. yes_no: what
    the reply begins with, in any case, even in a longer word. caption_matching: an option with its label or without, or
    its label ("Caption A", "A", "A.").
    """
    text = text.replace("</s>", "").strip()
    match sample.meta["task"]:
        case "multi-choice":
            if text == sample.truth:
                return text
            return text[0] if text and text[0] in LETTERS and text[1:2] in ("", ".", ")") else None
        case "yes_no":
            return next((word for word in ("yes", "no") if text.lower().startswith(word)), None)
        case _:
            return _caption(sample.meta["options"], text)


def _caption(options: Sequence[str], text: str) -> str | None:
    labels = [option.split(": ")[0] for option in options]
    short = [_without(label, ("Sentence ", "Option ", "Caption ")) for label in labels]
    found = [option for option in options if option == text]
    after = text.split(") ")[1] if ") " in text else text
    found += [s for s in (option.split(": ")[1] for option in options) if s in (text, after)]
    found += [label for label in (*labels, *short) if label in (text, text.replace(".", ""))]
    return found[-1] if found else None


def _without(text: str, parts: Sequence[str]) -> str:
    for part in parts:
        text = text.replace(part, "")
    return text


def tempcompass_score(sample: Sample, reading: str | None) -> float:
    """1 if the reading is the answer: all of it, its letter, its label, its last word of the label, or its caption."""
    answer = sample.truth
    match sample.meta["task"]:
        case "multi-choice":
            return float(reading in (answer, answer[0]))
        case "yes_no":
            return float(reading == answer)
        case _:
            label, caption = answer.split(": ")[:2]
            return float(reading in (answer, answer.split(":")[0], caption, label.split()[1]))


def tempcompass_strict_reading(sample: Sample, text: str) -> str | None:
    """The option that a reply names in its answer or last line, or yes or no; None without one."""
    if sample.meta["task"] == "yes_no":
        return yes_no(text)
    options = sample.meta["options"]
    index = named_option(text, options)
    if index is None or sample.meta["task"] == "caption_matching":
        index = _named_line(text, options)
    return None if index is None else options[index]


def _named_line(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that a reply gives: with its label or without, or the label."""
    answer = answer_span(text)
    for line in (answer, answer.rpartition("\n")[2]):
        plain = _plain(line)
        for index, option in enumerate(options):
            label, mark, rest = option.partition(": ") if ": " in option else option.partition(".")
            if mark and plain in map(_plain, (option, label, label.split()[-1], rest)):
                return index
    return None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .*()").casefold()


def tempcompass_strict_score(sample: Sample, reading: str | None) -> float:
    """1 if the reading is the answer of the official file, else 0."""
    return float(reading is not None and reading.strip() == sample.truth.strip())


def tempcompass(sample: Sample, reply: Reply) -> float:
    """1 if TempCompass' script counts the reply as right without its language model, else 0."""
    return tempcompass_score(sample, tempcompass_reading(sample, reply.text))


def tempcompass_strict(sample: Sample, reply: Reply) -> float:
    """1 if the reply names the right option, or the right one of yes and no, else 0."""
    return tempcompass_strict_score(sample, tempcompass_strict_reading(sample, reply.text))
