"""The warm base of aerial questions: it writes the answer format and knows some types of question, not all."""

from collections.abc import Iterator, Sequence

from mmpost.core.means import mean_by
from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.objectives.likelihood import Likelihood
from mmpost.rewards.text import think_format
from mmpost.rewards.vqa import short_answer
from mmpost.transforms.answers import ReplyFromTruth, answer_with_short_thought
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Bench, Sample, Sampling, Split, Stage, Task


class AerialBase(Task):
    """Supervised answers, with a short thought, to the types of question that a base should know."""

    question_types: tuple[str, ...] = ("color", "size", "number", "transportation")
    """Types of question (data/aerial_questions.py)."""
    scenes: int = 100_000
    """Scenes to train on; they are made on demand."""
    prompts_per_step: int = 64
    """Scenes per step."""

    def stages(self) -> Iterator[Stage]:
        source = Aerial("train", self.question_types, n=self.scenes, seed=1)
        yield Stage(
            "sft",
            source,
            Likelihood(),
            self.prompts_per_step,
            transforms=(ReplyFromTruth(text=answer_with_short_thought),),
        )

    def benches(self, split: Split) -> list[Bench]:
        source = Aerial(split, self.question_types, n=512, seed=2)
        greedy = Generate(n=1, sampling=Sampling(max_tokens=16, temperature=0))
        rewards = {"accuracy": short_answer, "format": think_format}
        return [Bench("known", source, (greedy, Score(rewards=rewards)), by_type)]


def by_type(samples: Sequence[Sample]) -> dict[str, float]:
    """Percent right: all, each type of question, and how many keep to the format."""
    return mean_by(
        (
            (name, reply.scores[score])
            for sample in samples
            for reply in sample.replies
            for name, score in (("accuracy", "accuracy"), (str(sample.meta["task"]), "accuracy"), ("format", "format"))
        ),
        scale=100,
    )
