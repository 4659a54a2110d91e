"""Embedding models: outputs and gradients with micro-batches, ranks, saving and loading; heads, scales and errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import on_two_ranks
from gradients import GradientAccumulator, relative
from towers_task import CLASSES, MODALITIES, Objects, embedding_spec, write

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.data.media.media import media
from mmpost.edits.head import AddHead
from mmpost.edits.standardize import Standardize
from mmpost.errors import ConfigError, DataError
from mmpost.models.builtin.stars import stars_spec
from mmpost.models.embedding.encoders.galspecnet import GalSpecNet, GalSpecNetFields
from mmpost.models.embedding.encoders.informer import Informer, InformerFields
from mmpost.models.embedding.model import Embedder
from mmpost.models.embedding.spec import SPEC_FILE
from mmpost.models.opening import open_model
from mmpost.objectives.classify import Classify
from mmpost.objectives.contrastive import Contrastive
from mmpost.objectives.likelihood import Likelihood
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.types import Model, Objective, Part, Sample, Sampling

OBJECTIVES: Mapping[str, Objective] = {
    "infonce": Contrastive(modalities=MODALITIES),
    "astro": Contrastive(modalities=MODALITIES, half=False, reduce="sum"),
    "siglip": Contrastive(modalities=MODALITIES, loss="siglip", positives="label"),
    "classify": Classify(),
}


def load(folder: str, micro: int = 0) -> Embedder:
    model = open_model(
        folder, ModelSettings(name=folder, device="cpu"), ComputeSettings(max_replies_per_microbatch=micro)
    )
    assert isinstance(model, Embedder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    head = {"classes": CLASSES, "modalities": MODALITIES, "pooling": "average"}
    return write(tmp_path_factory.mktemp("towers") / "model", head=head, scale={"bias": -1.0})


def step(
    model: Embedder, objective: Objective, samples: list[Sample] | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Gradient and metrics of one step on the samples of this rank."""
    context, engine = TrainingContext(model, LocalRollout(model), 0), GradientAccumulator(model.module)
    local_samples = (samples or [Objects(22)[i] for i in range(22)])[distributed.rank() :: distributed.world()]
    (counts,) = trainer.denominators(objective, model, [local_samples])
    trainer.optimizer_step(context, engine, objective, local_samples, counts)
    return engine.take(), {k: v for k, v in context.pop_metrics().items() if not k.startswith("time/")}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_cached_micro_batches_equal_the_full_batch(name: str, folder: str) -> None:
    full, metrics = step(load(folder), OBJECTIVES[name])
    assert full.norm() > 1e-3
    for micro in (1, 5):
        accumulated, accumulated_metrics = step(load(folder, micro), OBJECTIVES[name])
        assert relative(accumulated, full) < 1e-5
        assert accumulated_metrics == pytest.approx(metrics, rel=1e-5)


def test_two_ranks_equal_one_rank(folder: str, tmp_path: Path) -> None:
    two_ranks = on_two_ranks(lambda: {name: step(load(folder, 4), o) for name, o in OBJECTIVES.items()}, tmp_path)
    for name, objective in OBJECTIVES.items():
        full, metrics = step(load(folder), objective)
        gradient_of_two, metrics_of_two = two_ranks[name]
        assert relative(gradient_of_two, full) < 1e-5, name
        assert metrics_of_two == pytest.approx(metrics, rel=1e-5), name


def test_logit_scales_get_their_gradient_once(folder: str) -> None:
    def scale_gradients(micro: int) -> list[float]:
        model = load(folder, micro)
        context, engine = TrainingContext(model, LocalRollout(model), 0), GradientAccumulator(model.module)
        samples = [Objects(22)[i] for i in range(22)]
        (counts,) = trainer.denominators(OBJECTIVES["infonce"], model, [samples])
        trainer.accumulate(context, engine, OBJECTIVES["infonce"], samples, counts)
        return [float(p.grad) for p in model.module.log_scale.values() if p.grad is not None]

    assert len(scale_gradients(0)) == 3
    assert scale_gradients(2) == pytest.approx(scale_gradients(0), rel=1e-5)


def test_dropout_masks_are_equal_in_both_passes(tmp_path: Path) -> None:
    folder = write(tmp_path / "dropping", dropout=0.5)
    model = load(folder, 4)
    embeddings: list[torch.Tensor] = []
    embed = model._embed

    def recorded_embed(*args: Any) -> torch.Tensor:
        embeddings.append(embed(*args).detach())
        return embed(*args)

    model._embed = recorded_embed  # type: ignore[method-assign]
    step(model, OBJECTIVES["infonce"])
    half = len(embeddings) // 2
    assert all(torch.equal(a, b) for a, b in zip(embeddings[:half], embeddings[half:], strict=True))
    other_seed = load(folder, 4)
    torch.manual_seed(1)
    assert relative(step(other_seed, OBJECTIVES["infonce"])[0], step(load(folder, 4), OBJECTIVES["infonce"])[0]) > 1e-3


