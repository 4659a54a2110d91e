"""The warm base of aerial questions: it writes the answer format and knows some types of question, not all."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.rewards.text import think_format
from mmpost.rewards.vqa import short_answer
from mmpost.transforms.generate import answer_with_short_thought


class AerialBase(mp.Task):
    """Supervised answers, with a short thought, to the types of question that a base should know."""

    question_types: tuple[str, ...] = ("color", "size", "number", "transportation")
    """Types of question (data/aerial_questions.py)."""
    scenes: int = 100_000
    """Scenes to train on; they are made on demand."""
    prompts_per_step: int = 64
    """Scenes per step."""

    def stages(self) -> Iterator[mp.Stage]:
        source = Aerial("train", self.question_types, n=self.scenes, seed=1)
        yield mp.Stage(
            "sft",
            source,
            mp.Likelihood(),
            self.prompts_per_step,
            transforms=(mp.ReplyFromTruth(text=answer_with_short_thought),),
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = Aerial(split, self.question_types, n=512, seed=2)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=16, temperature=0))
        rewards = {"accuracy": short_answer, "format": think_format}
        return [mp.Bench("known", source, (greedy, mp.Score(rewards=rewards)), by_type)]


def by_type(samples: Sequence[mp.Sample]) -> dict[str, float]:
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
