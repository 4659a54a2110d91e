"""The base of model=tiny-audio: it writes the answer format, thinks what it hears, and knows some kinds of question."""

from collections.abc import Iterator

import mmpost as mp
from mmpost.data.worlds.sounds import Sounds
from mmpost.rewards.choice import accuracy, answer_format, choice_summary


class SoundsBase(mp.Task):
    """Supervised answers, half of them after a thought, to kinds of question that a base should know."""

    question_types: tuple[str, ...] = ("which", "first", "pitch", "higher")
    """Kinds of question that it learns well (data/sounds.py)."""
    rare: tuple[str, ...] = ("last", "count", "absent")
    """Kinds that it meets now and then."""
    often: int = 5
    """How often a well-known kind comes for each time that a rare one does."""
    clips: int = 9600
    """Clips to train on."""
    prompts_per_step: int = 32
    """Clips per step."""
    question: str = "{question} {choices}"
    """The question with its options."""
    answer: str = "; answer in <answer>"
    """Follows the question where the answer alone is wanted."""
    think: str = "; think in <think>, answer in <answer>"
    """Follows the question where a thought is wanted, too."""

    def stages(self) -> Iterator[mp.Stage]:
        templates = [self.question + asked for asked in (self.answer, self.think)]
        source = Sounds("train", self.question_types * self.often + self.rare, self.clips, 1, templates)
        yield mp.Stage(
            "sft", source, mp.Likelihood(), self.prompts_per_step, transforms=(mp.ReplyFromTruth(text=self.reply),)
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=12, temperature=0))
        scored = (greedy, mp.Score(rewards={"accuracy": accuracy, "format": answer_format}))
        kinds = {"known": self.question_types, "rare": self.rare}
        templates = (self.question + self.answer,)
        return [mp.Bench(n, Sounds(split, k, 256, 3, templates), scored, choice_summary) for n, k in kinds.items() if k]

    def reply(self, sample: mp.Sample) -> str:
        """The answer, after what is heard where the prompt asks for a thought."""
        asked = str(sample.prompt[-1].value)
        thought = f"<think>{sample.meta['thought']}</think>" if asked.endswith(self.think) else ""
        return f"{thought}<answer>{sample.truth}</answer>"
