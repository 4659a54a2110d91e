"""GRPO and its variants on your data: data.train=FILE with a prompt and a solution in each row."""

import math
from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.config import registry
from mmpost.core.means import mean_by
from mmpost.data.readers.user_data import user_data


class Grpo(mp.PolicyGradientTask):
    """Policy gradients with the rewards that you name; `task.policy.loss_type` selects the loss."""

    best_metric = "data/reward"

    rewards: dict[str, float] = {"text.answer_match": 1.0, "text.think_format": 0.5}
    """Rewards (see `mmpost list`, or a.module:function) and their weights."""

    def stages(self) -> Iterator[mp.Stage]:
        source = user_data(self.data, "train", loss="last")
        if source is None:
            raise mp.ConfigError("task=grpo trains on your own data; set data.train=FILE (README, Your own data)")
        yield self.rl_stage("rl", source, self._score(), gold=(mp.Gold(plain), mp.Gold(tagged, name="tagged")))

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = user_data(self.data, split, loss="last")
        if source is None:
            return []
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        return [mp.Bench("data", source, (mp.DropReplies(), mp.Generate(n=1, sampling=sampling), self._score()), means)]

    def _score(self) -> mp.Score:
        rewards = {name: registry.member(name, "mmpost.rewards") for name in self.rewards}
        return mp.Score(rewards=rewards, weights=self.rewards)


def means(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """The mean reward and the mean of each score, over the replies to which a reward applies."""
    replies = (reply for sample in samples for reply in sample.replies)
    scores = (
        {"reward": float(reply.columns["reward"]), **reply.scores}  # type: ignore[arg-type]
        for reply in replies
    )
    # NaN marks replies to which no reward applies.
    return mean_by((name, value) for row in scores for name, value in row.items() if not math.isnan(value))


def plain(sample: mp.Sample) -> str | None:
    """The row's solution, unchanged."""
    return str(sample.truth) if isinstance(sample.truth, str | int | float) else None


def tagged(sample: mp.Sample) -> str | None:
    """The solution in answer tags after a thought; unchanged if it already has tags."""
    text = plain(sample)
    return text if text is None or "<answer>" in text else f"<think>look</think><answer>{text}</answer>"
