"""Media features computed once per distinct medium: values, gradients and call counts against encoding row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gradients import GradientAccumulator, relative
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
from tests.models.samples import mixed_prompts, random_image, random_medium

MODALITIES = {name: family.modality for name, family in FAMILIES.items()} | {
    f"{name} with video": "video" for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_omni")
}
each_case = pytest.mark.parametrize("name", typical_first(MODALITIES))
WITHOUT_AUDIO_FEATURES = ("qwen2_audio", "qwen2_5_omni")
"""Families whose forward takes no audio features: each row encodes its audio itself."""
NUM_DISTINCT = 5
"""Number of distinct media in `samples`."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            build(name.split()[0], root / name)
        return root / name

    return folder


def load(folder: Path, reuse: str = "auto", max_replies_per_microbatch: int = 3, **settings: Any) -> ChatModel:
    model_settings = ModelSettings(name=folder.name, device="cpu", **settings)
    compute = ComputeSettings.model_validate({"reuse": reuse, "max_replies_per_microbatch": max_replies_per_microbatch})
    return ChatModel.load(str(folder), model_settings, compute)


def samples(model: ChatModel) -> list[Sample]:
    """Mixed prompts with three replies each, and one medium again with another question."""
    modality = MODALITIES.get(model.settings.name, "image")
    repeated = Sample("again", (random_medium(modality, 56, 56), Part("text", "how many")))
    texts = ("the blue one", "yes", "no it is not")
    return [
        replace(s, replies=tuple(model.encode_reply(t, "data") for t in texts))
        for s in (*mixed_prompts(modality), repeated)
    ]


def gradient(model: ChatModel, batch_samples: Sequence[Sample]) -> Tensor:
    objective, engine = Likelihood(), GradientAccumulator(model.module)
    counts = trainer.denominators(objective, model, [batch_samples])[0]
    trainer.accumulate(TrainingContext(model, LocalRollout(model), 0), engine, objective, batch_samples, counts)
    return engine.take()


def logp(model: ChatModel, batch_samples: Sequence[Sample]) -> Tensor:
    rows = TrainingContext(model, LocalRollout(model), 0).logp(batch_samples, "policy")
    return torch.tensor([v for sample in rows for reply in sample for v in reply])


def count_distinct_media(model: ChatModel) -> int:
    """Number of distinct media inputs, which is how often the encoder must run."""
    return len({p.key for s in samples(model) for p in model.prompt(s).media_inputs})


def assert_close_gradient(actual: Tensor, expected: Tensor) -> None:
    assert float(expected.norm()) > 0
    assert relative(actual, expected) < 1e-5


@each_case
def test_values_and_gradients_equal_those_of_row_by_row(name: str, folders: Any) -> None:
    plain, shared = load(folders(name), "off"), load(folders(name))
    batch_samples = samples(plain)
    torch.testing.assert_close(logp(shared, batch_samples), logp(plain, batch_samples), atol=1e-5, rtol=0)
    assert_close_gradient(gradient(shared, batch_samples), gradient(plain, batch_samples))
    assert plain.feature_cache.num_encoded == 0
    if name in WITHOUT_AUDIO_FEATURES:
        assert shared.feature_cache.num_encoded == 0
        return
    assert shared.feature_cache.enabled, "the feature cache is off for this family"
    num_distinct = count_distinct_media(shared)
    assert shared.feature_cache.num_encoded == 2 * num_distinct  # one pass without gradient, one with
    if all(shared.prompt.media_cache._independent.values()):
        assert num_distinct == shared.prompt.media_cache.num_processed == NUM_DISTINCT


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
def test_gradients_in_every_training_mode_of_the_encoder(name: str, variant: str, folders: Any) -> None:
    settings, edits = VARIANTS[variant]
    gradients = []
    for reuse in ("off", "auto"):
        model = load(folders(name), reuse, **settings)
        torch.manual_seed(0)
        for edit in edits:
            edit(model)
        with torch.no_grad():  # LoRA B starts at zero, which blocks gradients
            for key, p in model.module.named_parameters():
                if "lora_B" in key:
                    p.add_(torch.randn(p.shape), alpha=0.1)
        gradients.append(gradient(model, samples(model)))
    assert_close_gradient(gradients[1], gradients[0])
    assert model.feature_cache.trainable == (variant != "tower and projector frozen")
    num_encoded = model.feature_cache.num_encoded
    assert num_encoded == NUM_DISTINCT
    repeated = gradient(model, samples(model))
    assert torch.equal(repeated, gradients[1])
    assert model.feature_cache.num_encoded == num_encoded + (NUM_DISTINCT if model.feature_cache.trainable else 0)


