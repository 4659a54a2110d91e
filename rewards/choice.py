"""Rewards and measures for multiple choice: R1-AQA's, and MMAU's scoring rule.

The truth is the text of the right option; `meta["choices"]` holds all of them. Strict rewards read what the prompt asks
for and nothing else; `released_*` are R1-AQA's own code, for comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mmpost.core.means import mean_by
from mmpost.rewards.expression import same
from mmpost.rewards.text import answer, inside
from mmpost.types import Reply, Sample

_ONE_LINE = re.compile(r"<answer>(.*?)</answer>")
_BLOCK = r"<answer>(?:(?!</?answer>).)*</answer>"
_THOUGHT = r"<think>(?:(?!</?(?:think|answer)>).)*</think>"
_FORMAT = re.compile(_BLOCK, re.DOTALL)
_THINK_FORMAT = re.compile(rf"{_THOUGHT}\s*{_BLOCK}", re.DOTALL)
_RELEASED_FORMAT = re.compile(r"<answer>.*?</answer>", re.DOTALL)
_RELEASED_THINK_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


def accuracy(sample: Sample, reply: Reply, ignore_case: bool = False) -> float | None:
    """1 where the first answer tags hold the text of the right option, over several lines too; 0 without tags.

    White space around it does not count. None for a sample whose truth is not text.
    """
    return _equal(answer(reply.text), sample.truth, ignore_case)


def bare_accuracy(sample: Sample, reply: Reply, ignore_case: bool = False) -> float | None:
    """As `accuracy`, for prompts that ask for no tags: the whole reply must be the option, unless it has tags."""
    return _equal(inside(reply.text), sample.truth, ignore_case)


def _equal(said: str | None, truth: object, ignore_case: bool) -> float | None:
    if not isinstance(truth, str):
        return None
    if said is None:
        return 0.0
    said, truth = said.strip(), truth.strip()
    return float(said.casefold() == truth.casefold() if ignore_case else said == truth)


def released_accuracy(sample: Sample, reply: Reply) -> float | None:
    """R1-AQA's code: math-verify on the whole reply, else what the first tags of one line hold, else the whole reply.

    An option with a number in it is right if the number is; an answer over two lines is not read.
    """
    if not isinstance(sample.truth, str):
        return None
    if same(reply.text, f"<answer>{sample.truth}</answer>"):
        return 1.0
    found = _ONE_LINE.search(reply.text)
    return float((found[1] if found else reply.text).strip() == sample.truth)


def answer_format(sample: Sample, reply: Reply) -> float:
    """1 where the reply is one answer in tags and nothing else."""
    return float(_FORMAT.fullmatch(reply.text) is not None)


def think_answer_format(sample: Sample, reply: Reply) -> float:
    """1 where the reply is one thought in tags, then one answer in tags, with at most white space between."""
    return float(_THINK_FORMAT.fullmatch(reply.text) is not None)


def released_format(sample: Sample, reply: Reply) -> float:
    """R1-AQA's code: two answers one after the other pass, because the pattern may span them."""
    return float(_RELEASED_FORMAT.fullmatch(reply.text) is not None)


def released_think_format(sample: Sample, reply: Reply) -> float:
    """R1-AQA's code for prompts that ask for a thought."""
    return float(_RELEASED_THINK_FORMAT.fullmatch(reply.text) is not None)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\b\w+\b", text.lower()))


def mmau_match(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """MMAU's official rule, on sets of words: all of the answer's are there, none that only another option has.

    Options with the same set of words as the answer are taken for it, whatever their order.
    """
    right, said = _words(answer), _words(prediction)
    wrong = frozenset[str]().union(*(_words(c) - right for c in choices if _words(c) != right))
    return bool(said) and right <= said and not said & wrong


def mmau_exact(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """The text of the right option but for case, white space, a full stop, and its own letter before it ("(B) A man").

    The letter alone, or another option's letter, is wrong.
    """
    said, right = _plain(prediction), _plain(answer)
    letters = {chr(ord("a") + i) for i, choice in enumerate(choices) if _plain(choice) == right}
    led = re.fullmatch(r"\(?([a-z])[).:]\s*(.+)", said)
    return said == right or bool(led and led[1] in letters and led[2] == right)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def mmau(sample: Sample, reply: Reply) -> float | None:
    """`mmau_match` of what stands in the answer tags, else of the whole reply. None for truths that are not text."""
    if not isinstance(sample.truth, str):
        return None
    return float(mmau_match(sample.truth, inside(reply.text), sample.meta.get("choices", [sample.truth])))


def mmau_strict(sample: Sample, reply: Reply) -> float | None:
    """`mmau_exact` of what stands in the answer tags, else of the whole reply. None for truths that are not text."""
    if not isinstance(sample.truth, str):
        return None
    return float(mmau_exact(sample.truth, inside(reply.text), sample.meta.get("choices", [sample.truth])))


GROUPS = ("kind", "difficulty", "sub-category")
"""Of `meta`: what accuracies are told apart by."""


def choice_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean of each score in percent; then the accuracy of each kind, and of MMAU's difficulties and sub-categories.

    That accuracy is the score "accuracy", or "mmau" for rows that name a sub-category, as MMAU's own script reports it.
    """
    return mean_by(
        (pair for sample in samples for reply in sample.replies for pair in _named_scores(sample, reply)), scale=100
    )


def _named_scores(sample: Sample, reply: Reply) -> Iterator[tuple[str, float]]:
    yield from reply.scores.items()
    accuracy = reply.scores.get("mmau" if "sub-category" in sample.meta else "accuracy")
    if accuracy is not None:
        groups = (sample.meta.get(group) for group in GROUPS)
        yield from ((f"accuracy/{group}", accuracy) for group in groups if isinstance(group, str))
