"""The base model tiny-video: SFT on answers in the right format with imprecise spans."""

from collections.abc import Iterator

import mmpost as mp
from mmpost.data.formats.temporal import answer_text
from mmpost.data.worlds.clips import Clips
from mmpost.rewards.span import measures, span_summary


class ClipsBase(mp.Task):
    """SFT on answers, after a short thought, to questions about clips of handwritten digits."""

    question_types: tuple[str, ...] = ("some", "when", "some", "some when")
    """Question types (data/worlds/clips.py); none of these asks for an order."""
    label_noise: float = 1.5
    """Maximum error of the labels: seconds by which a span starts too early or ends too late."""
    clips: int = 4096
    """Synthetic training clips; each is encoded once and reused in every epoch."""
    prompts_per_step: int = 32
    """Clips per step."""

    def stages(self) -> Iterator[mp.Stage]:
        source = Clips("train", self.question_types, n=self.clips, seed=1, loose=self.label_noise)
        yield mp.Stage(
            "sft",
            source,
            mp.Likelihood(),
            self.prompts_per_step,
            transforms=(mp.ReplyFromTruth(text=answer_with_short_thought),),
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = Clips(split, self.question_types, n=192, seed=2)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=32, temperature=0))
        return [mp.Bench("known", source, (greedy, mp.Score(rewards=measures)), span_summary)]


def answer_with_short_thought(sample: mp.Sample) -> str:
    """The truth as a reply, after a minimal thought."""
    return answer_text(sample.truth)