def test_a_cached_feature_is_bit_identical_to_encoding_its_image_alone(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    Freeze(("vision", "projector"))(model)
    prompts = [model.prompt(s) for s in mixed_prompts()]
    with torch.no_grad():
        for _ in range(2):  # cold, then warm
            cached = model.feature_cache.inputs(prompts)["mm_encoder_outputs"]["image"].pooler_output
            computed = [
                model.module.model.get_image_features(**p.load(), return_dict=True).pooler_output[0]
                for prompt in prompts
                for p in prompt.media_inputs
            ]
            assert all(torch.equal(a, b) for a, b in zip(cached, computed, strict=True))
    assert model.feature_cache.num_encoded == NUM_DISTINCT


def test_memory_is_bounded_and_results_do_not_depend_on_the_bound(tiny_folder: str) -> None:
    logps, calls = [], []
    for limit in (1 << 30, 9000, 0):
        compute = ComputeSettings(processed_cache_bytes=limit, feature_cache_bytes=limit)
        model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"), compute)
        Freeze(("vision", "projector"))(model)
        logps.append(torch.cat([logp(model, samples(model)) for _ in range(2)]))
        assert model.feature_cache._cache.used <= limit
        assert model.prompt.media_cache._cache.used <= limit
        calls.append(model.feature_cache.num_encoded)
    assert torch.equal(logps[0], logps[1])
    assert torch.equal(logps[0], logps[2])
    assert calls[0] == NUM_DISTINCT < calls[1] <= calls[2]


def test_the_feature_folder_is_reused_only_with_the_same_weights(tiny_folder: str, tmp_path: Path) -> None:
    def run(weight_offset: float = 0.0) -> tuple[int, Tensor]:
        model = ChatModel.load(
            tiny_folder, ModelSettings(device="cpu"), ComputeSettings(feature_cache_dir=str(tmp_path))
        )
        Freeze(("vision", "projector"))(model)
        with torch.no_grad():
            next(p for n, p in model.module.named_parameters() if n.startswith("model.visual")).add_(weight_offset)
        values = logp(model, samples(model))
        return model.feature_cache.num_encoded, values

    cold, warm, changed = run(), run(), run(0.1)
    assert (cold[0], warm[0], changed[0]) == (NUM_DISTINCT, 0, NUM_DISTINCT)
    assert torch.equal(cold[1], warm[1])
    assert not torch.equal(cold[1], changed[1])
    assert len(list(tmp_path.iterdir())) == 2 * NUM_DISTINCT


def test_features_follow_the_weights(tiny_folder: str) -> None:
    shared, plain = (load(Path(tiny_folder), s, 0) for s in ("auto", "off"))
    batch_samples = samples(plain)
    before = logp(shared, batch_samples)
    for model in (shared, plain):
        optimizer = torch.optim.AdamW([p for n, p in model.module.named_parameters() if "visual" in n], lr=1e-2)
        objective, engine = Likelihood(), GradientAccumulator(model.module)
        counts = trainer.denominators(objective, model, [batch_samples])[0]
        trainer.accumulate(TrainingContext(model, LocalRollout(model), 0), engine, objective, batch_samples, counts)
        optimizer.step()
    after = logp(shared, batch_samples)
    assert float((after - before).abs().max()) > 1e-3
    torch.testing.assert_close(after, logp(plain, batch_samples), atol=1e-3, rtol=0)  # Adam divides small differences
    assert shared.feature_cache.num_encoded == 3 * NUM_DISTINCT


def test_the_reference_uses_its_own_encoder(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    batch_samples, context = samples(model), TrainingContext(None, None, 0)  # type: ignore[arg-type]
    context.model = model
    before = context.logp(batch_samples, "policy")
    context.snapshot_weights("reference")
    with torch.no_grad():
        for name, p in model.module.named_parameters():
            if "visual" in name:
                p.mul_(1.1)
    after = context.logp(batch_samples, "policy")
    assert after != before
    assert context.logp(batch_samples, "reference") == before
    assert context.logp(batch_samples, "policy") == after


def test_bfloat16_gradients_are_as_accurate_as_row_by_row(folders: Any) -> None:
    exact = gradient(model := load(folders("qwen2_5_vl"), "off"), samples(model))
    plain, shared = (
        gradient(model := load(folders("qwen2_5_vl"), reuse, precision="bf16"), samples(model))
        for reuse in ("off", "auto")
    )
    assert float((shared - exact).norm()) < 1.1 * float((plain - exact).norm())


def test_a_model_that_ignores_features_encodes_row_by_row(tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, plain = (load(Path(tiny_folder), s, 0) for s in ("auto", "off"))
    forward = model.module.model.forward
    model.module.model.forward = lambda *args, mm_encoder_outputs=None, **kwargs: forward(*args, **kwargs)
    model.feature_cache._checked.clear()
    batch_samples = samples(model)
    torch.testing.assert_close(logp(model, batch_samples), logp(plain, batch_samples), atol=1e-5, rtol=0)
    logp(model, batch_samples)
    assert capsys.readouterr().err.count("each row encodes its image anew, since") == 1


def test_an_image_is_processed_once_for_all_questions(tiny_folder: str) -> None:
    model = ChatModel.load(tiny_folder, ModelSettings(device="cpu"))
    first = [Sample(str(i), (Part("image", random_image(56, 56)), Part("text", f"number {i}"))) for i in range(4)]
    pair = Sample(
        "pair", (Part("image", random_image(56, 56)), Part("image", random_image(84, 56, 1)), Part("text", "both"))
    )
    keys = {p.key for s in (*first, pair) for p in model.prompt(s).media_inputs}
    assert len(keys) == model.prompt.media_cache.num_processed == 2


def test_prefetching_changes_no_result(tiny_folder: str, tmp_path: Path) -> None:
    prefetching, plain = (ChatModel.load(tiny_folder, ModelSettings(device="cpu")) for _ in range(2))
    for model in (prefetching, plain):
        model.prompt(mixed_prompts()[0])
    missing = Sample("bad", (Part("image", tmp_path / "missing.png"), Part("text", "what")))
    prefetching.prefetch([*mixed_prompts(), missing])
    assert prefetching._prefetchers is not None
    prefetching._prefetchers.shutdown(wait=True)
    assert prefetching.prompt.media_cache.num_processed == NUM_DISTINCT
    for sample in mixed_prompts():
        for a, b in zip(prefetching.prompt(sample).media_inputs, plain.prompt(sample).media_inputs, strict=True):
            assert a.key == b.key
    assert prefetching.prompt.media_cache.num_processed == NUM_DISTINCT
    with pytest.raises(Exception, match=r"missing\.png"):
        prefetching.prompt(missing)


def test_a_run_processes_each_image_once_and_encodes_it_once_per_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processed: Counter[Any] = Counter()
    passes: list[tuple[bool, str]] = []
    process, after_step = ProcessedMediaCache._process, ChatModel.after_step
    encode_one, encode_all = EncoderFeatureCache._encode_one, EncoderFeatureCache._encode_all

    def counted_process(self: ProcessedMediaCache, group: Any, options: Any) -> Any:
        processed[tuple(m.hash for m in group)] += 1
        return process(self, group, options)

    def counted_encode_one(self: EncoderFeatureCache, media_inputs: MediaInput) -> Any:
        passes.append((torch.is_grad_enabled(), media_inputs.key))
        return encode_one(self, media_inputs)

    def counted_encode_all(self: EncoderFeatureCache, media_inputs: Sequence[MediaInput]) -> Any:
        before, calls = len(passes), self.num_calls
        features = encode_all(self, media_inputs)
        if len(passes) == before:  # otherwise _encode_one has counted
            assert self.num_calls - calls == bool(media_inputs)
            passes.extend((torch.is_grad_enabled(), p.key) for p in media_inputs)
        return features

    def counted_reset(self: EncoderFeatureCache) -> None:  # the start-up check does not count
        passes.clear()
        processed.clear()

    def checked_step(self: ChatModel) -> None:
        assert passes
        assert max(Counter(passes).values()) == 1  # one pass without gradient (rollout, old log-probs) and one with
        passes.clear()
        after_step(self)

    monkeypatch.setattr(ProcessedMediaCache, "_process", counted_process)
    monkeypatch.setattr(EncoderFeatureCache, "_encode_one", counted_encode_one)
    monkeypatch.setattr(EncoderFeatureCache, "_encode_all", counted_encode_all)
    monkeypatch.setattr(EncoderFeatureCache, "reset_counters", counted_reset)
    monkeypatch.setattr(ChatModel, "after_step", checked_step)
    task = {"name": "visurf", "prompts_per_step": 4, "scenes": 6, "num_generations": 2, "sampling": {"max_tokens": 4}}
    log = {"progress": False, "tensorboard": False, "samples_every": 0, "probe_every": 0}
    settings = {"model": {"name": "random-tiny"}, "eval": {"before": False, "after": False}, "log": log}
    mmpost.train(task=task, **settings, compute={"max_replies_per_microbatch": 3}, steps=4, out=str(tmp_path / "run"))
    assert len(processed) == 6
    assert max(processed.values()) == 1
