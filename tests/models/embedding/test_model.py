"""Models of towers: what they compute, however it is cut up, saved or split over ranks."""

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
from gradients import Keep, relative
from towers_task import CLASSES, KINDS, Objects, described, write

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.data.media.media import media
from mmpost.edits.head import AddHead
from mmpost.edits.standardise import Standardise
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
    "infonce": Contrastive(modalities=KINDS),
    "astro": Contrastive(modalities=KINDS, half=False, reduce="sum"),
    "siglip": Contrastive(modalities=KINDS, loss="siglip", positives="label"),
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
    head = {"classes": CLASSES, "modalities": KINDS, "pooling": "average"}
    return write(tmp_path_factory.mktemp("towers") / "model", head=head, scale={"bias": -1.0})


def step(
    model: Embedder, objective: Objective, samples: list[Sample] | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Gradient and numbers of the log, on this rank's share."""
    job, engine = TrainingContext(model, LocalRollout(model), 0), Keep(model.module)
    mine = (samples or [Objects(22)[i] for i in range(22)])[distributed.rank() :: distributed.world()]
    (counts,) = trainer.denominators(objective, model, [mine])
    trainer.optimizer_step(job, engine, objective, mine, counts)
    return engine.take(), {k: v for k, v in job.pop_metrics().items() if not k.startswith("time/")}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_cached_micro_batches_are_the_full_batch(name: str, folder: str) -> None:
    whole, numbers = step(load(folder), OBJECTIVES[name])
    assert whole.norm() > 1e-3
    for micro in (1, 5):
        parts, of_parts = step(load(folder, micro), OBJECTIVES[name])
        assert relative(parts, whole) < 1e-5
        assert of_parts == pytest.approx(numbers, rel=1e-5)


def test_two_ranks_are_one(folder: str, tmp_path: Path) -> None:
    of_two = on_two_ranks(lambda: {name: step(load(folder, 4), o) for name, o in OBJECTIVES.items()}, tmp_path)
    for name, objective in OBJECTIVES.items():
        whole, numbers = step(load(folder), objective)
        gradient_of_two, numbers_of_two = of_two[name]
        assert relative(gradient_of_two, whole) < 1e-5, name
        assert numbers_of_two == pytest.approx(numbers, rel=1e-5), name


def test_scales_get_their_gradient_once(folder: str) -> None:
    def of_scales(micro: int) -> list[float]:
        model = load(folder, micro)
        job, engine = TrainingContext(model, LocalRollout(model), 0), Keep(model.module)
        samples = [Objects(22)[i] for i in range(22)]
        (counts,) = trainer.denominators(OBJECTIVES["infonce"], model, [samples])
        trainer.accumulate(job, engine, OBJECTIVES["infonce"], samples, counts)
        return [float(p.grad) for p in model.module.log_scale.values() if p.grad is not None]

    assert len(of_scales(0)) == 3
    assert of_scales(2) == pytest.approx(of_scales(0), rel=1e-5)


def test_dropout_is_drawn_alike_in_both_passes(tmp_path: Path) -> None:
    folder = write(tmp_path / "dropping", dropout=0.5)
    model = load(folder, 4)
    made: list[torch.Tensor] = []
    inner = model._embed

    def kept(*args: Any) -> torch.Tensor:
        made.append(inner(*args).detach())
        return inner(*args)

    model._embed = kept  # type: ignore[method-assign]
    step(model, OBJECTIVES["infonce"])
    half = len(made) // 2
    assert all(torch.equal(a, b) for a, b in zip(made[:half], made[half:], strict=True))
    again = load(folder, 4)
    torch.manual_seed(1)
    assert relative(step(again, OBJECTIVES["infonce"])[0], step(load(folder, 4), OBJECTIVES["infonce"])[0]) > 1e-3


def test_a_sample_alone_is_as_among_others(folder: str) -> None:
    job = TrainingContext(load(folder), LocalRollout(load(folder)), 0)
    samples = [Objects(9)[i] for i in range(9)]
    together, alone = job.embed(samples), [job.embed([s])[0] for s in samples]
    for sample, a, b in zip(samples, together, alone, strict=True):
        assert a.keys() == b.keys() == {p.modality for p in sample.prompt}
        for kind in a:
            torch.testing.assert_close(a[kind], b[kind], atol=1e-6, rtol=1e-5)
            assert float(a[kind].norm()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(job.class_logits(samples), torch.cat([job.class_logits([s]) for s in samples]))


def test_what_was_saved_is_what_is_loaded(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    Standardise(Objects(20))(model)
    model.save(tmp_path / "copy")
    copy = load(str(tmp_path / "copy"))
    assert copy.recipe.hash == model.recipe.hash
    assert bool(copy.module.fitted)
    samples = [Objects(9)[i] for i in range(9)]
    for a, b in zip(*(TrainingContext(m, LocalRollout(m), 0).embed(samples) for m in (model, copy)), strict=True):
        assert all(torch.equal(a[kind], b[kind]) for kind in a)
    assert isinstance(copy, Model)
    about = json.loads((tmp_path / "copy" / SPEC_FILE).read_text())
    about["model"] = "../evil.py"
    (tmp_path / "copy" / SPEC_FILE).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="wanted a name of"):
        load(str(tmp_path / "copy"))
    about |= {"model": "embedding", "dim": 9}
    (tmp_path / "copy" / SPEC_FILE).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="copy the folder again"):
        load(str(tmp_path / "copy"))


def test_scales_are_clamped_after_a_step_or_on_the_way_out(tmp_path: Path) -> None:
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
    ("kinds", "how", "size"), [(("row",), "features", 16), (KINDS, "average", 8), (KINDS, "concat", 24)]
)
def test_heads_read_features_or_embeddings(kinds: tuple[str, ...], how: Any, size: int, tmp_path: Path) -> None:
    model = load(write(tmp_path / "headless"))
    with pytest.raises(ConfigError, match="AddHead"):
        step(model, Classify())
    AddHead(CLASSES, kinds, how)(model)
    assert model.module.head is not None
    assert model.module.head.in_features == size
    assert model.parameter_groups()["head"] == ["head"]
    before = model.module.head.weight
    AddHead(CLASSES, kinds, how)(model)
    assert model.module.head.weight is before
    flat, numbers = step(model, Classify())
    assert flat.norm() > 0
    assert numbers["nll/sample"] == pytest.approx(numbers["loss"], rel=1e-5)
    model.save(tmp_path / "saved")
    assert load(str(tmp_path / "saved")).module.head is not None
    with pytest.raises(ConfigError, match="head: wanted one"):
        AddHead(CLASSES, ("row", "wave"), "features")(model)


