"""GRPO and its relatives on your own questions: data.train=FILE with a prompt and a solution in each row."""

import math
from collections.abc import Iterator, Sequence

from mmpost.config import registry
from mmpost.core.means import mean_by
from mmpost.data.readers.user_data import user_data
from mmpost.errors import ConfigError
from mmpost.methods.policy_gradient import PolicyGradientTask
from mmpost.transforms.answers import DropReplies
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Bench, Gold, Sample, Sampling, Split, Stage


class Grpo(PolicyGradientTask):
    """Groups of rollouts scored by rewards that you name; `task.policy.loss_type` chooses the relative."""

    best_metric = "data/reward"

    rewards: dict[str, float] = {"text.answer_match": 1.0, "text.think_format": 0.5}
    """Rewards (`mmpost list` shows them, or a.module:function) and their weights."""

    def stages(self) -> Iterator[Stage]:
        source = user_data(self.data, "train", loss="last")
        if source is None:
            raise ConfigError("task=grpo learns from your own data: say data.train=FILE (README, Your own data)")
        yield self.rl_stage("rl", source, self._score(), gold=(Gold(plain), Gold(tagged, name="tagged")))

    def benches(self, split: Split) -> list[Bench]:
        source = user_data(self.data, split, loss="last")
        if source is None:
            return []
        sampling = Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        return [Bench("data", source, (DropReplies(), Generate(n=1, sampling=sampling), self._score()), means)]

    def _score(self) -> Score:
        rewards = {name: registry.member(name, "mmpost.rewards") for name in self.rewards}
        return Score(rewards=rewards, weights=self.rewards)


def means(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean reward and the mean of each score, over the replies to which a reward applies."""
    replies = (reply for sample in samples for reply in sample.replies)
    scores = (
        {"reward": float(reply.columns["reward"]), **reply.scores}  # type: ignore[arg-type]
        for reply in replies
    )
    # NaN marks replies to which no reward applies.
    return mean_by((name, value) for row in scores for name, value in row.items() if not math.isnan(value))


def plain(sample: Sample) -> str | None:
    """The row's solution as it stands."""
    return str(sample.truth) if isinstance(sample.truth, str | int | float) else None


def tagged(sample: Sample) -> str | None:
    """The solution after a thought, in the tags that formats ask for; as it stands where it has tags of its own."""
    text = plain(sample)
    return text if text is None or "<answer>" in text else f"<think>look</think><answer>{text}</answer>"
