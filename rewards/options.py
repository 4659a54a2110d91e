"""What a free reply answers: the part that gives the answer, the option that it names, its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpost.rewards.text import answer_or_text
from mmpost.types import Reply, Sample

_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
_MARKS = ("answer is", "letter is", "option is", "Answer:", "answer:")
_LETTER = re.compile(
    r"(?:[Oo]ption |[Cc]hoice )?(?:\(([A-Za-z])\)(?:[^A-Za-z(].*)?|([A-Z])(?:[.:),].*| \(.*)?|([a-z]))", re.DOTALL
)
"""An option by its letter, with its text or without. In front of a text, a letter without parentheses must be a
capital: otherwise it may be a word."""
MAX_CHARACTERS = 20_000
"""Of a reply only its end of this length is searched."""


def answer_span(text: str) -> str:
    """The part of a reply that gives the answer: the last answer tags, the last box (\\\\boxed), or the line after the
    last "answer is"; else all of it."""
    text = text[-MAX_CHARACTERS:]
    if "<answer>" in text:
        return answer_or_text(text[text.rindex("<answer>") :])
    box = text.rfind("\\boxed{")
    if box >= 0:
        return _braced(text, box + len("\\boxed"))
    place, mark = max((text.rfind(mark), mark) for mark in _MARKS)
    if place >= 0:
        return text[place + len(mark) :].lstrip(" :*\n").partition("\n")[0].strip()
    return text.strip()


def _braced(text: str, start: int) -> str:
    """What is between the brace at `start` and the one that closes it; the rest if none does."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start + 1 : place]
    return text[start + 1 :]


def numbers_in(text: str) -> list[str]:
    """The numbers in a text, without separators of thousands."""
    return [found.replace(",", "") for found in _NUMBER.findall(text)]


def named_option(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that a reply names, by words or letter, in its answer or last line; never a guess."""
    span = answer_span(text)
    for line in (span, span.rpartition("\n")[2]):
        plain = " ".join(line.split()).strip(" .*")
        texts = {" ".join(o.split()).strip(" .").casefold(): i for i, o in reversed(list(enumerate(options)))}
        if plain.casefold() in texts:
            return texts[plain.casefold()]
        letter = _LETTER.fullmatch(plain)
        index = ord(next(filter(None, letter.groups())).upper()) - ord("A") if letter else -1
        if 0 <= index < len(options):
            return index
    return None


def named_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a reply names, by words or letter; never a guess."""
    index = named_option(text, options)
    return None if index is None else chr(ord("A") + index)


def right_option(sample: Sample, reply: Reply) -> float:
    """1 if the reply names the option whose letter is the truth; the options are in meta `options`. Else 0."""
    return float(named_letter(reply.text, sample.meta["options"]) == sample.truth)
