"""The interface of all judges: (reference, candidate) pairs in, verdicts out.

A candidate that could not be judged has no score rather than 0, the worst score.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from mmpost.config.settings import Settings
from mmpost.errors import DataError

if TYPE_CHECKING:
    from mmpost.types import Reply, Sample

Problem = Literal["", "unparseable", "failed", "inapplicable"]

_SPAN = re.compile(r"\[[^\]]*\]|\*\*")


class Pair(NamedTuple):
    """A candidate and the reference that it is judged against."""

    reference: str
    candidate: str
    question: str = ""
    """The prompt's text, for judges that use it."""


@dataclass(frozen=True)
class Verdict:
    """A judge's result for one candidate."""

    score: float | None
    """Higher is better; None if the candidate could not be scored."""
    problem: Problem = ""
    """Why there is no score: the judge's reply could not be parsed, the request failed, or the judge does not apply."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """The components of the score, by name."""
    raw_reply: str = ""
    """The judge's unparsed reply, or a description of the problem."""

    def __post_init__(self) -> None:
        assert (self.score is None) == bool(self.problem), "a verdict has either a score or a problem"


class Judge(Settings):
    """Scores replies against references.

    A judge is also a Reward for single replies. The transform `JudgeScore` is faster: it judges a whole batch at once.
    """

    @abstractmethod
    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        """One verdict per (reference, candidate) pair, in order."""

    def pair(self, sample: Sample, reply: Reply) -> Pair:
        """The pair to judge: the sample's truth as reference, the reply as candidate, and the prompt without system
        messages as question. Raises DataError if the truth is not text.
        """
        if not isinstance(sample.truth, str):
            raise DataError(
                f"{sample.label}: {type(self).__name__} wants a reference text as the truth, found "
                f"{sample.truth!r:.80}; add a reference to each row"
            )
        question = "".join(part.value for part in sample.prompt if part.modality == "text" and part.role != "system")
        return Pair(sample.truth, reply.text, question)

    def __call__(self, sample: Sample, reply: Reply) -> float | None:
        """The score of one reply, or None if it has none."""
        return self.judge([self.pair(sample, reply)])[0].score


def clean_text(text: str) -> str:
    """Drop [spans] and **, collapse white space, lowercase."""
    return " ".join(_SPAN.sub("", text).split()).lower()


def length_controlled(score: float, pair: Pair) -> float:
    """score / max(candidate words / reference words, 1). Raises DataError if the reference has no words."""
    return score / max(rel_verbosity(pair.reference, pair.candidate), 1.0)


def rel_verbosity(reference: str, candidate: str) -> float:
    """Candidate words / reference words. Raises DataError if the reference has no words."""
    words = len(reference.split())
    if not words:
        raise DataError("rel_verbosity: wanted a reference with words, found an empty one; drop the sample")
    return len(candidate.split()) / words
