"""The base model tiny-cxr: SFT on reports of synthetic chest X-rays and on questions about them; it makes mistakes."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_scores
from mmpost.data.sources.mix import Mix
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.judges.radiology.metrics import ReportScores, finding_f1
from mmpost.rewards.choice import bare_accuracy, choice_summary


class ReportsBase(mp.Task):
    """SFT on reports, and on short answers to multiple-choice questions."""

    studies: int = 6000
    """Training samples; few enough that their processed images stay in the cache."""
    questions: float = 0.25
    """Fraction of them that are questions, in the second stage."""
    questions_fraction: float = 0.3
    """Fraction of the steps for the first stage, on questions only: the loss of a one-word answer depends on the image,
    that of a report mostly on its language."""
    prompts_per_step: int = 64
    """Samples per step."""

    def stages(self) -> Iterator[mp.Stage]:
        n_questions, targets = round(self.studies * self.questions), (mp.ReplyFromTruth(text=truth),)
        questions = Questions("train", n=self.studies, seed=1)
        yield mp.Stage(
            "questions", questions, mp.Likelihood(), self.prompts_per_step, targets, fraction=self.questions_fraction
        )
        studies = SyntheticStudies("train", self.studies - n_questions, seed=1)
        mixed = Mix([studies, Questions("train", n=n_questions, seed=1)])
        yield mp.Stage(
            "sft", mixed, mp.Likelihood(), self.prompts_per_step, targets, fraction=1 - self.questions_fraction
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=64, temperature=0))
        score = mp.Score(rewards={"accuracy": bare_accuracy})
        return [
            mp.Bench("questions", Questions(split, n=256, seed=2), (greedy, score), choice_summary),
            mp.Bench("reports", SyntheticStudies(split, n=256, seed=2), (greedy, ReportScores()), report_summary),
        ]


def truth(sample: mp.Sample) -> str:
    """The report, or the correct option."""
    return str(sample.truth)


def report_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """F1 of findings and ROUGE-L in percent; mean length in words."""
    fractions = {**finding_f1(samples), **mean_scores(samples, ("rouge_l",))}
    return {name: 100 * value for name, value in fractions.items()} | mean_scores(samples, ("words",))
