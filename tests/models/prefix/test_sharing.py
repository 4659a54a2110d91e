"""Prefix sharing: the same log-probs, gradients and sampled replies as one prompt per reply, for every family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpost.config.settings import ComputeSettings, LoraSettings, ModelSettings
from mmpost.edits.lora import Lora
from mmpost.models.builtin.qwen_vl import write_tiny
from mmpost.models.chat import packing
from mmpost.models.chat.model import ChatModel
from mmpost.models.prefix.layout import Layout
from mmpost.rollout.local import LocalRollout
from mmpost.types import Batch, Part, Reply, Sample, Sampling
from tests.models.checkpoints import Checkpoints, typical_first
from tests.models.families import FAMILIES
from tests.models.samples import mixed_prompts, random_medium

MODALITIES = {name: family.modality for name, family in FAMILIES.items() if name != "gemma3"} | {
    f"{name} with video": "video" for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_omni")
}
CASES = list(MODALITIES)
REPLIES = (
    ("the blue one", "left", "three digits and a box"),
    ("no",),
    ("[10, 20]", "[10, 20]", "", "something else"),
    ("a", "red green blue"),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = Checkpoints(tmp_path_factory.mktemp("sharing"))
    write_tiny(folders.root / "tiny")
    folders["tiny"] = folders.root / "tiny"
    return folders


def load(folder: Path, **settings: object) -> ChatModel:
    return ChatModel.load(str(folder), ModelSettings(name=folder.name, device="cpu", **settings))  # type: ignore[arg-type]


def with_replies(model: ChatModel, modality: str = "image") -> list[Sample]:
    """Mixed prompts with ragged replies, and two prompts that differ only in the content of their medium."""
    twins = [Sample(f"t{i}", (random_medium(modality, 56, 84, i), Part("text", "which"))) for i in range(2)]
    samples = []
    for i, sample in enumerate([*mixed_prompts(modality), *twins]):
        texts = REPLIES[min(i, 5) % len(REPLIES)]
        replies = tuple(model.encode_reply(t, "data") if t else Reply((), "data", ()) for t in texts)
        one_token = replace(replies[0], token_ids=(replies[0].token_ids or ())[:1])
        samples.append(replace(sample, replies=(*replies, one_token) if i == 3 else replies))
    return samples


@contextmanager
def without_sharing(model: ChatModel) -> Iterator[None]:
    """Without prefix sharing: one copy of the prompt per reply."""
    reason, model.no_prefix_reason = model.no_prefix_reason, "for comparison"
    try:
        yield
    finally:
        model.no_prefix_reason = reason


def logps_and_gradients(
    model: ChatModel, samples: Sequence[Sample], unit: str = "reply"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs of all tokens, and gradients of a randomly weighted sum of log-probs and entropies."""
    model.module.zero_grad(set_to_none=True)
    logps, generator = [], torch.Generator().manual_seed(0)
    for batch in model.plan(samples, frozenset(), unit):
        out = model(batch, frozenset({"logp", "entropy"}))
        assert out.logp is not None
        assert out.entropy is not None
        weights = torch.rand(2, len(out.logp), generator=generator) - 0.3
        (weights * torch.stack([out.logp, out.entropy])).sum().backward()
        logps.append(out.logp.detach())
    return torch.cat(logps), {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}


def set_checkpointing(model: ChatModel, on: bool) -> None:
    """Switch gradient checkpointing, called activation checkpointing in newer releases of transformers."""
    name = "activation" if hasattr(model.module, "activation_checkpointing_enable") else "gradient"
    options = ({"use_reentrant": False},) if on else ()
    getattr(model.module, f"{name}_checkpointing_{'enable' if on else 'disable'}")(*options)


