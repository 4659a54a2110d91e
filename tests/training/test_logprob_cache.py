"""The cache of reference log-probs for dataset replies: computed once, keyed by everything that they depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradients import GradientAccumulator
from PIL import Image

from mmpost.config.settings import ModelSettings
from mmpost.errors import TrainError
from mmpost.models.chat.model import ChatModel
from mmpost.objectives.policy import PolicyLoss
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.training.logprob_cache import LogprobCache
from mmpost.transforms.logprobs import ReferenceLogprobs
from mmpost.types import Part, Sample


@pytest.fixture(scope="module")
def model(tiny_folder: str) -> ChatModel:
    return ChatModel.load(tiny_folder, ModelSettings(name=tiny_folder, device="cpu"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    count: Counter[str] = Counter()
    call = ChatModel.__call__

    def counting(self: ChatModel, batch: Any, wants: Any) -> Any:
        count["replies"] += batch.replies
        return call(self, batch, wants)

    monkeypatch.setattr(ChatModel, "__call__", counting)
    return count


def context_with_cache(model: ChatModel, file: Path | None, *key_parts: Any) -> TrainingContext:
    context = TrainingContext(model, LocalRollout(model), 0)
    context.snapshot_weights("reference")
    if file is not None:
        context.logprob_caches["reference"] = LogprobCache(file, *key_parts)
    return context


def samples_with_replies(model: ChatModel, seed: int = 0) -> list[Sample]:
    """Two prompts, each with its own image and two dataset replies."""
    pixels = np.random.default_rng(seed).integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
    replies = (model.encode_reply("red", "data"), model.encode_reply("green left", "data"))
    return [
        Sample(f"{i}", (Part("image", Image.fromarray(p)), Part("text", "what")), replies) for i, p in enumerate(pixels)
    ]


def test_cached_log_probs_equal_computed_ones(model: ChatModel, tmp_path: Path, forwards: Counter[str]) -> None:
    plain = ReferenceLogprobs()(samples_with_replies(model), context_with_cache(model, None))
    assert forwards["replies"] == 4
    first = ReferenceLogprobs()(samples_with_replies(model), context_with_cache(model, tmp_path / "logp.sqlite"))
    assert forwards["replies"] == 8
    cached_context = context_with_cache(model, tmp_path / "logp.sqlite")
    cached = ReferenceLogprobs()(samples_with_replies(model), cached_context)
    assert forwards["replies"] == 8
    for samples in (first, cached):
        assert [[r.columns for r in s.replies] for s in samples] == [[r.columns for r in s.replies] for s in plain]
    loss, engine = PolicyLoss(beta=0.1), GradientAccumulator(model.module)
    ready = [replace(s, columns={"advantage": 1.0}) for s in cached]
    trainer.optimizer_step(cached_context, engine, loss, ready, trainer.denominators(loss, model, [ready])[0])
    assert engine.take().norm() > 0
    assert abs(cached_context.pop_metrics()["kl"]) < 1e-6  # the reference is the policy itself


def test_only_new_replies_are_computed(model: ChatModel, tmp_path: Path, forwards: Counter[str]) -> None:
    file, samples = tmp_path / "logp.sqlite", samples_with_replies(model)
    plain = context_with_cache(model, None).logp(samples, "reference")
    forwards.clear()
    context_with_cache(model, file).logp([replace(samples[1], replies=samples[1].replies[1:])], "reference")
    context_with_cache(model, file).logp(samples, "reference")
    assert forwards["replies"] == 1 + 3
    partly_cached = context_with_cache(model, file).logp(samples, "reference")
    assert forwards["replies"] == 4
    for a, b in zip(partly_cached, plain, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(torch.tensor(x), torch.tensor(y), atol=1e-5, rtol=0)


def test_the_cache_key_has_all_that_log_probs_depend_on(
    model: ChatModel, tmp_path: Path, forwards: Counter[str]
) -> None:
    file, samples = tmp_path / "logp.sqlite", samples_with_replies(model)[:1]

    def count_computed(samples: list[Sample], *key_parts: Any) -> int:
        forwards.clear()
        context_with_cache(model, file, *key_parts).logp(samples, "reference")
        return forwards["replies"]

    (sample,) = samples
    assert count_computed(samples) == 2
    assert count_computed(samples) == 0
    assert count_computed(samples_with_replies(model, seed=1)[:1]) == 2  # other pixels
    assert count_computed([replace(sample, prompt=(sample.prompt[0], Part("text", "why")))]) == 2
    at_half_temperature = tuple(replace(r, columns={"temperature": 0.5}) for r in sample.replies)
    assert count_computed([replace(sample, replies=at_half_temperature)]) == 2
    assert count_computed([replace(sample, replies=(model.encode_reply("blue", "data"),))]) == 1
    assert count_computed(samples, "another base") == 2
    sampled = tuple(replace(r, origin="policy") for r in sample.replies)
    assert count_computed([replace(sample, replies=sampled)]) == 2
    assert count_computed([replace(sample, replies=sampled)]) == 2  # never cached
    weight = model.module.get_output_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[7, 0] += 1e-3
        assert count_computed(samples) == 2
        weight.copy_(before)
    assert count_computed(samples) == 0


def test_a_changed_prompt_recipe_changes_the_cache_key(
    tiny_folder: str, tmp_path: Path, forwards: Counter[str]
) -> None:
    for number, system in enumerate(("be brief", "be long", "be brief")):
        other = ChatModel.load(tiny_folder, ModelSettings(name=tiny_folder, device="cpu", system=system))
        forwards.clear()
        context_with_cache(other, tmp_path / "logp.sqlite").logp(samples_with_replies(other), "reference")
        assert forwards["replies"] == (0 if number == 2 else 4)


def test_a_corrupt_cache_file_is_named(model: ChatModel, tmp_path: Path) -> None:
    (tmp_path / "logp.sqlite").write_bytes(b"not a data base, whatever its name says" * 100)
    with pytest.raises(TrainError, match=r"logp\.sqlite: wanted the kept log-probs.*delete the file"):
        context_with_cache(model, tmp_path / "logp.sqlite").logp(samples_with_replies(model), "reference")
