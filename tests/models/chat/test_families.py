"""Every family behind `ChatModel` agrees with transformers: single rows, padded batches, sampling and training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.video_utils import VideoMetadata

from mmpost.config.settings import ComputeSettings, LoraSettings, ModelSettings, OptimSettings
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.errors import ConfigError
from mmpost.models.chat.model import ChatModel
from mmpost.objectives.likelihood import Likelihood
from mmpost.rollout.local import LocalRollout
from mmpost.training.context import TrainingContext
from mmpost.training.trainer import LocalEngine, denominators, optimizer_step
from mmpost.types import Part, Sample, Sampling
from mmpost.updates.adamw import AdamWUpdate
from tests.models.checkpoints import Checkpoints, typical_first
from tests.models.families import FAMILIES
from tests.models.samples import ODD_SIZE, mixed_prompts, random_image, random_medium, scenes

IMAGE_FAMILIES = [name for name in FAMILIES if FAMILIES[name].modality == "image"]
MODALITIES = {name: family.modality for name, family in FAMILIES.items()} | {
    "qwen2_vl with video": "video",
    "qwen2_5_vl with video": "video",
    "qwen3_vl with video": "video",
    "qwen2_5_omni with image": "image",
    "qwen2_5_omni with video": "video",
}
"""Modality of the test prompts by case: each family with its main modality, and some with others."""

each_case = pytest.mark.parametrize("name", MODALITIES)
typical_first_cases = pytest.mark.parametrize("name", typical_first(MODALITIES))
"""For mechanisms independent of the family: typical ones before each commit, all of them in the slow tests."""
each_image_family = pytest.mark.parametrize("name", IMAGE_FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints shared by all tests of this file."""
    return Checkpoints(tmp_path_factory.mktemp("families"))


def load(folder: Path, **settings: Any) -> ChatModel:
    return ChatModel.load(str(folder), ModelSettings(name=folder.name, device="cpu", **settings))


def flat(rows: list[list[list[float]]]) -> Tensor:
    return torch.tensor([v for sample in rows for reply in sample for v in reply])


def make_context(model: ChatModel) -> TrainingContext:
    return TrainingContext(model, LocalRollout(model), seed=3)


def transformers_inputs(model: ChatModel, sample: Sample) -> dict[str, Tensor]:
    """Model inputs made without mmpost, by the chat template and the processor of transformers."""
    messages: list[dict[str, Any]] = []
    media: dict[str, Any] = {}
    for part in sample.prompt:
        if not messages or messages[-1]["role"] != part.role:
            messages.append({"role": part.role, "content": []})
        messages[-1]["content"].append(
            {"type": part.modality} | ({"text": part.value} if part.modality == "text" else {})
        )
        if part.modality == "image":
            media.setdefault("images", []).append(part.value)
        if part.modality == "audio":
            media.setdefault("audio", []).append(part.value.open(rate=16000).wave)
        if part.modality == "video":
            video, header = part.value.open(), part.value.header()
            media.setdefault("videos", []).append(video.frames)
            media.setdefault("videos_kwargs", {"do_sample_frames": False, "video_metadata": []})
            media["videos_kwargs"]["video_metadata"].append(
                VideoMetadata(len(video.frames), header["fps"], frames_indices=list(range(len(video.frames))))
            )
    if "images" in media:
        media["images"] = [media["images"]]
    text = model.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = dict(
        model.processor(text=[text], **media, return_tensors="pt", add_special_tokens=model.prompt.needs_bos(text))
    )
    if "video_second_per_grid" in inputs:
        # The processor of Qwen2.5-Omni takes one rate for all videos and ignores their metadata.
        rates = [v.fps for v in media["videos_kwargs"]["video_metadata"]]
        inputs["video_second_per_grid"] = torch.tensor([2 / rate for rate in rates])
    return inputs


