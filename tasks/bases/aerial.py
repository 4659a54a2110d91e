"""The base model tiny-aerial: SFT on some of the aerial question types, in the answer format."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.worlds.aerial.questions import Aerial
from mmpost.rewards.text import think_format
from mmpost.rewards.vqa import short_answer
from mmpost.transforms.generate import answer_with_short_thought


class AerialBase(mp.Task):
    """SFT on answers, after a short thought, to the question types that the base model should know."""

    question_types: tuple[str, ...] = ("color", "size", "number", "transportation")
    """Question types (data/worlds/aerial/questions.py)."""
    scenes: int = 100_000
    """Synthetic training scenes, generated on demand."""
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
    """In percent: accuracy, overall and by question type, and replies in the format."""
    return mean_by(
        (
            (name, reply.scores[score])
            for sample in samples
            for reply in sample.replies
            for name, score in (("accuracy", "accuracy"), (str(sample.meta["task"]), "accuracy"), ("format", "format"))
        ),
        scale=100,
    )
