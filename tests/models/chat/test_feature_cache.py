"""Vision features once per distinct picture: the same values and gradients as row by row, and the counts to show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gradients import Keep, relative
from torch import Tensor

import mmpost
from mmpost.config.settings import ComputeSettings, LoraSettings, ModelSettings
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.models.chat.feature_cache import EncoderFeatureCache
from mmpost.models.chat.model import ChatModel
from mmpost.models.media.processed_cache import MediaInput, ProcessedMediaCache
from mmpost.objectives.likelihood import Likelihood
from mmpost.rollout.local import LocalRollout
from mmpost.training import trainer
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Sample
from tests.models.checkpoints import typical_first
from tests.models.families import FAMILIES, build
from tests.models.samples import medium, mixed, picture

KINDS = {name: family.kind for name, family in FAMILIES.items()} | {
    f"{name} with video": "video" for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_omni")
}
each = pytest.mark.parametrize("name", typical_first(KINDS))
RAW = ("qwen2_audio", "qwen2_5_omni")
"""Their forward takes no features of this kind: each row brings its sound."""
PICTURES = 5
"""Distinct pictures of `samples`."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            build(name.split()[0], root / name)
        return root / name

    return folder


def load(folder: Path, share: str = "auto", max_replies_per_microbatch: int = 3, **settings: Any) -> ChatModel:
    chosen = ModelSettings(name=folder.name, device="cpu", **settings)
    compute = ComputeSettings.model_validate({"reuse": share, "max_replies_per_microbatch": max_replies_per_microbatch})
    return ChatModel.load(str(folder), chosen, compute)


def samples(model: ChatModel) -> list[Sample]:
    """Sizes, several pictures, none; three replies each, and one picture again under another question."""
    kind = KINDS.get(model.settings.name, "image")
    again = Sample("again", (medium(kind, 56, 56), Part("text", "how many")))
    texts = ("the blue one", "yes", "no it is not")
    return [replace(s, replies=tuple(model.encode_reply(t, "data") for t in texts)) for s in (*mixed(kind), again)]


def gradient(model: ChatModel, given: Sequence[Sample]) -> Tensor:
    objective, engine = Likelihood(), Keep(model.module)
    counts = trainer.denominators(objective, model, [given])[0]
    trainer.accumulate(TrainingContext(model, LocalRollout(model), 0), engine, objective, given, counts)
    return engine.take()


def logp(model: ChatModel, given: Sequence[Sample]) -> Tensor:
    rows = TrainingContext(model, LocalRollout(model), 0).logp(given, "policy")
    return torch.tensor([v for sample in rows for reply in sample for v in reply])


def pictures(model: ChatModel) -> int:
    """How often the tower runs where no picture is run twice."""
    return len({p.key for s in samples(model) for p in model.prompt(s).media_inputs})


def same(found: Tensor, wanted: Tensor) -> None:
    assert float(wanted.norm()) > 0
    assert relative(found, wanted) < 1e-5


@each
def test_values_and_gradients_are_those_of_row_by_row(name: str, folders: Any) -> None:
    plain, shared = load(folders(name), "off"), load(folders(name))
    given = samples(plain)
    torch.testing.assert_close(logp(shared, given), logp(plain, given), atol=1e-5, rtol=0)
    same(gradient(shared, given), gradient(plain, given))
    assert plain.feature_cache.num_encoded == 0
    if name in RAW:
        assert shared.feature_cache.num_encoded == 0
        return
    assert shared.feature_cache.enabled, "the family takes the plain path"
    distinct = pictures(shared)
    assert shared.feature_cache.num_encoded == 2 * distinct  # one pass without gradient, one with
    if all(shared.prompt.media_cache._independent.values()):
        assert distinct == shared.prompt.media_cache.num_processed == PICTURES


VARIANTS = {
    "checkpointing": ({"gradient_checkpointing": True}, ()),
    "adapters in the tower": ({}, (Lora(LoraSettings(rank=2, target_groups=("vision", "language"))),)),
    "tower frozen": ({}, (Freeze(("vision",)),)),
    "tower and projector frozen": ({}, (Freeze(("vision", "projector")),)),
    "all": (
        {"gradient_checkpointing": True},
        (Lora(LoraSettings(rank=2, target_groups=("vision", "projector", "language"))),),
    ),
}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_however_the_tower_trains(name: str, variant: str, folders: Any) -> None:
    settings, edits = VARIANTS[variant]
    found = []
    for share in ("off", "auto"):
        model = load(folders(name), share, **settings)
        torch.manual_seed(0)
        for edit in edits:
            edit(model)
        with torch.no_grad():  # fresh adapters change nothing and let no gradient through
            for key, p in model.module.named_parameters():
                if "lora_B" in key:
                    p.add_(torch.randn(p.shape), alpha=0.1)
        found.append(gradient(model, samples(model)))
    same(found[1], found[0])
    assert model.feature_cache.trainable == (variant != "tower and projector frozen")
    calls = model.feature_cache.num_encoded
    assert calls == PICTURES
    again = gradient(model, samples(model))
    assert torch.equal(again, found[1])
    assert model.feature_cache.num_encoded == calls + (PICTURES if model.feature_cache.trainable else 0)


