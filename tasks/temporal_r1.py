"""Temporal-R1: GRPO on video QA and temporal grounding with a semantic and a temporal reward (arXiv 2506.01908)."""

from collections.abc import Iterator, Mapping

from pydantic import Field

import mmpost as mp
from mmpost.data.formats.temporal import Temporal
from mmpost.data.formats.temporal_files import OPENERS
from mmpost.data.media.limits import Limits
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.clips import Clips
from mmpost.rewards.span import DualReward, measures, parse, span_summary
from mmpost.tasks.bases.clips import answer_with_short_thought


class TemporalR1(mp.PolicyGradientTask):
    """GRPO on video QA, grounding and grounded QA; reward.semantic=false or reward.temporal=false ablates."""

    best_metric = "temporal/score"

    question_types: tuple[str, ...] = ("first", "when", "first when")
    """Question types of the synthetic clips (data/worlds/clips.py)."""
    clips: int = Field(default=384, ge=0)
    """Synthetic training clips."""
    bench_clips: int = Field(default=192, ge=0)
    """Synthetic clips for evaluation."""
    reward: DualReward = DualReward()
    """The dual reward: its terms and their weights."""
    policy: mp.PolicyLoss = mp.PolicyLoss(beta=1e-2, entropy=1e-3)
    """The loss."""
    system: str = ""
    """System prompt for your own data; empty: that of the row."""
    instructions: Mapping[str, str] = {
        "qa": "{question}\n{options}",
        "grounding": '"{question}" When does it occur in the video?',
        "grounded": "{question}\n{options}\nAnswer, and say when in the video it is seen.",
    }
    """Prompts for your own data, by question type; {question} and {options} are replaced by those of the row."""

    def stages(self) -> Iterator[mp.Stage]:
        terms = self.reward.terms()
        score = mp.Score(rewards={"dual": self.reward, **terms}, weights=dict.fromkeys(terms, 0.0))
        yield self.rl_stage("rl", self._source("train", self.clips, 0), score, gold=self.gold())

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        scored = (mp.Generate(n=1, sampling=sampling), mp.Score(rewards=measures))
        return [mp.Bench("temporal", self._source(split, self.bench_clips, 5), scored, span_summary)]

    def gold(self) -> tuple[mp.Gold, ...]:
        """The label after a thought; times are rounded to 0.1 s, so that its overlap may be slightly less than 1."""
        return (mp.Gold(answer_with_short_thought, name="label", is_parseable=readable),)

    def _source(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        rows = user_data(self.data, split, loss="last", openers=OPENERS)
        if rows is not None:
            return Temporal(rows, self.instructions, self.system)
        return Clips(split, self.question_types, n=n, seed=seed, limits=Limits.of(self.data))


def readable(text: str) -> bool:
    """Whether an answer or a span can be parsed from a reply."""
    parsed = parse(text)
    return parsed.answer is not None or parsed.span is not None
