"""The base of model=tiny-cxr: it writes reports on drawn chest films, with mistakes, and answers questions on them."""

from collections.abc import Iterator

from mmpost.data.mix import Mix
from mmpost.data.phantom_questions import Questions
from mmpost.data.phantoms import Phantoms
from mmpost.objectives.likelihood import Likelihood
from mmpost.rewards.choice import bare_accuracy, choice_summary
from mmpost.transforms.answers import Answer
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Bench, Sample, Sampling, Split, Stage, Task


class ReportsBase(Task):
    """Supervised reports, and short answers to multiple-choice questions."""

    studies: int = 6000
    """Samples to train on; few enough that their pictures are processed once."""
    questions: float = 0.25
    """Share of them that are questions."""
    prompts: int = 64
    """Samples per step."""

    def stages(self) -> Iterator[Stage]:
        asked = round(self.studies * self.questions)
        source = Mix([Phantoms("train", self.studies - asked, seed=1), Questions("train", n=asked, seed=1)])
        yield Stage("sft", source, Likelihood(), self.prompts, transforms=(Answer(text=truth),))

    def benches(self, split: Split) -> list[Bench]:
        greedy = Generate(n=1, sampling=Sampling(max_tokens=64, temperature=0))
        score = Score(rewards={"accuracy": bare_accuracy})
        return [Bench("questions", Questions(split, n=256, seed=2), (greedy, score), choice_summary)]


def truth(sample: Sample) -> str:
    """The report, or the right option."""
    return str(sample.truth)