def test_embeddings_do_not_depend_on_the_batch(folder: str) -> None:
    context = TrainingContext(load(folder), LocalRollout(load(folder)), 0)
    samples = [Objects(9)[i] for i in range(9)]
    batched, one_by_one = context.embed(samples), [context.embed([s])[0] for s in samples]
    for sample, a, b in zip(samples, batched, one_by_one, strict=True):
        assert a.keys() == b.keys() == {p.modality for p in sample.prompt}
        for modality in a:
            torch.testing.assert_close(a[modality], b[modality], atol=1e-6, rtol=1e-5)
            assert float(a[modality].norm()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(context.class_logits(samples), torch.cat([context.class_logits([s]) for s in samples]))


def test_a_saved_model_loads_equal(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    Standardize(Objects(20))(model)
    model.save(tmp_path / "copy")
    copy = load(str(tmp_path / "copy"))
    assert copy.recipe.hash == model.recipe.hash
    assert bool(copy.module.fitted)
    samples = [Objects(9)[i] for i in range(9)]
    for a, b in zip(*(TrainingContext(m, LocalRollout(m), 0).embed(samples) for m in (model, copy)), strict=True):
        assert all(torch.equal(a[modality], b[modality]) for modality in a)
    assert isinstance(copy, Model)
    spec = json.loads((tmp_path / "copy" / SPEC_FILE).read_text())
    spec["model"] = "../evil.py"
    (tmp_path / "copy" / SPEC_FILE).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match="wanted a name of"):
        load(str(tmp_path / "copy"))
    spec |= {"model": "embedding", "dim": 9}
    (tmp_path / "copy" / SPEC_FILE).write_text(json.dumps(spec))
    with pytest.raises(ConfigError, match="copy the folder again"):
        load(str(tmp_path / "copy"))


def test_logit_scales_are_clamped_after_a_step_or_in_the_forward(tmp_path: Path) -> None:
    model = load(write(tmp_path / "a"))
    scale = model.module.log_scale["wave-strip"]
    assert float(scale.detach()) == pytest.approx(math.log(1 / 0.07))
    for value, clamped in ((6.0, 4.605170), (-1.0, 0.0)):
        scale.data.fill_(value)
        model.after_step()
        assert float(scale.detach()) == pytest.approx(clamped)
    published = load(write(tmp_path / "b", scale={"init": math.log(100), "clamp": "forward"}))
    batch = published.plan([Objects(4)[1]], frozenset(), "group")[0]
    inside = published(batch, {"embeddings"}).aux["log_scale/wave-strip"]
    assert torch.autograd.grad(inside, [published.module.log_scale["wave-strip"]])[0] == 1
    published.module.log_scale["wave-strip"].data.fill_(6.0)
    published.after_step()
    outside = published(batch, {"embeddings"}).aux["log_scale/wave-strip"]
    assert float(outside.detach()) == pytest.approx(math.log(100))
    assert torch.autograd.grad(outside, [published.module.log_scale["wave-strip"]])[0] == 0
    shared = load(write(tmp_path / "c", scale={"shared": True}))
    assert shared(batch, {"embeddings"}).aux.keys() == {"log_scale"}


@pytest.mark.parametrize(
    ("modalities", "pooling", "size"),
    [(("row",), "features", 16), (MODALITIES, "average", 8), (MODALITIES, "concat", 24)],
)
def test_heads_read_features_or_embeddings(
    modalities: tuple[str, ...], pooling: Any, size: int, tmp_path: Path
) -> None:
    model = load(write(tmp_path / "headless"))
    with pytest.raises(ConfigError, match="AddHead"):
        step(model, Classify())
    AddHead(CLASSES, modalities, pooling)(model)
    assert model.module.head is not None
    assert model.module.head.in_features == size
    assert model.parameter_groups()["head"] == ["head"]
    before = model.module.head.weight
    AddHead(CLASSES, modalities, pooling)(model)
    assert model.module.head.weight is before
    gradient, metrics = step(model, Classify())
    assert gradient.norm() > 0
    assert metrics["nll/sample"] == pytest.approx(metrics["loss"], rel=1e-5)
    model.save(tmp_path / "saved")
    assert load(str(tmp_path / "saved")).module.head is not None
    with pytest.raises(ConfigError, match="head: wanted one"):
        AddHead(CLASSES, ("row", "wave"), "features")(model)


def test_inputs_are_standardized_once_and_nan_becomes_the_mean(tmp_path: Path) -> None:
    model = load(write(tmp_path / "model"))
    source = Objects(30)
    Standardize(source)(model)
    scales: Any = model.module.towers["row"].scales
    rows = [p.value.open(scale=2.0) for i in range(30) for p in source[i].prompt if p.modality == "row"]
    np.testing.assert_allclose(scales.mean, np.mean(rows, 0), rtol=1e-4)
    np.testing.assert_allclose(scales.std, np.std(rows, 0), rtol=1e-4)
    before = scales.mean.clone()
    Standardize(Objects(30, 5))(model)
    assert torch.equal(scales.mean, before)
    x = torch.tensor(np.mean(rows, 0))[None]
    x[0, 2] = math.nan
    torch.testing.assert_close(scales(x), torch.zeros(1, 5), atol=1e-5, rtol=0)


def test_unsupported_uses_are_refused(folder: str, tiny_folder: str) -> None:
    from mmpost.models.chat.model import ChatModel

    model = load(folder)
    context = TrainingContext(model, LocalRollout(model), 0)
    samples = [Objects(4)[i] for i in range(4)]
    with pytest.raises(ConfigError, match="writes no replies"):
        step(model, Likelihood(), [replace(s, replies=()) for s in samples])
    with pytest.raises(ConfigError, match="wanted a model that writes replies"):
        context.generate(samples, 1, Sampling())
    with pytest.raises(ConfigError, match="wanted a model that writes replies"):
        context.encode_reply("text", "data")
    with pytest.raises(ConfigError, match="wanted a model that writes replies"):
        context.attention(samples)
    with pytest.raises(DataError, match="'bare'"):
        model.validate(Sample("bare", ()))
    short = Part("row", media(np.zeros(4, np.float32), "row"))
    with pytest.raises(DataError, match=r"'short'.*wanted 5 numbers"):
        context.embed([*samples, Sample("short", (short,))])
    twice = replace(samples[1], prompt=samples[1].prompt[:1] * 2)
    with pytest.raises(DataError, match=r"one part of some of the modalities"):
        model.validate(twice)
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        open_model(folder, ModelSettings(name=folder, device="cpu", gradient_checkpointing=True))
    chat = ChatModel.load(tiny_folder, ModelSettings(name=tiny_folder, device="cpu"))
    with pytest.raises(ConfigError, match="AddHead"):
        AddHead(2, ("row",))(chat)


def test_micro_batches_stay_within_the_budget(folder: str) -> None:
    model = load(folder)
    samples = [Objects(22)[i] for i in range(22)]
    model.compute = ComputeSettings(max_tokens_per_microbatch=40)
    plan = model.plan(samples, frozenset({"label"}), "group")
    assert [uid for b in plan for uid in (s.uid for s in b.inputs)] == [s.uid for s in samples]
    assert all(model.num_tokens(b.inputs) <= 40 for b in plan)
    assert len(plan) < 22
    assert len(model.plan(samples, frozenset({"label"}), "batch")) == 1


def test_the_shapes_of_the_published_encoders() -> None:
    settings = stars_spec(small=False)
    spectrum = GalSpecNet(GalSpecNetFields(dropout=0.0), "spectrum")
    assert spectrum.size == 1184
    assert spectrum(torch.zeros(2, 3, 2575)).shape == (2, 1184)
    assert settings.encoders["light_curve"]["constant"] == (3, 7)
    assert Informer(InformerFields(), "light_curve").size == 25600


def test_masked_steps_are_neither_read_nor_written() -> None:
    curve = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    curve[..., -1] = (torch.arange(12) < 9).float()
    changed_padding = curve.clone()
    # Only the circular convolution reaches one step beyond the mask, on both sides.
    changed_padding[:, 10, :-1] += 100.0
    for attention in ("full", "sparse"):
        fields = InformerFields(
            length=12, channels=3, dim=8, layers=2, heads=2, hidden=16, attention=attention, masked=True
        )
        encoder = Informer(fields, "wave").eval()
        a, b = encoder(curve).unflatten(1, (12, 8)), encoder(changed_padding).unflatten(1, (12, 8))
        assert (a[:, 9:] == 0).all()
        assert a[:, :9].abs().sum() > 0
        torch.testing.assert_close(a, b)
        unmasked_encoder = Informer(fields.model_copy(update={"masked": False}), "wave").eval()
        unmasked_encoder.load_state_dict(encoder.state_dict())
        assert not torch.allclose(unmasked_encoder(curve), a.flatten(1))
        assert not torch.allclose(unmasked_encoder(changed_padding), unmasked_encoder(curve))


def test_sparse_attention_is_deterministic_in_eval_and_full_with_all_queries() -> None:
    curve = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    curve[..., -1] = 1
    fields = InformerFields(length=12, channels=3, dim=8, layers=2, heads=2, hidden=16, attention="sparse", dropout=0.0)
    encoder = Informer(fields, "wave")
    encoder.eval()
    assert torch.equal(encoder(curve), encoder(curve))
    encoder.train()
    assert not torch.equal(encoder(curve), encoder(curve))
    full = Informer(fields.model_copy(update={"attention": "full"}), "wave")
    all_queries = Informer(fields.model_copy(update={"factor": 4}), "wave")
    all_queries.load_state_dict(full.state_dict())
    torch.testing.assert_close(all_queries(curve), full(curve), atol=1e-5, rtol=1e-4)


def test_a_spec_with_unknown_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        write("never", wave={"hiden": 3})
    assert embedding_spec().encoders.keys() == set(MODALITIES)
