"""Supervised fine-tuning on your conversations: data.train=FILE (JSONL, JSON, Parquet, or a folder of `datasets`)."""

from collections.abc import Iterator, Sequence

from pydantic import Field

import mmpost as mp
from mmpost.data.readers.user_data import user_data


class Sft(mp.Task):
    """Maximum likelihood of assistant turns."""

    best_metric = "-data/nll"

    prompts_per_step: int = Field(default=16, ge=1)
    """Rows (turns) per step, over all ranks."""
    objective: mp.Likelihood = mp.Likelihood()
    """The loss, and how it is averaged over tokens."""

    def stages(self) -> Iterator[mp.Stage]:
        source = user_data(self.data, "train")
        if source is None:
            raise mp.ConfigError("task=sft trains on your own data; set data.train=FILE (README, Your own data)")
        yield mp.Stage(
            "sft",
            source,
            self.objective,
            self.prompts_per_step,
            (mp.EncodeReplies(or_truth=True),),
            gold=(mp.Gold(said),),
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = user_data(self.data, split)
        if source is None:
            return []
        return [mp.Bench("data", source, (mp.EncodeReplies(or_truth=True), mp.ScoreLogprobs()), likelihood)]


def likelihood(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Negative log-likelihood per token, in nats."""
    scores = [reply.scores for sample in samples for reply in sample.replies]
    return {"nll": sum(s["nll"] for s in scores) / max(1.0, sum(s["tokens"] for s in scores))}


def said(sample: mp.Sample) -> str | None:
    """The first reply of the data, else the truth if it is text; None without either."""
    truth = sample.truth if isinstance(sample.truth, str) else None
    return sample.replies[0].text if sample.replies else truth