def assert_same(actual: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(actual[0], expected[0], atol=1e-5, rtol=0)
    assert actual[1].keys() == expected[1].keys()
    assert expected[1]
    total = float(torch.stack([g.norm() for g in expected[1].values()]).norm())
    for name, gradient in expected[1].items():
        # Some gradients are zero up to rounding, such as those of key biases.
        size = max(float(gradient.norm()), 1e-2 * total)
        assert float((actual[1][name] - gradient).norm()) <= 1e-5 * size, name


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", typical_first(CASES))
def test_log_probs_and_gradients_equal_those_without_sharing(folders: dict[str, Path], name: str, lora: bool) -> None:
    model = load(folders[name])
    assert model.no_prefix_reason == ""
    if lora:
        Lora(LoraSettings(rank=4))(model)
        for key, parameter in model.module.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.1)
    samples = with_replies(model, MODALITIES[name])
    parts = [prefix for part in ("vision", "audio") for prefix in model.parameter_groups().get(part, ())]
    encoder = [p for k, p in model.module.named_parameters() if k.startswith(tuple(parts))]
    for frozen in (True,) if lora else (False, True):
        for parameter in encoder if not lora else ():
            parameter.requires_grad_(not frozen)
        with without_sharing(model):
            expected = logps_and_gradients(model, samples)
        assert_same(logps_and_gradients(model, samples), expected)
        set_checkpointing(model, True)
        assert_same(logps_and_gradients(model, samples), expected)
        set_checkpointing(model, False)


def test_groups_split_across_micro_batches_and_units_are_kept(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"])
    samples = with_replies(model)
    unsplit = logps_and_gradients(model, samples, "batch")
    # The smallest budget that fits every reply with its prompt.
    min_budget = max(len(model.prompt(s).ids) + len(r.token_ids or ()) for s in samples for r in s.replies)
    model.compute = ComputeSettings(max_tokens_per_microbatch=min_budget)
    plan = model.plan(samples, frozenset(), "reply")
    assert all(model.num_tokens(b.inputs) <= min_budget for b in plan)
    uids = [[s.uid for s in b.inputs] for b in plan]
    assert any(a[-1] == b[0] for a, b in pairwise(uids))
    assert [r for b in plan for s in b.inputs for r in s.replies] == [r for s in samples for r in s.replies]
    split = logps_and_gradients(model, samples)
    model.compute = ComputeSettings(max_tokens_per_microbatch=10**6)
    with without_sharing(model):
        expected = logps_and_gradients(model, samples, "batch")
    torch.testing.assert_close(split[0], expected[0], atol=1e-5, rtol=0)
    assert_same(unsplit, expected)
    model.compute = ComputeSettings(max_tokens_per_microbatch=1)
    groups = [[len(s.replies) for s in b.inputs] for b in model.plan(samples, frozenset(), "group")]
    assert groups == [[len(s.replies)] for s in samples]
    model.compute = ComputeSettings(max_tokens_per_microbatch=10**6, max_replies_per_microbatch=2)
    assert all(sum(len(s.replies) for s in b.inputs) <= 2 for b in model.plan(samples, frozenset(), "reply"))


def test_each_prompt_is_computed_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["tiny"])
    reply = model.encode_reply("the blue one", "data")
    samples = [replace(s, replies=(reply,) * 6) for s in mixed_prompts()[:3]]
    plan = model.plan(samples, frozenset(), "reply")
    assert len(plan) == 1
    model(plan[0], frozenset({"logp"}))  # the first call also computes prompts for the check of the feature cache
    text_shapes, num_patches = [], []
    text, encoder = model.module.model.language_model, model.module.model.visual
    text.register_forward_pre_hook(lambda m, a, kw: text_shapes.append(kw["inputs_embeds"].shape), with_kwargs=True)
    encoder.register_forward_pre_hook(lambda m, a: num_patches.append(len(a[0])))
    model(plan[0], frozenset({"logp"}))
    length = sum(len(model.prompt(s).ids) for s in samples) + 18 * (len(reply.token_ids or ()) - 1)
    assert text_shapes == [(1, length, 128)]
    assert model.num_tokens(samples) == length
    assert sum(num_patches) == sum(len(model.prompt(s).media.get("pixel_values", ())) for s in samples)


def logp(model: ChatModel, batch: Batch) -> Tensor:
    values = model(batch, frozenset({"logp"})).logp
    assert values is not None
    return values


def with_merged_replies(layout: Layout) -> Layout:
    return Layout(tuple((g[0], sum(g[1:])) if g[1:] else g for g in layout.groups))


