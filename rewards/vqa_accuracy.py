"""VQA accuracy of VQAv2 (arXiv 1612.00837) and TextVQA (arXiv 1904.08920): how many of ten people gave an answer.

The truth of a sample is the list of their answers. Each is left out in turn, and the answer gets a third for each of
the others who gave it, at most 1; the mean of these is 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more of ten people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpost.rewards.options import answer_span
from mmpost.types import Reply, Sample

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS)}}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_THOUSANDS = re.compile(r"\d,\d")
PERIODS = 32
"""Of a text, at most so many are removed: the script passes a flag (re.UNICODE) as the number of replacements."""
_WRITTEN = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock 'ow's'at oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    **{word[:i] + word[i + 1 :]: word for word in _WRITTEN.split() for i, letter in enumerate(word) if letter == "'"},
    "somebody'd": "somebodyd",
}
"""Contractions by how they are written without one of their apostrophes."""


def normal_answer(text: str) -> str:
    """The form in which VQAv2's script compares answers.

    In this order: a mark of punctuation is removed if it stands beside a blank somewhere, or the text has a number such
    as 1,000 in it, else it becomes a blank; full stops that no digit follows are removed; lower case; number words to
    ten as digits; no articles; contractions with their apostrophes.
    """
    plain, has_thousands = text, _THOUSANDS.search(text) is not None
    for mark in PUNCTUATION:
        is_loose = has_thousands or f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if is_loose else " ")
    words = [DIGITS.get(word, word) for word in _PERIOD.sub("", plain, count=PERIODS).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def textvqa_answer(text: str) -> str:
    """The form in which TextVQA's script compares answers: no commas and question marks, a blank before 's, and then
    `normal_answer`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normal_answer(one_line(text))


def one_line(text: str) -> str:
    """A text with blanks for line breaks and tabs, and none around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def agreement(answer: str, given: Sequence[str]) -> float:
    """The mean over the people, each left out in turn, of a third for each other one who gave the answer, up to 1."""
    same = sum(each == answer for each in given)
    return (same * min(1.0, (same - 1) / 3) + (len(given) - same) * min(1.0, same / 3)) / len(given)


def official_agreement(text: str, given: Sequence[str]) -> float:
    """The agreement of a whole reply, 0 to 1, as VQAv2's script computes it.

    Where all people gave the same answer, nothing is normalised, so that case and punctuation count.
    """
    text, given = one_line(text), [one_line(each) for each in given]
    if len(set(given)) == 1:
        return agreement(text, given)
    return agreement(normal_answer(text), [normal_answer(each) for each in given])


def textvqa_agreement(text: str, given: Sequence[str]) -> float:
    """The agreement of a whole reply, 0 to 1, as TextVQA's script computes it."""
    return agreement(textvqa_answer(text), [textvqa_answer(each) for each in given])


def strict_agreement(answer: str | None, given: Sequence[str]) -> float:
    """The agreement of an answer, 0 to 1, always in the form that is compared; no answer, or only articles: 0."""
    normal = "" if answer is None else textvqa_answer(answer.strip(" *'\""))
    return agreement(normal, [textvqa_answer(each) for each in given]) if normal else 0.0


def vqa_accuracy(sample: Sample, reply: Reply) -> float:
    """The agreement of the whole reply with the answers that people gave, 0 to 1, as VQAv2 scores it."""
    return official_agreement(reply.text, sample.truth)


def textvqa_accuracy(sample: Sample, reply: Reply) -> float:
    """The agreement of the whole reply with the answers that people gave, 0 to 1, as TextVQA scores it."""
    return textvqa_agreement(reply.text, sample.truth)


def vqa_accuracy_strict(sample: Sample, reply: Reply) -> float:
    """The agreement of the answer (in tags, a box or after "answer is", else the reply) with people's, 0 to 1."""
    return strict_agreement(answer_span(reply.text) or None, sample.truth)
