"""Beats per minute from the time between two beats, in words."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost_pulse.rewards import near


class Intervals(mp.Generated):
    """Questions in text."""

    uid_prefix = "interval"

    def generate(self, index: int) -> mp.Sample:
        rate = self.rng(index).randrange(40, 181)
        question = f"There are {60 / rate:.2f} seconds between two beats. How many beats per minute? Write a number."
        return mp.Sample(self.uid(index), (mp.Part("text", question),), truth=rate)


class HeartWords(mp.PolicyGradientTask):
    """Learned from groups of sampled replies."""

    best_metric = "rate/near"
    num_generations: int = 2
    prompts_per_step: int = 2
    sampling: mp.Sampling = mp.Sampling(max_tokens=4)

    def stages(self) -> Iterator[mp.Stage]:
        gold = mp.Gold(lambda sample: str(sample.truth), reward=1.0)
        yield self.rl_stage("rl", Intervals("train", 64, 0), mp.Score(rewards={"near": near}), gold=(gold,))

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        transforms = (mp.DropReplies(), self.greedy(), mp.Score(rewards={"near": near}))
        return [mp.Bench("rate", Intervals(split, 8, 0), transforms, summary)]


def summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """The mean reward of the replies, in percent."""
    return {"near": 100 * sum(s.replies[0].scores["near"] for s in samples) / max(1, len(samples))}