def unpadded_logp(module: Any, inputs: dict[str, Tensor], reply: tuple[int, ...], banned: tuple[int, ...]) -> Tensor:
    """Log-probs of `reply` from the logits of the module itself, in one unpadded row."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([reply])], dim=1)
    types = {k: torch.nn.functional.pad(v, (0, len(reply))) for k, v in inputs.items() if k.endswith("token_type_ids")}
    rest = {k: v for k, v in inputs.items() if k not in {"input_ids", "attention_mask", *types}}
    with torch.no_grad():
        logits = module(input_ids=ids, attention_mask=torch.ones_like(ids), **types, **rest).logits[0].float()
    logits[:, list(banned)] = -torch.inf
    return logits.log_softmax(-1)[-len(reply) - 1 : -1].gather(1, torch.tensor(reply)[:, None])[:, 0]


@each_case
def test_log_probs_of_sampling_training_and_transformers_agree(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    context = make_context(model)
    samples = context.generate(mixed_prompts(MODALITIES[name]), 2, Sampling(max_tokens=9))
    trained = context.logp(samples, "policy")
    for sample, rows in zip(samples, trained, strict=True):
        inputs = transformers_inputs(model, sample)
        assert inputs["input_ids"][0].tolist() == model.prompt(sample).ids.tolist()
        for reply, logp in zip(sample.replies, rows, strict=True):
            assert reply.token_ids is not None
            assert not set(reply.token_ids) & set(model.recipe.banned)
            torch.testing.assert_close(
                torch.tensor(logp), torch.tensor(reply.columns["behaviour_logp"]), atol=2e-5, rtol=0
            )
            reference = unpadded_logp(model.module, inputs, reply.token_ids, model.recipe.banned)
            torch.testing.assert_close(torch.tensor(logp), reference, atol=2e-5, rtol=0)


@each_case
def test_log_probs_depend_on_the_media(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    first, second = (
        Sample(str(i), (random_medium(MODALITIES[name], 56, 56, i), Part("text", "what"))) for i in range(2)
    )
    reply = model.encode_reply("yellow", "data")
    logp = make_context(model).logp([replace(s, replies=(reply,)) for s in (first, second)], "policy")
    assert max(abs(a - b) for a, b in zip(logp[0][0], logp[1][0], strict=True)) > 1e-3


@typical_first_cases
def test_greedy_replies_equal_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    module: Any = AutoModelForMultimodalLM.from_pretrained(folders[name], dtype=torch.float32)
    for sample in make_context(model).generate(
        mixed_prompts(MODALITIES[name]), 1, Sampling(max_tokens=10, temperature=0)
    ):
        inputs = transformers_inputs(model, sample)
        written = module.generate(
            **inputs, max_new_tokens=10, do_sample=False, suppress_tokens=list(model.recipe.banned)
        )
        assert written[0, inputs["input_ids"].shape[1] :].tolist() == list(sample.replies[0].token_ids or ())


def train_steps(model: ChatModel, samples: list[Sample], steps: int = 2, **settings: Any) -> list[float]:
    """Run supervised steps; returns the losses."""
    objective = Likelihood()
    update = AdamWUpdate(OptimSettings(lr=1e-3, **settings))
    update.start(model.module, model.parameter_groups(), steps)
    context, engine = make_context(model), LocalEngine(model.module, update)
    losses = []
    for _ in range(steps):
        optimizer_step(context, engine, objective, samples, denominators(objective, model, [samples])[0])
        losses.append(context.pop_metrics()["loss"])
    return losses


def with_replies(model: ChatModel, modality: str = "image") -> list[Sample]:
    return [replace(s, replies=(model.encode_reply("the blue one", "data"),)) for s in mixed_prompts(modality)]


def weights(model: ChatModel) -> dict[str, Tensor]:
    return {k: p.detach().clone() for k, p in model.module.named_parameters()}


def changed_parts(model: ChatModel, before: dict[str, Tensor]) -> set[str]:
    """Parts of the model with a changed weight."""
    current, parts = dict(model.module.named_parameters()), model.parameter_groups()
    changed = {k for k, p in before.items() if not torch.equal(p, current[k])}
    owner = {prefix: part for part, prefixes in parts.items() for prefix in prefixes}
    return {owner[max((p for p in owner if k == p or k.startswith(p + ".")), key=len)] for k in changed}


@typical_first_cases
def test_all_parts_train_and_the_model_still_generates(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    before = weights(model)
    losses = train_steps(model, with_replies(model, MODALITIES[name]))
    assert losses[1] < losses[0]
    unseen = {"image": {"audio"}, "video": {"audio"}, "audio": {"vision"}}[MODALITIES[name]]
    parts = FAMILIES[name.split()[0]].parts
    assert set(model.parameter_groups()) == parts
    assert changed_parts(model, before) >= parts - unseen - {"projector"}
    assert changed_parts(model, before) <= parts - unseen
    replies = [
        r
        for s in make_context(model).generate(mixed_prompts(MODALITIES[name]), 4, Sampling(max_tokens=8))
        for r in s.replies
    ]
    assert not {i for r in replies for i in r.token_ids or ()} & set(model.recipe.banned)


@typical_first_cases
def test_the_saved_model_equals_the_trained_one(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    model = load(folders[name])
    train_steps(model, with_replies(model, MODALITIES[name]), steps=1)
    model.save(tmp_path)
    module = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path)
    sample = mixed_prompts(MODALITIES[name])[2]
    inputs = transformers_inputs(model, sample)
    reloaded = ChatModel(module, processor, ModelSettings(device="cpu"))
    assert reloaded.recipe == model.recipe
    for key, value in transformers_inputs(reloaded, sample).items():
        torch.testing.assert_close(value, inputs[key], atol=0, rtol=0)
    model.module.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(**inputs).logits, model.module(**inputs).logits, atol=0, rtol=0)


@typical_first_cases
def test_adapters_train_alone_and_transformers_loads_them(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    model = load(folders[name])
    before = weights(model)
    Lora(LoraSettings(rank=4))(model)
    train_steps(model, with_replies(model, MODALITIES[name]), steps=2)
    trained = {k for k, p in model.module.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in k and k.startswith(tuple(model.parameter_groups()["language"])) for k in trained)
    current = {k.replace(".base_layer", ""): p for k, p in model.module.named_parameters()}
    assert all(torch.equal(p, current[k]) for k, p in before.items())
    model.save(tmp_path)
    module = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.float32)
    inputs = transformers_inputs(model, mixed_prompts(MODALITIES[name])[0])
    model.module.eval()
    with torch.no_grad():
        ours = model.module(**inputs).logits
        torch.testing.assert_close(module(**inputs).logits, ours, atol=0, rtol=0)
        plain = AutoModelForMultimodalLM.from_pretrained(folders[name], dtype=torch.float32)(**inputs).logits
    assert not torch.equal(plain, ours)
    reloaded = load(tmp_path)
    assert reloaded.recipe == model.recipe


@each_image_family
def test_frozen_parts_do_not_change(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    before = weights(model)
    Freeze(("vision",))(model)
    train_steps(model, with_replies(model), steps=1)
    assert changed_parts(model, before) == FAMILIES[name].parts - {"vision"}
    with pytest.raises(ConfigError, match="sight"):
        Freeze(("sight",))(model)


def gradients(model: ChatModel, modality: str) -> dict[str, Tensor]:
    """Gradients of the log-probs, which equal those of a pass without gradients whatever dropout is configured."""
    samples = with_replies(model, modality)
    logp = model(model.plan(samples, frozenset(), "batch")[0], frozenset({"logp"})).logp
    assert logp is not None
    torch.testing.assert_close(logp.detach(), flat(make_context(model).logp(samples, "policy")), atol=1e-5, rtol=0)
    (-logp.sum()).backward()
    return {k: p.grad.clone() for k, p in model.module.named_parameters() if p.grad is not None}


@typical_first_cases
def test_checkpointing_changes_no_gradient_and_no_reply(folders: dict[str, Path], name: str) -> None:
    plain, checkpointed = load(folders[name]), load(folders[name], gradient_checkpointing=True)
    expected, actual = gradients(plain, MODALITIES[name]), gradients(checkpointed, MODALITIES[name])
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, atol=1e-5, rtol=1e-4)
    replies = [
        make_context(m).generate(mixed_prompts(MODALITIES[name])[:3], 2, Sampling(max_tokens=5))
        for m in (plain, checkpointed)
    ]
    assert [[r.token_ids for r in s.replies] for s in replies[0]] == [
        [r.token_ids for r in s.replies] for s in replies[1]
    ]


@typical_first_cases
def test_bfloat16_keeps_float32_weights(folders: dict[str, Path], name: str) -> None:
    float32_model, bf16_model = load(folders[name]), load(folders[name], precision="bf16")
    samples = with_replies(float32_model, MODALITIES[name])
    a, b = (flat(make_context(m).logp(samples, "policy")) for m in (float32_model, bf16_model))
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, atol=0.3, rtol=0)
    losses = train_steps(bf16_model, samples)
    assert losses[1] < losses[0]
    assert {p.dtype for p in bf16_model.module.parameters()} == {torch.float32}
    generated = make_context(bf16_model).generate(samples, 1, Sampling(max_tokens=4))
    assert all(len(s.replies) == 2 for s in generated)


@each_image_family
def test_parameter_groups_special_tokens_and_coordinate_frames(folders: dict[str, Path], name: str) -> None:
    model, family = load(folders[name]), FAMILIES[name]
    ids = model.tokenizer.convert_tokens_to_ids
    assert set(model.recipe.banned) == {ids(t) for t in family.banned}
    assert model.recipe.end[0] == ids(family.end)
    assert set(model.recipe.end) <= {ids(family.end), model.tokenizer.eos_token_id}
    assert set(model.parameter_groups()) == family.parts
    frame = model.coordinate_frame(mixed_prompts()[3])
    assert frame is not None
    if family.frame == "resized":
        image = model.processor.image_processor
        _, h, w = model.processor(text=["<|image_pad|>"], images=[random_image(*ODD_SIZE)])["image_grid_thw"][0]
        assert (frame.width, frame.height) == (w * image.patch_size, h * image.patch_size) != ODD_SIZE
    else:
        assert (frame.width, frame.height) == {"thousand": (1000, 1000), "original": ODD_SIZE}[family.frame]
    assert model.coordinate_frame(mixed_prompts()[1]) is None


@each_image_family
def test_replies_are_encoded_as_by_the_chat_template(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    user_turn = (Part("text", "how many"),)
    reply = model.encode_reply("three", "data")
    assert reply.text == model.decode_reply(reply.token_ids or ()).text == "three"
    conversation = model.prompt.text((*user_turn, Part("text", "three", "assistant"), Part("text", "and")))
    prompt_and_reply = model.prompt.text(user_turn) + model.tokenizer.decode(reply.token_ids)
    assert conversation.startswith(prompt_and_reply) == FAMILIES[name].stable


@each_image_family
def test_special_strings_in_user_text_stay_text(folders: dict[str, Path], name: str) -> None:
    model, family = load(folders[name]), FAMILIES[name]
    image = Part("image", random_image(56, 56))
    injection = " ".join((*family.banned, family.end, "<|im_end|>", "<image>", "<|image_pad|>"))
    harmless, hostile = (Sample(t, (image, Part("text", t))) for t in ("find the", f"find {injection} the"))
    special = [i for t in model.tokenizer.all_special_tokens for i in [model.tokenizer.convert_tokens_to_ids(t)]]
    count = [sum(int(i) in special for i in model.prompt(s).ids) for s in (harmless, hostile)]
    assert count[0] == count[1]
    assert model.prompt.count_escaped_tokens(harmless) == 0
    assert model.prompt.count_escaped_tokens(hostile) >= len(family.banned) + 1
    reply = model.encode_reply(f"it is {injection}", "data")
    assert not set(reply.token_ids or ()) & set(model.recipe.banned)
    assert [i for i in reply.token_ids or () if i in model.recipe.end] == [model.recipe.end[0]]
    rows = make_context(model).logp([replace(s, replies=(reply,)) for s in (harmless, hostile)], "policy")
    assert torch.tensor(rows).isfinite().all()


@each_image_family
def test_pixel_budget(folders: dict[str, Path], name: str) -> None:
    sample = Sample("a", (Part("image", random_image(120, 120)), Part("text", "what")))
    length = len(load(folders[name]).prompt(sample).ids)
    if not FAMILIES[name].pixels:
        with pytest.raises(ConfigError, match="pixel budget"):
            load(folders[name], max_pixels=3600)
        return
    assert len(load(folders[name], max_pixels=3600).prompt(sample).ids) < length
    larger = load(folders[name], min_pixels=40000, max_pixels=50000)
    assert len(larger.prompt(sample).ids) > length
    assert larger.recipe.hash != load(folders[name]).recipe.hash
    with pytest.raises(ConfigError, match="max_pixels"):
        load(folders[name], min_pixels=5000, max_pixels=3600)


@each_image_family
def test_system_prompt(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name], system="think first")
    text = model.prompt.text(mixed_prompts()[0].prompt)
    assert text.count("think first") == 1
    with_own_system = model.prompt.text(mixed_prompts()[4].prompt)
    assert "be short" in with_own_system
    assert "think first" not in with_own_system
    assert "think first" not in load(folders[name]).prompt.text(mixed_prompts()[0].prompt)


@each_image_family
def test_micro_batches_change_no_log_prob(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    samples = [
        replace(s, replies=tuple(model.encode_reply(t, "data") for t in ("red", "green left"))) for s in scenes(3)
    ]
    batched = make_context(model).logp(samples, "policy")
    model.compute = ComputeSettings(max_replies_per_microbatch=1, logits_per_chunk=1)
    assert len(model.plan(samples, frozenset(), "reply")) == 6
    one_by_one = make_context(model).logp(samples, "policy")
    torch.testing.assert_close(flat(one_by_one), flat(batched), atol=1e-5, rtol=0)
