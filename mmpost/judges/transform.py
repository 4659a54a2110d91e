"""The transform that judges all replies of a rollout batch at once, and the reward that reads its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from mmpost.config.settings import Settings
from mmpost.errors import TrainError
from mmpost.judges.base import Judge, Verdict
from mmpost.metrics.text import repetition, words
from mmpost.types import Context, Reply, Reward, Sample, Transform

PROBLEMS = ("unparseable", "failed", "inapplicable")


class JudgeScore(Transform, Settings):
    """Writes the judge's score of each reply to `Reply.scores[name]`; a reply that cannot be scored gets none.

    Logs the mean score, the fractions of replies without a score by reason (judge/unparseable, judge/failed,
    judge/inapplicable), and words and repetition, because many judges can be gamed with length.
    Raises TrainError if every reply of a batch failed (with `complete`: if any did). The judge is then assumed to be
    down; answers received before are cached.
    """

    timer: ClassVar[str] = "score"

    judge: Judge
    """Which judge scores the replies."""
    complete: bool = False
    """Stop if even one reply gets no answer. Set it for stages whose output is recorded: it is not scored again."""
    name: str = "judge"
    """Name of the score."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        verdicts = self.judge.judge([self.judge.pair(sample, reply) for sample in samples for reply in sample.replies])
        self._check_answered(verdicts)
        next_verdict = iter(verdicts)
        judged = []
        for sample in samples:
            replies = []
            for reply in sample.replies:
                verdict = next(next_verdict)
                replies.append(self._with_score(reply, verdict))
                if reply.origin != "truth":
                    self._log(reply, verdict, context)
            judged.append(replace(sample, replies=tuple(replies)))
        return judged

    def _with_score(self, reply: Reply, verdict: Verdict) -> Reply:
        scores = {name: value for name, value in reply.scores.items() if name != self.name}
        return replace(reply, scores=scores if verdict.score is None else {**scores, self.name: verdict.score})

    def _check_answered(self, verdicts: Sequence[Verdict]) -> None:
        failed = [verdict for verdict in verdicts if verdict.problem == "failed"]
        if failed and (self.complete or len(failed) == len(verdicts)):
            answered = "none" if len(failed) == len(verdicts) else str(len(verdicts) - len(failed))
            raise TrainError(
                f"judge: wanted scores of {len(verdicts)} replies, found answers to {answered} "
                f"({failed[0].raw_reply}); check that the judge is running and start again: answers received so far "
                "are cached"
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


def judge_reward(name: str) -> Reward:
    """A reward that returns the score `name` that `JudgeScore` wrote; None for a reply without one."""

    def reward(sample: Sample, reply: Reply) -> float | None:
        return reply.scores.get(name)

    return reward