def test_numbers_are_standardised_once_and_unknown_ones_are_the_mean(tmp_path: Path) -> None:
    model = load(write(tmp_path / "model"))
    source = Objects(30)
    Standardise(source)(model)
    scales: Any = model.module.towers["row"].scales
    rows = [p.value.open(scale=2.0) for i in range(30) for p in source[i].prompt if p.modality == "row"]
    np.testing.assert_allclose(scales.mean, np.mean(rows, 0), rtol=1e-4)
    np.testing.assert_allclose(scales.std, np.std(rows, 0), rtol=1e-4)
    before = scales.mean.clone()
    Standardise(Objects(30, 5))(model)
    assert torch.equal(scales.mean, before)
    x = torch.tensor(np.mean(rows, 0))[None]
    x[0, 2] = math.nan
    torch.testing.assert_close(scales(x), torch.zeros(1, 5), atol=1e-5, rtol=0)


def test_what_it_cannot_do_is_said(folder: str, tiny_folder: str) -> None:
    from mmpost.models.chat.model import ChatModel

    model = load(folder)
    job = TrainingContext(model, LocalRollout(model), 0)
    samples = [Objects(4)[i] for i in range(4)]
    with pytest.raises(ConfigError, match="writes no replies"):
        step(model, Likelihood(), [replace(s, replies=()) for s in samples])
    with pytest.raises(ConfigError, match="wanted a model that writes replies"):
        job.generate(samples, 1, Sampling())
    with pytest.raises(ConfigError, match="wanted a model that writes replies"):
        job.encode_reply("text", "data")
    with pytest.raises(DataError, match="'bare'"):
        model.validate(Sample("bare", ()))
    short = Part("row", media(np.zeros(4, np.float32), "row"))
    with pytest.raises(DataError, match=r"'short'.*wanted 5 numbers"):
        job.embed([*samples, Sample("short", (short,))])
    twice = replace(samples[1], prompt=samples[1].prompt[:1] * 2)
    with pytest.raises(DataError, match=r"one part of some of the modalities"):
        model.validate(twice)
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        open_model(folder, ModelSettings(name=folder, device="cpu", gradient_checkpointing=True))
    chat = ChatModel.load(tiny_folder, ModelSettings(name=tiny_folder, device="cpu"))
    with pytest.raises(ConfigError, match="AddHead"):
        AddHead(2, ("row",))(chat)


