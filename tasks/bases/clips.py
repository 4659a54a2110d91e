"""The warm base of the tiny video model: it writes the answer formats, from labels that are right but loose."""

from collections.abc import Iterator

from mmpost.data.formats.temporal import answer_text
from mmpost.data.worlds.clips import Clips
from mmpost.objectives.likelihood import Likelihood
from mmpost.rewards.span import measures, span_summary
from mmpost.transforms.answers import ReplyFromTruth
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Bench, Sample, Sampling, Split, Stage, Task


class ClipsBase(Task):
    """Supervised answers, with a short thought, to questions about clips of handwritten digits."""

    question_types: tuple[str, ...] = ("some", "when", "some", "some when")
    """Kinds of question (data/clips.py); none of these asks for an order."""
    loose: float = 1.5
    """Seconds at most that a label begins too early, or ends too late."""
    clips: int = 4096
    """Clips to train on; each is encoded once and then read in every pass."""
    prompts_per_step: int = 32
    """Clips per step."""

    def stages(self) -> Iterator[Stage]:
        source = Clips("train", self.question_types, n=self.clips, seed=1, loose=self.loose)
        yield Stage(
            "sft",
            source,
            Likelihood(),
            self.prompts_per_step,
            transforms=(ReplyFromTruth(text=answer_with_short_thought),),
        )

    def benches(self, split: Split) -> list[Bench]:
        source = Clips(split, self.question_types, n=192, seed=2)
        greedy = Generate(n=1, sampling=Sampling(max_tokens=32, temperature=0))
        return [Bench("known", source, (greedy, Score(rewards=measures)), span_summary)]


def answer_with_short_thought(sample: Sample) -> str:
    """The truth as a reply, after a minimal thought."""
    return answer_text(sample.truth)
