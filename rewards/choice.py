"""Multiple choice: the rewards of R1-AQA (arXiv 2503.11197) and the scoring rule of MMAU (arXiv 2410.19168).

The truth is the text of the correct option; `meta["choices"]` holds all options. The strict rewards accept only the
format that the prompt asks for; `released_*` reproduce R1-AQA's published code, for comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mmpost.core.means import mean_by
from mmpost.rewards.expression import equivalent
from mmpost.rewards.text import answer, answer_or_text, between, is_tagged, thinks
from mmpost.types import Reply, Sample

_BLOCK = r"<answer>(?:(?!</?answer>).)*</answer>"
_THOUGHT = r"<think>(?:(?!</?(?:think|answer)>).)*</think>"
_FORMAT = re.compile(_BLOCK, re.DOTALL)
_THINK_FORMAT = re.compile(rf"{_THOUGHT}\s*{_BLOCK}", re.DOTALL)


def accuracy(sample: Sample, reply: Reply, ignore_case: bool = False) -> float | None:
    """1 if the first answer tags hold the text of the correct option, else 0; 0 without tags.

    Surrounding whitespace is ignored. None if the truth is not text.
    """
    return _equal(answer(reply.text), sample.truth, ignore_case)


def bare_accuracy(sample: Sample, reply: Reply, ignore_case: bool = False) -> float | None:
    """As `accuracy`, for prompts without answer tags: if the reply has none, all of it must be the option."""
    return _equal(answer_or_text(reply.text), sample.truth, ignore_case)


def _equal(text: str | None, truth: object, ignore_case: bool) -> float | None:
    if not isinstance(truth, str):
        return None
    if text is None:
        return 0.0
    text, truth = text.strip(), truth.strip()
    return float(text.casefold() == truth.casefold() if ignore_case else text == truth)


def released_accuracy(sample: Sample, reply: Reply) -> float | None:
    """R1-AQA's code: math-verify on the whole reply, else an exact match of the first tags, else of the whole reply.

    Consequences: an option that contains a number is correct if the number is, and answer tags that span two lines are
    ignored. None if the truth is not text.
    """
    if not isinstance(sample.truth, str):
        return None
    if equivalent(reply.text, f"<answer>{sample.truth}</answer>"):
        return 1.0
    in_lines = (between(line, "<answer>", "</answer>") for line in reply.text.split("\n"))
    text = next((content for content in in_lines if content is not None), reply.text)
    return float(text.strip() == sample.truth)


def answer_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is <answer>...</answer> once and nothing else, else 0."""
    return float(_FORMAT.fullmatch(reply.text) is not None)


def think_answer_format(sample: Sample, reply: Reply) -> float:
    """1 if the reply is <think>...</think><answer>...</answer>, each once and nothing else, with a thought that is not
    empty, else 0."""
    return thinks(sample, reply) * (_THINK_FORMAT.fullmatch(reply.text) is not None)


def released_format(sample: Sample, reply: Reply) -> float:
    """R1-AQA's code: as `answer_format`, but two answers in a row pass, because the pattern can span both."""
    return float(is_tagged(reply.text, "answer"))


def released_think_format(sample: Sample, reply: Reply) -> float:
    """R1-AQA's code for prompts that ask for a thought: `think_answer_format` with the same loophole, and for an
    empty thought too."""
    return float(is_tagged(reply.text, "think", "answer"))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\b\w+\b", text.lower()))


def mmau_match(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """MMAU's official rule: the prediction has all words of the answer, and none that only other options have.

    Words are compared as sets, so an option with the same words in another order counts as the answer.
    """
    correct, predicted = _words(answer), _words(prediction)
    wrong = frozenset[str]().union(*(_words(c) - correct for c in choices if _words(c) != correct))
    return bool(predicted) and correct <= predicted and not predicted & wrong


def mmau_exact(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """Whether the prediction is the text of the correct option, up to case, whitespace and a final full stop.

    The option's letter may precede the text ("(B) A man"); the letter alone, or another option's letter, is wrong.
    """
    predicted, correct = _normalize(prediction), _normalize(answer)
    letters = {chr(ord("a") + i) for i, choice in enumerate(choices) if _normalize(choice) == correct}
    lettered = re.fullmatch(r"\(?([a-z])[).:]\s*(.+)", predicted)
    return predicted == correct or bool(lettered and lettered[1] in letters and lettered[2] == correct)


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def mmau(sample: Sample, reply: Reply) -> float | None:
    """1 if MMAU's official rule (`mmau_match`) accepts the whole reply, as its script scores it, else 0.

    A thought that names another option makes the reply wrong; `mmau_answer` reads the answer tags only. None if the
    truth is not text.
    """
    if not isinstance(sample.truth, str):
        return None
    return float(mmau_match(sample.truth, reply.text, sample.meta.get("choices", [sample.truth])))


def mmau_answer(sample: Sample, reply: Reply) -> float | None:
    """1 if `mmau_match` accepts the answer (in tags, else the whole reply), else 0; None if the truth is not text."""
    if not isinstance(sample.truth, str):
        return None
    return float(mmau_match(sample.truth, answer_or_text(reply.text), sample.meta.get("choices", [sample.truth])))


def mmau_strict(sample: Sample, reply: Reply) -> float | None:
    """1 if `mmau_exact` accepts the answer (in tags, else the whole reply), else 0; None if the truth is not text."""
    if not isinstance(sample.truth, str):
        return None
    return float(mmau_exact(sample.truth, answer_or_text(reply.text), sample.meta.get("choices", [sample.truth])))


GROUPS = ("kind", "difficulty", "sub-category")
"""Keys of `meta` by which accuracies are broken down."""


def choice_summary(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean of each score in percent, and the accuracy for each value of `GROUPS` as "accuracy/<value>".

    That accuracy is the score "accuracy", or "mmau" for rows with a sub-category, as MMAU's own script reports it.
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
