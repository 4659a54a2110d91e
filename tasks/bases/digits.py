"""The base model tiny: SFT on some question types about scenes of digits, in the answer format."""

from collections.abc import Iterator

import mmpost as mp
from mmpost.data.worlds.digits.scenes import Scenes, answer_text, listing_thought
from mmpost.rewards.box import detection, detection_summary


class DigitsBase(mp.Task):
    """SFT on answers, after a short thought, to the question types that the base model should know."""

    question_types: tuple[str, ...] = ("single", "all", "leftmost", "top")
    """Question types (data/worlds/digits/scenes.py)."""
    listing: bool = False
    """Think by listing every digit and where it is, so that the thought carries the answer; else by a constant word."""
    scenes: int = 100_000
    """Synthetic training scenes, generated on demand."""
    prompts_per_step: int = 64
    """Scenes per step."""

    def stages(self) -> Iterator[mp.Stage]:
        source = Scenes(split="train", question_types=self.question_types, n=self.scenes, seed=1)
        yield mp.Stage(
            "sft",
            source,
            mp.Likelihood(),
            self.prompts_per_step,
            transforms=(mp.ReplyFromTruth(text=boxes_with_listing if self.listing else boxes_with_short_thought),),
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = Scenes(split=split, question_types=self.question_types, n=256, seed=2)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=64, temperature=0))
        return [mp.Bench("known", source, (greedy, mp.Score(rewards=detection)), detection_summary)]


def boxes_with_short_thought(sample: mp.Sample) -> str:
    """The truth as a reply, after a minimal thought; repeating the question would not generalize to new words."""
    return answer_text(sample.truth, sample.frame, thought="look")


def boxes_with_listing(sample: mp.Sample) -> str:
    """The truth as a reply, after a thought that lists every digit."""
    return answer_text(sample.truth, sample.frame, listing_thought(sample))
