"""A context without a model, and samples with rewards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mmpost.types import Objective, Origin, Part, Reply, Sample, Sampling


@dataclass
class FakeContext:
    """Encoded replies have five tokens, log-probs depend on the token position, other ranks contribute `others`.

    Each medium is one token, and every reply token attends to media and the rest of the prompt alike.
    """

    others: list[list[float]] = field(default_factory=list)
    """Values of the other ranks for each call of `gather`, in order."""
    logs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    version: int = 0
    step: int = 0

    def generate(self, samples: Sequence[Sample], n: int, sampling: Sampling, of: str = "policy") -> list[Sample]:
        reply = Reply(
            parts=(Part("text", "drawn", "assistant"),),
            origin="policy",
            token_ids=(1, 2, 3),
            columns={"behaviour_logp": [-1.0] * 3, "temperature": sampling.temperature, "truncated": 0.0},
        )
        return [replace(sample, replies=sample.replies + (reply,) * n) for sample in samples]

    def logp(self, samples: Sequence[Sample], of: str) -> list[list[list[float]]]:
        offset = {"policy": -1.0, "reference": -1.5}[of]
        return [[[offset - t / 10 for t in range(len(r.token_ids or ()))] for r in s.replies] for s in samples]

    def attention(self, samples: Sequence[Sample], layers: float = 1 / 3) -> list[list[torch.Tensor]]:
        media = [sum(p.modality != "text" for p in s.prompt) for s in samples]
        return [
            [torch.full((len(r.token_ids or ()), n), 1 / (n + 1)) for r in s.replies]
            for s, n in zip(samples, media, strict=True)
        ]

    def embed(self, samples: Sequence[Sample]) -> list[dict[str, torch.Tensor]]:
        return [{p.modality: torch.tensor([1.0, 0.0]) for p in s.prompt if p.modality != "text"} for s in samples]

    def class_logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        return torch.zeros(len(samples), 2)

    def loss(self, samples: Sequence[Sample], objective: Objective) -> float:
        return float(len(samples))

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        return Reply(parts=(Part("text", text, "assistant"),), origin=origin, token_ids=(7, 8, 9, 9, 2))

    def rng(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(len(name))

    def gather(self, values: Sequence[float]) -> list[float]:
        return [*values, *(self.others.pop(0) if self.others else [])]

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        self.logs[name].append(value)

    def mean(self, name: str) -> float:
        return sum(self.logs[name]) / len(self.logs[name])


def group(
    rewards: Sequence[float],
    truth: float | None = None,
    lengths: Sequence[int] | None = None,
    uid: str = "a",
    scores: Sequence[Mapping[str, float]] | None = None,
    **columns: Any,
) -> Sample:
    """A sample with one rollout per reward, then the truth with its reward."""
    rows: list[tuple[float, Origin]] = [(r, "policy") for r in rewards]
    if truth is not None:
        rows.append((truth, "truth"))
    replies = []
    for i, (reward, origin) in enumerate(rows):
        replies.append(
            Reply(
                parts=(Part("text", f"{origin} {i}", "assistant"),),
                origin=origin,
                token_ids=tuple(range(lengths[i] if lengths else 3)),
                scores=scores[i] if scores else {},
                columns={"reward": reward, **{name: values[i] for name, values in columns.items()}},
            )
        )
    return Sample(uid=uid, prompt=(Part("text", "?"),), replies=tuple(replies), truth="42")


def column(sample: Sample, name: str) -> list[float]:
    return [reply.columns[name] for reply in sample.replies]  # type: ignore[misc]