def test_micro_batches_keep_to_the_budget(folder: str) -> None:
    model = load(folder)
    samples = [Objects(22)[i] for i in range(22)]
    model.compute = ComputeSettings(max_tokens_per_microbatch=40)
    plan = model.plan(samples, frozenset({"label"}), "group")
    assert [uid for b in plan for uid in (s.uid for s in b.inputs)] == [s.uid for s in samples]
    assert all(model.num_tokens(b.inputs) <= 40 for b in plan)
    assert len(plan) < 22
    assert len(model.plan(samples, frozenset({"label"}), "batch")) == 1


def test_the_shapes_of_the_published_towers() -> None:
    settings = stars_spec(small=False)
    spectrum = GalSpecNet(GalSpecNetFields(dropout=0.0), "spectrum")
    assert spectrum.size == 1184
    assert spectrum(torch.zeros(2, 3, 2575)).shape == (2, 1184)
    assert settings.encoders["light_curve"]["constant"] == (3, 7)
    assert Informer(InformerFields(), "light_curve").size == 25600


def test_masked_steps_are_not_seen_and_never_written() -> None:
    curve = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    curve[..., -1] = (torch.arange(12) < 9).float()
    other = curve.clone()
    # The circular convolution alone looks one step over the edge, on both sides.
    other[:, 10, :-1] += 100.0
    for attention in ("full", "sparse"):
        fields = InformerFields(
            length=12, channels=3, dim=8, layers=2, heads=2, hidden=16, attention=attention, masked=True
        )
        tower = Informer(fields, "wave").eval()
        a, b = tower(curve).unflatten(1, (12, 8)), tower(other).unflatten(1, (12, 8))
        assert (a[:, 9:] == 0).all()
        assert a[:, :9].abs().sum() > 0
        torch.testing.assert_close(a, b)
        open_tower = Informer(fields.model_copy(update={"masked": False}), "wave").eval()
        open_tower.load_state_dict(tower.state_dict())
        assert not torch.allclose(open_tower(curve), a.flatten(1))
        assert not torch.allclose(open_tower(other), open_tower(curve))


def test_sparse_attention_can_be_repeated_and_is_full_when_all_queries_are_kept() -> None:
    curve = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    curve[..., -1] = 1
    fields = InformerFields(length=12, channels=3, dim=8, layers=2, heads=2, hidden=16, attention="sparse", dropout=0.0)
    tower = Informer(fields, "wave")
    tower.eval()
    assert torch.equal(tower(curve), tower(curve))
    tower.train()
    assert not torch.equal(tower(curve), tower(curve))
    full = Informer(fields.model_copy(update={"attention": "full"}), "wave")
    every = Informer(fields.model_copy(update={"factor": 4}), "wave")
    every.load_state_dict(full.state_dict())
    torch.testing.assert_close(every(curve), full(curve), atol=1e-5, rtol=1e-4)


def test_a_description_with_unknown_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        write("never", wave={"hiden": 3})
    assert described().encoders.keys() == set(KINDS)
