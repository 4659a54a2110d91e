"""The base model tiny-audio: SFT on some question types about sounds, with and without a thought."""

from collections.abc import Iterator

import mmpost as mp
from mmpost.data.worlds.sounds import Sounds
from mmpost.rewards.choice import accuracy, answer_format, choice_summary


class SoundsBase(mp.Task):
    """SFT on answers, half of them after a thought, to the question types that the base model should know."""

    question_types: tuple[str, ...] = ("which", "first", "pitch", "higher")
    """Frequent question types (data/worlds/sounds.py)."""
    rare: tuple[str, ...] = ("last", "count", "absent")
    """Rare question types."""
    repeat_frequent: int = 5
    """Frequency of a frequent question type relative to a rare one."""
    clips: int = 9600
    """Synthetic training clips."""
    prompts_per_step: int = 32
    """Clips per step."""
    question: str = "{question} {choices}"
    """Template of the question; {question} and {choices} are replaced by those of the sample."""
    answer: str = "; answer in <answer>"
    """Appended to the question in prompts for the answer alone."""
    think: str = "; think in <think>, answer in <answer>"
    """Appended to the question in prompts for a thought and the answer."""

    def stages(self) -> Iterator[mp.Stage]:
        templates = [self.question + instruction for instruction in (self.answer, self.think)]
        source = Sounds("train", self.question_types * self.repeat_frequent + self.rare, self.clips, 1, templates)
        yield mp.Stage(
            "sft", source, mp.Likelihood(), self.prompts_per_step, transforms=(mp.ReplyFromTruth(text=self.reply),)
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=12, temperature=0))
        scored = (greedy, mp.Score(rewards={"accuracy": accuracy, "format": answer_format}))
        question_types = {"known": self.question_types, "rare": self.rare}
        templates = (self.question + self.answer,)
        return [
            mp.Bench(name, Sounds(split, types, 256, 3, templates), scored, choice_summary)
            for name, types in question_types.items()
            if types
        ]

    def reply(self, sample: mp.Sample) -> str:
        """The answer, after the names of the sounds if the prompt asks for a thought."""
        prompt = str(sample.prompt[-1].value)
        thought = f"<think>{sample.meta['thought']}</think>" if prompt.endswith(self.think) else ""
        return f"{thought}<answer>{sample.truth}</answer>"
