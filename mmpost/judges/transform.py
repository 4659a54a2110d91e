"""Transforms that score the replies of a whole rollout batch at one time, and what they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.errors import TrainError
from mmpost.judges.base import Judge, Verdict
from mmpost.metrics.text import repetition, words
from mmpost.types import Context, Reply, Reward, Sample

PROBLEMS = ("unparseable", "failed", "inapplicable")


class Judged(Settings):
    """Writes the judge's score to each reply, as `Reply.scores[name]`; a reply without a score gets none.

    The log has the mean score, the shares of replies that could not be scored by what went wrong (judge/unparseable,
    judge/failed, judge/inapplicable), and words and repetition beside it, because a judge that counts findings can be
    paid in length. Raises TrainError where a batch has no answer at all (`complete`: where one is missing): then the
    judge is gone, and the answers that came before it went are kept.
    """

    clock: ClassVar[str] = "score"

    judge: Judge
    """Who scores."""
    complete: bool = False
    """One reply without an answer is enough to stop: what is put on record is never asked again."""
    name: str = "judge"
    """What the score is called."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        pairs = [self.judge.pair(sample, reply) for sample in samples for reply in sample.replies]
        verdicts = self.judge.judge(pairs)
        self._answered(verdicts)
        left = iter(verdicts)
        judged = []
        for sample in samples:
            replies = tuple(self._with(reply, next(left)) for reply in sample.replies)
            judged.append(replace(sample, replies=replies))
        told = [reply for sample in samples for reply in sample.replies]
        for reply, verdict in zip(told, verdicts, strict=True):
            if reply.origin != "truth":
                self._log(reply, verdict, context)
        return judged

    def _with(self, reply: Reply, verdict: Verdict) -> Reply:
        scores = {name: value for name, value in reply.scores.items() if name != self.name}
        return replace(reply, scores=scores if verdict.score is None else {**scores, self.name: verdict.score})

    def _answered(self, verdicts: Sequence[Verdict]) -> None:
        failed = [verdict for verdict in verdicts if verdict.problem == "failed"]
        if failed and (self.complete or len(failed) == len(verdicts)):
            answered = "none" if len(failed) == len(verdicts) else str(len(verdicts) - len(failed))
            raise TrainError(
                f"judge: wanted scores of {len(verdicts)} replies, found an answer to {answered} ({failed[0].said}); "
                "see to the judge and start again: answers that came before are kept"
            )

    def _log(self, reply: Reply, verdict: Verdict, context: Context) -> None:
        for problem in PROBLEMS:
            context.log(f"judge/{problem}", float(verdict.problem == problem))
        context.log(f"{self.name}/words", words(reply.text))
        context.log(f"{self.name}/repetition", repetition(reply.text))
        if verdict.score is not None:
            context.log(f"{self.name}/score", verdict.score)
        for name, count in verdict.counts.items():
            context.log(f"{self.name}/{name}", count)


def scored(name: str) -> Reward:
    """The reward that is the score called `name`, written by a `Judged` before; None where a reply has none."""

    def reward(sample: Sample, reply: Reply) -> float | None:
        return reply.scores.get(name)

    return reward
