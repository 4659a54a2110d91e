"""Log-probs of the reference for replies of the data: computed once, and never found where they would be others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradients import Keep
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


def job(model: ChatModel, file: Path | None, *decides: Any) -> TrainingContext:
    made = TrainingContext(model, LocalRollout(model), 0)
    made.snapshot_weights("reference")
    if file is not None:
        made.logprob_caches["reference"] = LogprobCache(file, *decides)
    return made


def pairs(model: ChatModel, seed: int = 0) -> list[Sample]:
    """Two prompts with a picture of their own and two replies of the data each."""
    pixels = np.random.default_rng(seed).integers(0, 255, (2, 56, 56, 3), dtype=np.uint8)
    replies = (model.encode_reply("red", "data"), model.encode_reply("green left", "data"))
    return [
        Sample(f"{i}", (Part("image", Image.fromarray(p)), Part("text", "what")), replies) for i, p in enumerate(pixels)
    ]


def test_an_objective_gets_the_same_without_a_second_pass(
    model: ChatModel, tmp_path: Path, forwards: Counter[str]
) -> None:
    plain = ReferenceLogprobs()(pairs(model), job(model, None))
    assert forwards["replies"] == 4
    first = ReferenceLogprobs()(pairs(model), job(model, tmp_path / "logp.sqlite"))
    assert forwards["replies"] == 8
    again = job(model, tmp_path / "logp.sqlite")
    found = ReferenceLogprobs()(pairs(model), again)
    assert forwards["replies"] == 8
    for samples in (first, found):
        assert [[r.columns for r in s.replies] for s in samples] == [[r.columns for r in s.replies] for s in plain]
    loss, engine = PolicyLoss(beta=0.1), Keep(model.module)
    ready = [replace(s, columns={"advantage": 1.0}) for s in found]
    trainer.optimizer_step(again, engine, loss, ready, trainer.denominators(loss, model, [ready])[0])
    assert engine.take().norm() > 0
    assert abs(again.pop_metrics()["kl"]) < 1e-6  # the reference is the policy itself


def test_only_what_is_new_is_computed(model: ChatModel, tmp_path: Path, forwards: Counter[str]) -> None:
    file, samples = tmp_path / "logp.sqlite", pairs(model)
    plain = job(model, None).logp(samples, "reference")
    forwards.clear()
    job(model, file).logp([replace(samples[1], replies=samples[1].replies[1:])], "reference")
    job(model, file).logp(samples, "reference")
    assert forwards["replies"] == 1 + 3
    mixed = job(model, file).logp(samples, "reference")
    assert forwards["replies"] == 4
    for a, b in zip(mixed, plain, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(torch.tensor(x), torch.tensor(y), atol=1e-5, rtol=0)


def test_anything_that_log_probs_follow_from_is_another_row(
    model: ChatModel, tmp_path: Path, forwards: Counter[str]
) -> None:
    file, samples = tmp_path / "logp.sqlite", pairs(model)[:1]

    def computed(samples: list[Sample], *decides: Any) -> int:
        forwards.clear()
        job(model, file, *decides).logp(samples, "reference")
        return forwards["replies"]

    (sample,) = samples
    assert computed(samples) == 2
    assert computed(samples) == 0
    assert computed(pairs(model, seed=1)[:1]) == 2  # other pixels
    assert computed([replace(sample, prompt=(sample.prompt[0], Part("text", "why")))]) == 2
    warm = tuple(replace(r, columns={"temperature": 0.5}) for r in sample.replies)
    assert computed([replace(sample, replies=warm)]) == 2
    assert computed([replace(sample, replies=(model.encode_reply("blue", "data"),))]) == 1
    assert computed(samples, "another base") == 2
    sampled = tuple(replace(r, origin="policy") for r in sample.replies)
    assert computed([replace(sample, replies=sampled)]) == 2
    assert computed([replace(sample, replies=sampled)]) == 2  # never kept
    weight = model.module.get_output_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[7, 0] += 1e-3
        assert computed(samples) == 2
        weight.copy_(before)
    assert computed(samples) == 0


def test_other_prompts_of_the_recipe_are_other_rows(tiny_folder: str, tmp_path: Path, forwards: Counter[str]) -> None:
    for number, system in enumerate(("be brief", "be long", "be brief")):
        other = ChatModel.load(tiny_folder, ModelSettings(name=tiny_folder, device="cpu", system=system))
        forwards.clear()
        job(other, tmp_path / "logp.sqlite").logp(pairs(other), "reference")
        assert forwards["replies"] == (0 if number == 2 else 4)


def test_a_broken_file_is_named(model: ChatModel, tmp_path: Path) -> None:
    (tmp_path / "logp.sqlite").write_bytes(b"not a data base, whatever its name says" * 100)
    with pytest.raises(TrainError, match=r"logp\.sqlite: wanted the kept log-probs.*delete the file"):
        job(model, tmp_path / "logp.sqlite").logp(pairs(model), "reference")
