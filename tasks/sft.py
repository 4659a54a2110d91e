"""Supervised fine-tuning on your own conversations: data.train=FILE (JSONL, JSON, Parquet or a folder of datasets)."""

from collections.abc import Iterator, Sequence

from mmpost.data.readers.user_data import user_data
from mmpost.errors import ConfigError
from mmpost.objectives.likelihood import Likelihood
from mmpost.transforms.answers import EncodeReplies
from mmpost.transforms.logprobs import ScoreLogprobs
from mmpost.types import Bench, Gold, Sample, Split, Stage, Task


class Sft(Task):
    """Maximum likelihood of the assistant's turns."""

    best_metric = "-data/nll"

    prompts_per_step: int = 16
    """Rows (turns) per step, over all ranks."""
    objective: Likelihood = Likelihood()
    """How tokens are averaged."""

    def stages(self) -> Iterator[Stage]:
        source = user_data(self.data, "train")
        if source is None:
            raise ConfigError("task=sft learns from your own data: say data.train=FILE (README, Your own data)")
        yield Stage("sft", source, self.objective, self.prompts_per_step, (EncodeReplies(),), gold=(Gold(said),))

    def benches(self, split: Split) -> list[Bench]:
        source = user_data(self.data, split)
        if source is None:
            return []
        return [Bench("data", source, (EncodeReplies(), ScoreLogprobs()), likelihood)]


def likelihood(samples: Sequence[Sample]) -> dict[str, float]:
    """Negative log-likelihood per token, in nats."""
    scores = [reply.scores for sample in samples for reply in sample.replies]
    return {"nll": sum(s["nll"] for s in scores) / max(1.0, sum(s["tokens"] for s in scores))}


def said(sample: Sample) -> str | None:
    """What the data replies."""
    return sample.replies[0].text if sample.replies else None
