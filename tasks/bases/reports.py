"""The base of model=tiny-cxr: it writes reports on drawn chest films, with mistakes, and answers questions on them."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.data.sources.mix import Mix
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.judges.radiology.metrics import ReportScores, finding_f1, mean_scores
from mmpost.rewards.choice import bare_accuracy, choice_summary


class ReportsBase(mp.Task):
    """Supervised reports, and short answers to multiple-choice questions."""

    studies: int = 6000
    """Samples to train on; few enough that their pictures are processed once."""
    questions: float = 0.25
    """Share of them that are questions, once reports are learnt."""
    questions_fraction: float = 0.3
    """Share of the steps on questions alone: a reply of one word says at once whether the film was seen; a report of
    thirty words, most of them habit, does not."""
    prompts_per_step: int = 64
    """Samples per step."""

    def stages(self) -> Iterator[mp.Stage]:
        asked, learn = round(self.studies * self.questions), (mp.ReplyFromTruth(text=truth),)
        questions = Questions("train", n=self.studies, seed=1)
        yield mp.Stage(
            "questions", questions, mp.Likelihood(), self.prompts_per_step, learn, fraction=self.questions_fraction
        )
        mixed = Mix([SyntheticStudies("train", self.studies - asked, seed=1), Questions("train", n=asked, seed=1)])
        yield mp.Stage(
            "sft", mixed, mp.Likelihood(), self.prompts_per_step, learn, fraction=1 - self.questions_fraction
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=64, temperature=0))
        score = mp.Score(rewards={"accuracy": bare_accuracy})
        return [
            mp.Bench("questions", Questions(split, n=256, seed=2), (greedy, score), choice_summary),
            mp.Bench("reports", SyntheticStudies(split, n=256, seed=2), (greedy, ReportScores()), report_summary),
        ]


def truth(sample: mp.Sample) -> str:
    """The report, or the right option."""
    return str(sample.truth)


def report_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Percent: F1 of findings and ROUGE-L; words."""
    shares = {**finding_f1(samples), **mean_scores(samples, ("rouge_l",))}
    return {name: 100 * value for name, value in shares.items()} | mean_scores(samples, ("words",))