def test_a_kept_feature_is_that_of_its_picture_alone_in_the_same_bits(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    Freeze(("vision", "projector"))(model)
    prompts = [model.prompt(s) for s in mixed()]
    with torch.no_grad():
        for _ in range(2):  # cold, then warm
            given = model.feature_cache.inputs(prompts)["mm_encoder_outputs"]["image"].pooler_output
            alone = [
                model.module.model.get_image_features(**p.load(), return_dict=True).pooler_output[0]
                for prompt in prompts
                for p in prompt.media_inputs
            ]
            assert all(torch.equal(a, b) for a, b in zip(given, alone, strict=True))
    assert model.feature_cache.num_encoded == PICTURES


def test_memory_is_bounded_and_bits_do_not_depend_on_it(tiny_folder: str) -> None:
    found, calls = [], []
    for limit in (1 << 30, 9000, 0):
        compute = ComputeSettings(processed_cache_bytes=limit, feature_cache_bytes=limit)
        model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"), compute)
        Freeze(("vision", "projector"))(model)
        found.append(torch.cat([logp(model, samples(model)) for _ in range(2)]))
        assert model.feature_cache._cache.used <= limit
        assert model.prompt.media_cache._cache.used <= limit
        calls.append(model.feature_cache.num_encoded)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert calls[0] == PICTURES < calls[1] <= calls[2]


def test_the_folder_serves_the_next_run_and_only_the_same_weights(tiny_folder: str, tmp_path: Path) -> None:
    def run(change: float = 0.0) -> tuple[int, Tensor]:
        model = ChatModel.load(
            tiny_folder, ModelSettings(device="cpu"), ComputeSettings(feature_cache_dir=str(tmp_path))
        )
        Freeze(("vision", "projector"))(model)
        with torch.no_grad():
            next(p for n, p in model.module.named_parameters() if n.startswith("model.visual")).add_(change)
        values = logp(model, samples(model))
        return model.feature_cache.num_encoded, values

    cold, warm, other = run(), run(), run(0.1)
    assert (cold[0], warm[0], other[0]) == (PICTURES, 0, PICTURES)
    assert torch.equal(cold[1], warm[1])
    assert not torch.equal(cold[1], other[1])
    assert len(list(tmp_path.iterdir())) == 2 * PICTURES


def test_features_follow_the_weights(tiny_folder: str) -> None:
    shared, plain = (load(Path(tiny_folder), s, 0) for s in ("auto", "off"))
    given = samples(plain)
    before = logp(shared, given)
    for model in (shared, plain):
        optimizer = torch.optim.AdamW([p for n, p in model.module.named_parameters() if "visual" in n], lr=1e-2)
        objective, engine = Likelihood(), Keep(model.module)
        counts = trainer.denominators(objective, model, [given])[0]
        trainer.accumulate(TrainingContext(model, LocalRollout(model), 0), engine, objective, given, counts)
        optimizer.step()
    after = logp(shared, given)
    assert float((after - before).abs().max()) > 1e-3
    torch.testing.assert_close(after, logp(plain, given), atol=1e-3, rtol=0)  # Adam divides small differences
    assert shared.feature_cache.num_encoded == 3 * PICTURES


def test_the_reference_is_seen_through_its_own_tower(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    given, context = samples(model), TrainingContext(None, None, 0)  # type: ignore[arg-type]
    context.model = model
    before = context.logp(given, "policy")
    context.snapshot_weights("reference")
    with torch.no_grad():
        for name, p in model.module.named_parameters():
            if "visual" in name:
                p.mul_(1.1)
    after = context.logp(given, "policy")
    assert after != before
    assert context.logp(given, "reference") == before
    assert context.logp(given, "policy") == after


def test_gradients_in_sixteen_bits_are_as_good_as_row_by_row(folders: Any) -> None:
    exact = gradient(model := load(folders("qwen2_5_vl"), "off"), samples(model))
    plain, shared = (
        gradient(model := load(folders("qwen2_5_vl"), share, precision="bf16"), samples(model))
        for share in ("off", "auto")
    )
    assert float((shared - exact).norm()) < 1.1 * float((plain - exact).norm())


def test_a_model_that_does_not_take_features_goes_the_plain_way(
    tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plain = (load(Path(tiny_folder), s, 0) for s in ("auto", "off"))
    forward = model.module.model.forward
    model.module.model.forward = lambda *args, mm_encoder_outputs=None, **kwargs: forward(*args, **kwargs)
    model.feature_cache._checked.clear()
    given = samples(model)
    torch.testing.assert_close(logp(model, given), logp(plain, given), atol=1e-5, rtol=0)
    logp(model, given)
    assert capsys.readouterr().err.count("each row encodes its image anew, since") == 1


def test_a_picture_is_processed_once_whatever_is_asked_about_it(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    first = [Sample(str(i), (Part("image", picture(56, 56)), Part("text", f"number {i}"))) for i in range(4)]
    pair = Sample("pair", (Part("image", picture(56, 56)), Part("image", picture(84, 56, 1)), Part("text", "both")))
    keys = {p.key for s in (*first, pair) for p in model.prompt(s).media_inputs}
    assert len(keys) == model.prompt.media_cache.num_processed == 2


def test_reading_ahead_changes_when_and_not_what(tiny_folder: str, tmp_path: Path) -> None:
    ahead, plain = (ChatModel.load(tiny_folder, ModelSettings(device="cpu")) for _ in range(2))
    for model in (ahead, plain):
        model.prompt(mixed()[0])
    bad = Sample("bad", (Part("image", tmp_path / "missing.png"), Part("text", "what")))
    ahead.prefetch([*mixed(), bad])
    assert ahead._prefetchers is not None
    ahead._prefetchers.shutdown(wait=True)
    assert ahead.prompt.media_cache.num_processed == PICTURES
    for sample in mixed():
        for a, b in zip(ahead.prompt(sample).media_inputs, plain.prompt(sample).media_inputs, strict=True):
            assert a.key == b.key
    assert ahead.prompt.media_cache.num_processed == PICTURES
    with pytest.raises(Exception, match=r"missing\.png"):
        ahead.prompt(bad)


def test_a_run_processes_each_image_once_and_runs_the_tower_once_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processed: Counter[Any] = Counter()
    passes: list[tuple[bool, str]] = []
    process, after_step = ProcessedMediaCache._process, ChatModel.after_step
    run, run_all = EncoderFeatureCache._encode_one, EncoderFeatureCache._encode_all

    def counted_process(self: ProcessedMediaCache, group: Any, options: Any) -> Any:
        processed[tuple(m.hash for m in group)] += 1
        return process(self, group, options)

    def counted_run(self: EncoderFeatureCache, shown: MediaInput) -> Any:
        passes.append((torch.is_grad_enabled(), shown.key))
        return run(self, shown)

    def counted_run_all(self: EncoderFeatureCache, shown: Sequence[MediaInput]) -> Any:
        before, calls = len(passes), self.num_calls
        found = run_all(self, shown)
        if len(passes) == before:  # else one by one
            assert self.num_calls - calls == bool(shown)
            passes.extend((torch.is_grad_enabled(), p.key) for p in shown)
        return found

    def counted_start(self: EncoderFeatureCache) -> None:  # what the start-up check looked at is not the run's
        passes.clear()
        processed.clear()

    def checked_step(self: ChatModel) -> None:
        assert passes
        assert max(Counter(passes).values()) == 1  # rollout and old log-probs together, and the training pass
        passes.clear()
        after_step(self)

    monkeypatch.setattr(ProcessedMediaCache, "_process", counted_process)
    monkeypatch.setattr(EncoderFeatureCache, "_encode_one", counted_run)
    monkeypatch.setattr(EncoderFeatureCache, "_encode_all", counted_run_all)
    monkeypatch.setattr(EncoderFeatureCache, "reset_counters", counted_start)
    monkeypatch.setattr(ChatModel, "after_step", checked_step)
    task = {"name": "visurf", "prompts_per_step": 4, "scenes": 6, "num_generations": 2, "sampling": {"max_tokens": 4}}
    quiet = {"progress": False, "tensorboard": False, "samples_every": 0, "probe_every": 0}
    settings = {"model": {"name": "random-tiny"}, "eval": {"before": False, "after": False}, "log": quiet}
    mmpost.train(task=task, **settings, compute={"max_replies_per_microbatch": 3}, steps=4, out=str(tmp_path / "run"))
    assert len(processed) == 6
    assert max(processed.values()) == 1
