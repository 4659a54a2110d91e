"""What every judge has: candidates in, verdicts out. A candidate that could not be judged has no score, never 0."""

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
_BREAK = re.compile(r"\n[ \t]*(?=[\n*\-•\dA-Z])")


class Pair(NamedTuple):
    """One candidate beside what it is judged by."""

    reference: str
    candidate: str
    question: str = ""
    """What was asked, for judges that look at it."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one candidate."""

    score: float | None
    """More is better; None where there is no answer to score by."""
    problem: Problem = ""
    """Why there is no score: the judge's words have not the agreed form, or no words came, or it does not apply."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """What the score was made of, by name."""
    said: str = ""
    """The judge's own words, or what went wrong."""

    def __post_init__(self) -> None:
        assert (self.score is None) == bool(self.problem), "a verdict has a score, or says why it has none"


class Judge(Settings):
    """Scores replies; a Reward by itself, and faster over many at a time (`Judged`)."""

    @abstractmethod
    def judge(self, pairs: Sequence[Pair | tuple[str, str]]) -> list[Verdict]:
        """One verdict for each (reference, candidate)."""

    def pair(self, sample: Sample, reply: Reply) -> Pair:
        """What is judged of a reply: its text beside the sample's truth. Raises DataError where that is no text."""
        if not isinstance(sample.truth, str):
            raise DataError(
                f"sample {sample.uid!r}: {type(self).__name__} wants a reference text as the truth, found "
                f"{sample.truth!r:.80}; give the rows one"
            )
        asked = "".join(part.value for part in sample.prompt if part.modality == "text" and part.role != "system")
        return Pair(sample.truth, reply.text, asked)

    def __call__(self, sample: Sample, reply: Reply) -> float | None:
        """The score of one reply; None where it has none."""
        return self.judge([self.pair(sample, reply)])[0].score


def cleaned(text: str) -> str:
    """A report as GREEN's scorers read it: without [spans] and **, white space collapsed, in lower case."""
    return " ".join(_SPAN.sub("", text).split()).lower()


def sentences(text: str) -> str:
    """As `cleaned`, with the line breaks that end a sentence: before a blank line, a capital, a bullet or a number."""
    return "\n".join(filter(None, map(cleaned, _BREAK.split(text))))


def ratio(matched: float, errors: float) -> float:
    """GREEN's formula: matched findings by matched findings and significant errors; 0 without matched findings."""
    return matched / (matched + errors) if matched else 0.0


def length_controlled(score: float, pair: Pair) -> float:
    """LC-GREEN: the score divided by how many times longer than the reference the candidate is, if it is longer.

    Raises DataError where the reference has no words.
    """
    return score / max(rel_verbosity(pair.reference, pair.candidate), 1.0)


def rel_verbosity(reference: str, candidate: str) -> float:
    """Words of the candidate by words of the reference; raises DataError where that has none."""
    words = len(reference.split())
    if not words:
        raise DataError("rel_verbosity: wanted a reference with words in it, found an empty one; leave the sample out")
    return len(candidate.split()) / words