def test_wrong_layouts_are_detected(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance detects wrong positions, replies that attend to others, and wrong predictor indices."""
    model = load(folders["tiny"])
    samples = with_replies(model)
    stream, predictors, from_lengths = packing.packed_inputs, packing.predictor_indices, Layout.from_lengths

    def continued_positions(prompts: list, replies: list) -> dict[str, Tensor]:
        inputs = stream(prompts, replies)
        positions, start = inputs["position_ids"].clone(), 0
        for prompt, group in zip(prompts, replies, strict=True):
            fork = start + len(prompt.ids)
            start = fork + sum(len(r[:-1]) for r in group)
            positions[..., fork:start] = prompt.next_position + torch.arange(start - fork)
        return {**inputs, "position_ids": positions}

    def neighbour_indices(prompts: list, replies: list) -> Tensor:
        columns, start = predictors(prompts, replies), 0
        for group in replies:
            for reply in group:
                # Wrong: predicts the first token from the preceding token of the stream, not from the prompt.
                columns[start : start + 1] = columns[max(0, start - 1)]
                start += len(reply)
        return columns

    with torch.no_grad():
        batch = model.plan(samples, frozenset(), "batch")[0]
        correct = logp(model, batch)
        for target, name, wrong in (
            (packing, "packed_inputs", continued_positions),
            (packing, "predictor_indices", neighbour_indices),
            (Layout, "from_lengths", staticmethod(lambda groups: with_merged_replies(from_lengths(groups)))),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, wrong)
                assert float((logp(model, batch) - correct).abs().max()) > 1e-3, name
        torch.testing.assert_close(logp(model, batch), correct, atol=0, rtol=0)


@pytest.mark.parametrize("name", [*CASES, "tiny"])
def test_sampled_replies_equal_those_of_the_plain_decoder(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    # Many end tokens, so that replies finish, and prompts run out of live replies, at different steps.
    model.recipe = replace(model.recipe, end=(*model.recipe.end, *range(0, 300, 4)))
    sampling = Sampling(max_tokens=70 if name == "tiny" else 12, temperature=2.0)

    def sample_replies() -> list[Reply]:
        return [
            r
            for s in LocalRollout(model).generate(mixed_prompts(MODALITIES.get(name, "image")), 4, sampling, 5)
            for r in s.replies
        ]

    shared_replies = sample_replies()
    with without_sharing(model):
        plain_replies = sample_replies()
    assert len({len(r.token_ids or ()) for r in plain_replies}) > 3
    for a, b in zip(shared_replies, plain_replies, strict=True):
        assert a.token_ids == b.token_ids
        first, second = (torch.tensor(r.columns["behaviour_logp"]) for r in (a, b))
        torch.testing.assert_close(first, second, atol=2e-5, rtol=0)


def test_replies_longer_than_the_cache_block(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"])
    sampling = Sampling(max_tokens=150, temperature=1.0)
    sample = LocalRollout(model).generate(mixed_prompts()[:2], 2, sampling, 0)
    assert max(len(r.token_ids or ()) for s in sample for r in s.replies) > 128
    with torch.no_grad(), without_sharing(model):
        trained = logp(model, model.plan(sample, frozenset(), "batch")[0])
    written = torch.cat([torch.tensor(r.columns["behaviour_logp"]) for s in sample for r in s.replies])
    torch.testing.assert_close(trained, written, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings", "reason"), [("gemma3", {}, "sliding"), ("tiny", {"attn_implementation": "eager"}, "eager")]
)
def test_a_model_without_prefix_sharing_says_why(
    folders: dict[str, Path], name: str, settings: dict[str, str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(folders[name], **settings)
    assert reason in model.no_prefix_reason
    assert reason in capsys.readouterr().err
    text = model.module.config.get_text_config()
    assert text._attn_implementation == ("eager" if settings else "sdpa")


def test_a_model_with_other_results_falls_back_to_the_plain_path(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from_lengths = Layout.from_lengths
    monkeypatch.setattr(Layout, "from_lengths", staticmethod(lambda groups: with_merged_replies(from_lengths(groups))))
    model = load(folders["tiny"])
    assert "relative" in model.no_prefix_reason
    assert "relative" in capsys.readouterr().err
    assert model.module.config.get_text_config()._attn_implementation == "sdpa"


def test_bfloat16_sharing_stays_close(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"], precision="bf16")
    assert model.no_prefix_reason == ""
    samples = with_replies(model)
    actual = logps_and_gradients(model, samples)
    with without_sharing(model):
        expected = logps_and_gradients(model, samples)
    assert float((actual[0] - expected[0]).abs().max()) < 0.2
    assert float((actual[0] - expected[0]).abs().mean()) < 0.02


def test_the_saved_config_does_not_name_our_attention(folders: dict[str, Path], tmp_path: Path) -> None:
    load(folders["tiny"]).save(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()
