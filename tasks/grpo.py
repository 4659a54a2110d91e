"""GRPO and its relatives on your own questions: data.train=FILE with a prompt and a solution in each row."""

from collections.abc import Iterator, Sequence

from mmpost import registry
from mmpost.data.readers import read
from mmpost.errors import ConfigError
from mmpost.rl import GroupTask
from mmpost.transforms.answers import PromptOnly
from mmpost.transforms.generate import Generate
from mmpost.transforms.score import Score
from mmpost.types import Bench, Gold, Sample, Sampling, Source, Split, Stage


class Grpo(GroupTask):
    """Groups of rollouts scored by rewards that you name; `task.policy.loss` chooses the relative."""

    best = "data/reward"

    rewards: dict[str, float] = {"text.answer_match": 1.0, "text.think_format": 0.5}
    """Rewards (`mmpost list` shows them, or a.module:function) and their weights."""

    def stages(self) -> Iterator[Stage]:
        if not self.data.train:
            raise ConfigError("task=grpo learns from your own data: say data.train=FILE (README, Your own data)")
        yield self.rl_stage(
            "rl", self._source(self.data.train), self._score(), gold=(Gold(plain), Gold(tagged, name="tagged"))
        )

    def benches(self, split: Split) -> list[Bench]:
        path = getattr(self.data, split)
        if not path:
            return []
        sampling = Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        return [
            Bench("data", self._source(path), (PromptOnly(), Generate(n=1, sampling=sampling), self._score()), means)
        ]

    def _source(self, path: str) -> Source:
        return read(path, self.data.root, loss="last")

    def _score(self) -> Score:
        rewards = {name: registry.member(name, "mmpost.rewards") for name in self.rewards}
        return Score(rewards=rewards, weights=self.rewards)


def means(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean reward and the mean of each score."""
    replies = [reply for sample in samples for reply in sample.replies]
    found = {name: [r.scores[name] for r in replies if name in r.scores] for r in replies for name in r.scores}
    return {"reward": sum(float(r.columns["reward"]) for r in replies) / max(1, len(replies))} | {  # type: ignore[arg-type]
        name: sum(values) / len(values) for name, values in found.items()
    }


def plain(sample: Sample) -> str | None:
    """The row's solution as it stands."""
    return str(sample.truth) if isinstance(sample.truth, str | int | float) else None


def tagged(sample: Sample) -> str | None:
    """The solution after a thought, in the tags that formats ask for; as it stands where it has tags of its own."""
    text = plain(sample)
    return text if text is None or "<answer>" in text else f"<think>look</think><answer>{text}</answer>"
