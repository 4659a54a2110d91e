"""LocalRollout: the sampling distribution, recorded columns, and independence of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mmpost.config.settings import ModelSettings
from mmpost.models.builtin.qwen_vl import write_tiny
from mmpost.models.chat.model import ChatModel
from mmpost.rollout import local
from mmpost.rollout.local import LocalRollout
from mmpost.types import Part, Reply, Sample, Sampling
from tests.models.samples import mixed_prompts

STOP = 4
LOGITS = torch.tensor([2.0, 1.0, 0.0, 1.5, -math.inf])
"""The last token ends a reply; its probability is 0 here."""


@dataclass
class ConstantModel:
    """A model whose logits are the same at every position."""

    logits: Tensor

    @property
    def recipe(self) -> SimpleNamespace:
        return SimpleNamespace(end=(STOP,))

    def decoder(self, samples: Sequence[Sample], n: int) -> ConstantModel:
        self.first, self.live = len(samples), len(samples) * n
        return self

    def start(self) -> Tensor:
        return self.logits.expand(self.first, -1)

    def step(self, tokens: Tensor) -> Tensor:
        assert len(tokens) == self.live
        return self.logits.expand(self.live, -1)

    def keep(self, live: Tensor) -> None:
        self.live = len(live)

    def distribution(self, logits: Tensor, temperature: float) -> Tensor:
        return (logits / temperature).log_softmax(-1)

    def decode_reply(self, token_ids: Sequence[int]) -> Reply:
        return Reply((Part("text", " ".join(map(str, token_ids)), "assistant"),), "policy", tuple(token_ids))


def tokens(reply: Reply) -> tuple[int, ...]:
    assert reply.token_ids is not None
    return reply.token_ids


def sample_replies(
    sampling: Sampling, n: int = 4000, logits: Tensor = LOGITS, seed: int = 0, uid: str = "a"
) -> list[Reply]:
    rollout = LocalRollout(ConstantModel(logits), replies=10000)
    return list(rollout.generate([Sample(uid, ())], n, sampling, seed)[0].replies)


def assert_distribution(replies: Sequence[Reply], expected: Tensor) -> None:
    """First-token frequencies are within four standard errors; tokens of probability 0 never occur."""
    counts = torch.bincount(torch.tensor([tokens(r)[0] for r in replies]), minlength=len(expected))
    error = (expected * (1 - expected) / len(replies)).sqrt()
    assert ((counts / len(replies) - expected).abs() <= 4 * error).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature(temperature: float) -> None:
    replies = sample_replies(Sampling(max_tokens=1, temperature=temperature))
    expected = (LOGITS / temperature).softmax(-1)
    assert_distribution(replies, expected)
    for reply in replies[:50]:
        assert reply.columns["temperature"] == temperature
        assert reply.columns["behaviour_logp"] == pytest.approx([math.log(expected[tokens(reply)[0]])], abs=1e-6)


def test_zero_temperature_is_greedy_and_scored_at_one() -> None:
    for reply in sample_replies(Sampling(max_tokens=3, temperature=0.0), n=5):
        assert reply.token_ids == (0, 0, 0)
        assert reply.columns["temperature"] == 1.0
        assert reply.columns["behaviour_logp"] == pytest.approx([float(LOGITS.log_softmax(-1)[0])] * 3)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(max_tokens=1, top_k=1), [0]),
        (Sampling(max_tokens=1, top_k=2), [0, 3]),
        (Sampling(max_tokens=1, top_p=0.4), [0]),
        (Sampling(max_tokens=1, top_p=0.7), [0, 3]),
        (Sampling(max_tokens=1, top_p=0.99), [0, 1, 2, 3]),
        (Sampling(max_tokens=1, top_p=0.99, top_k=3), [0, 1, 3]),
    ],
    ids=str,
)
def test_nucleus_and_top_k(sampling: Sampling, allowed: list[int]) -> None:
    probs = LOGITS.softmax(-1)
    expected = torch.zeros(5).index_put((torch.tensor(allowed),), probs[allowed])
    replies = sample_replies(sampling)
    assert_distribution(replies, expected / expected.sum())
    first = replies[0]
    assert first.columns["behaviour_logp"] == pytest.approx([math.log(probs[tokens(first)[0]])], abs=1e-6)


def test_each_reply_stops_at_its_end_token() -> None:
    logits = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.5])
    replies = sample_replies(Sampling(max_tokens=6), n=300, logits=logits)
    lengths = set()
    for reply in replies:
        ids = tokens(reply)
        lengths.add(len(ids))
        assert STOP not in ids[:-1]
        assert reply.columns["truncated"] == float(ids[-1] != STOP)
        assert len(ids) == 6 or ids[-1] == STOP
        assert len(reply.columns["behaviour_logp"]) == len(ids)  # type: ignore[arg-type]
    assert lengths == {1, 2, 3, 4, 5, 6}
    assert {r.columns["truncated"] for r in replies if len(r.token_ids or ()) == 6} == {0.0, 1.0}


def test_replies_depend_on_seed_and_uid() -> None:
    sampling = Sampling(max_tokens=8)
    ids = [
        [r.token_ids for r in sample_replies(sampling, 5, seed=s, uid=u)]
        for s, u in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    ]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert ids[0] != ids[3]
    assert len({tuple(x or ()) for x in ids[0]}) == 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    model = ChatModel.load(str(folder), ModelSettings(device="cpu"))
    # Many end tokens, so that the replies of a batch finish at different steps.
    model.recipe = replace(model.recipe, end=(*model.recipe.end, *range(0, 400, 3)))
    return model


def ids(samples: Sequence[Sample]) -> dict[str, list[tuple[int, ...] | None]]:
    return {s.uid: [r.token_ids for r in s.replies] for s in samples}


def test_replies_do_not_depend_on_the_batch(model: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(max_tokens=20, temperature=2.0)
    rollout = LocalRollout(model)
    batched = ids(rollout.generate(mixed_prompts(), 4, sampling, 5))
    lengths = {len(r or ()) for replies in batched.values() for r in replies}
    assert len(lengths) > 4
    assert batched == ids(list(reversed(rollout.generate(mixed_prompts()[::-1], 4, sampling, 5))))
    assert batched == ids([rollout.generate([s], 4, sampling, 5)[0] for s in mixed_prompts()])
    assert batched == ids(LocalRollout(model, replies=9).generate(mixed_prompts(), 4, sampling, 5))
    for threshold in (-1.0, 1.0):
        monkeypatch.setattr(local, "COMPACT_BELOW", threshold)
        assert batched == ids(rollout.generate(mixed_prompts(), 4, sampling, 5))


def test_replies_are_appended_to_existing_ones(model: ChatModel) -> None:
    existing = model.encode_reply("red", "truth")
    before = [Sample(s.uid, s.prompt, (existing,)) for s in mixed_prompts()]
    after = LocalRollout(model).generate(before, 2, Sampling(max_tokens=2), 0)
    assert all(s.replies[0] is existing and [r.origin for r in s.replies[1:]] == ["policy"] * 2 for s in after)
    assert all(len(s.replies) == 1 for s in before)
