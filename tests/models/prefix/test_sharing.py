"""Prompts computed once for all their replies: the same log-probs, gradients and draws as without, for every family."""

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
from tests.models.samples import medium, mixed

KINDS = {name: family.kind for name, family in FAMILIES.items() if name != "gemma3"} | {
    f"{name} with video": "video" for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_omni")
}
SHARING = list(KINDS)
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


def answered(model: ChatModel, kind: str = "image") -> list[Sample]:
    """Prompts of every shape with ragged replies, and two that differ in nothing but the content of their medium."""
    twins = [Sample(f"t{i}", (medium(kind, 56, 84, i), Part("text", "which"))) for i in range(2)]
    samples = []
    for i, sample in enumerate([*mixed(kind), *twins]):
        texts = REPLIES[min(i, 5) % len(REPLIES)]
        replies = tuple(model.encode_reply(t, "data") if t else Reply((), "data", ()) for t in texts)
        one = replace(replies[0], token_ids=(replies[0].token_ids or ())[:1])
        samples.append(replace(sample, replies=(*replies, one) if i == 3 else replies))
    return samples


@contextmanager
def plain(model: ChatModel) -> Iterator[None]:
    """Every reply with its own copy of the prompt."""
    kept, model.no_prefix_reason = model.no_prefix_reason, "for comparison"
    try:
        yield
    finally:
        model.no_prefix_reason = kept


def learn(model: ChatModel, samples: Sequence[Sample], unit: str = "reply") -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs of all tokens, and the gradients of a sum of log-probs and entropies with weights of their own."""
    model.module.zero_grad(set_to_none=True)
    found, weight = [], torch.Generator().manual_seed(0)
    for batch in model.plan(samples, frozenset(), unit):
        out = model(batch, frozenset({"logp", "entropy"}))
        assert out.logp is not None
        assert out.entropy is not None
        share = torch.rand(2, len(out.logp), generator=weight) - 0.3
        (share * torch.stack([out.logp, out.entropy])).sum().backward()
        found.append(out.logp.detach())
    return torch.cat(found), {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}


def checkpointing(model: ChatModel, on: bool) -> None:
    """Newer releases of transformers call it activation checkpointing, and warn of the older name."""
    word = "activation" if hasattr(model.module, "activation_checkpointing_enable") else "gradient"
    how = ({"use_reentrant": False},) if on else ()
    getattr(model.module, f"{word}_checkpointing_{'enable' if on else 'disable'}")(*how)


def assert_same(found: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=0)
    assert found[1].keys() == wanted[1].keys()
    assert wanted[1]
    whole = float(torch.stack([g.norm() for g in wanted[1].values()]).norm())
    for name, gradient in wanted[1].items():
        # Some gradients are zero but for rounding, such as that of what moves all keys alike.
        size = max(float(gradient.norm()), 1e-2 * whole)
        assert float((found[1][name] - gradient).norm()) <= 1e-5 * size, name


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", typical_first(SHARING))
def test_log_probs_and_gradients_are_those_of_the_plain_path(folders: dict[str, Path], name: str, lora: bool) -> None:
    model = load(folders[name])
    assert model.no_prefix_reason == ""
    if lora:
        Lora(LoraSettings(rank=4))(model)
        for key, parameter in model.module.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.1)
    samples = answered(model, KINDS[name])
    parts = [prefix for part in ("vision", "audio") for prefix in model.parameter_groups().get(part, ())]
    tower = [p for k, p in model.module.named_parameters() if k.startswith(tuple(parts))]
    for frozen in (True,) if lora else (False, True):
        for parameter in tower if not lora else ():
            parameter.requires_grad_(not frozen)
        with plain(model):
            wanted = learn(model, samples)
        assert_same(learn(model, samples), wanted)
        checkpointing(model, True)
        assert_same(learn(model, samples), wanted)
        checkpointing(model, False)


def test_a_group_may_be_cut_and_units_hold(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"])
    samples = answered(model)
    whole = learn(model, samples, "batch")
    # The least that takes every reply with its prompt.
    most = max(len(model.prompt(s).ids) + len(r.token_ids or ()) for s in samples for r in s.replies)
    model.compute = ComputeSettings(max_tokens_per_microbatch=most)
    plan = model.plan(samples, frozenset(), "reply")
    assert all(model.num_tokens(b.inputs) <= most for b in plan)
    uids = [[s.uid for s in b.inputs] for b in plan]
    assert any(a[-1] == b[0] for a, b in pairwise(uids))
    assert [r for b in plan for s in b.inputs for r in s.replies] == [r for s in samples for r in s.replies]
    pieces = learn(model, samples)
    model.compute = ComputeSettings(max_tokens_per_microbatch=10**6)
    with plain(model):
        wanted = learn(model, samples, "batch")
    torch.testing.assert_close(pieces[0], wanted[0], atol=1e-5, rtol=0)
    assert_same(whole, wanted)
    model.compute = ComputeSettings(max_tokens_per_microbatch=1)
    groups = [[len(s.replies) for s in b.inputs] for b in model.plan(samples, frozenset(), "group")]
    assert groups == [[len(s.replies)] for s in samples]
    model.compute = ComputeSettings(max_tokens_per_microbatch=10**6, max_replies_per_microbatch=2)
    assert all(sum(len(s.replies) for s in b.inputs) <= 2 for b in model.plan(samples, frozenset(), "reply"))


def test_prompts_are_there_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["tiny"])
    reply = model.encode_reply("the blue one", "data")
    samples = [replace(s, replies=(reply,) * 6) for s in mixed()[:3]]
    plan = model.plan(samples, frozenset(), "reply")
    assert len(plan) == 1
    model(plan[0], frozenset({"logp"}))  # the first prompts are also computed for the check of their features
    seen, towered = [], []
    text, tower = model.module.model.language_model, model.module.model.visual
    text.register_forward_pre_hook(lambda m, a, kw: seen.append(kw["inputs_embeds"].shape), with_kwargs=True)
    tower.register_forward_pre_hook(lambda m, a: towered.append(len(a[0])))
    model(plan[0], frozenset({"logp"}))
    length = sum(len(model.prompt(s).ids) for s in samples) + 18 * (len(reply.token_ids or ()) - 1)
    assert seen == [(1, length, 128)]
    assert model.num_tokens(samples) == length
    assert sum(towered) == sum(len(model.prompt(s).media.get("pixel_values", ())) for s in samples)


def logp(model: ChatModel, batch: Batch) -> Tensor:
    found = model(batch, frozenset({"logp"})).logp
    assert found is not None
    return found


def merged(layout: Layout) -> Layout:
    return Layout(tuple((g[0], sum(g[1:])) if g[1:] else g for g in layout.groups))


def test_wrong_layouts_are_found(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance tells right from wrong: positions that go on, replies that see others, a wrong predictor."""
    model = load(folders["tiny"])
    samples = answered(model)
    stream, predictors, of = packing.packed_inputs, packing.predictor_indices, Layout.from_lengths

    def going_on(prompts: list, replies: list) -> dict[str, Tensor]:
        inputs = stream(prompts, replies)
        positions, start = inputs["position_ids"].clone(), 0
        for prompt, group in zip(prompts, replies, strict=True):
            fork = start + len(prompt.ids)
            start = fork + sum(len(r[:-1]) for r in group)
            positions[..., fork:start] = prompt.next_position + torch.arange(start - fork)
        return {**inputs, "position_ids": positions}

    def neighbours(prompts: list, replies: list) -> Tensor:
        columns, start = predictors(prompts, replies), 0
        for group in replies:
            for reply in group:
                # From its neighbour in a stream of whole replies, which is what stands before its second token.
                columns[start : start + 1] = columns[max(0, start - 1)]
                start += len(reply)
        return columns

    with torch.no_grad():
        batch = model.plan(samples, frozenset(), "batch")[0]
        right = logp(model, batch)
        for target, name, wrong in (
            (packing, "packed_inputs", going_on),
            (packing, "predictor_indices", neighbours),
            (Layout, "from_lengths", staticmethod(lambda groups: merged(of(groups)))),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, wrong)
                assert float((logp(model, batch) - right).abs().max()) > 1e-3, name
        torch.testing.assert_close(logp(model, batch), right, atol=0, rtol=0)


@pytest.mark.parametrize("name", [*SHARING, "tiny"])
def test_the_draws_are_those_of_the_plain_decoder(folders: dict[str, Path], name: str) -> None:
    model = load(folders[name])
    # Many tokens end a reply, so that replies leave the batch, and prompts run out of them, at different times.
    model.recipe = replace(model.recipe, end=(*model.recipe.end, *range(0, 300, 4)))
    sampling = Sampling(max_tokens=70 if name == "tiny" else 12, temperature=2.0)

    def drawn() -> list[Reply]:
        return [
            r for s in LocalRollout(model).generate(mixed(KINDS.get(name, "image")), 4, sampling, 5) for r in s.replies
        ]

    shared_ones = drawn()
    with plain(model):
        plain_ones = drawn()
    assert len({len(r.token_ids or ()) for r in plain_ones}) > 3
    for a, b in zip(shared_ones, plain_ones, strict=True):
        assert a.token_ids == b.token_ids
        one, other = (torch.tensor(r.columns["behaviour_logp"]) for r in (a, b))
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


def test_long_replies_outgrow_their_block(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"])
    sampling = Sampling(max_tokens=150, temperature=1.0)
    sample = LocalRollout(model).generate(mixed()[:2], 2, sampling, 0)
    assert max(len(r.token_ids or ()) for s in sample for r in s.replies) > 128
    with torch.no_grad(), plain(model):
        trained = logp(model, model.plan(sample, frozenset(), "batch")[0])
    written = torch.cat([torch.tensor(r.columns["behaviour_logp"]) for s in sample for r in s.replies])
    torch.testing.assert_close(trained, written, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "more", "why"), [("gemma3", {}, "sliding"), ("tiny", {"attn_implementation": "eager"}, "eager")]
)
def test_a_model_that_cannot_says_so(
    folders: dict[str, Path], name: str, more: dict[str, str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(folders[name], **more)
    assert why in model.no_prefix_reason
    assert why in capsys.readouterr().err
    text = model.module.config.get_text_config()
    assert text._attn_implementation == ("eager" if more else "sdpa")


def test_a_model_that_computes_something_else_is_caught(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = Layout.from_lengths
    monkeypatch.setattr(Layout, "from_lengths", staticmethod(lambda groups: merged(of(groups))))
    model = load(folders["tiny"])
    assert "relative" in model.no_prefix_reason
    assert "relative" in capsys.readouterr().err
    assert model.module.config.get_text_config()._attn_implementation == "sdpa"


def test_rough_arithmetic_stays_near(folders: dict[str, Path]) -> None:
    model = load(folders["tiny"], precision="bf16")
    assert model.no_prefix_reason == ""
    samples = answered(model)
    found = learn(model, samples)
    with plain(model):
        wanted = learn(model, samples)
    assert float((found[0] - wanted[0]).abs().max()) < 0.2
    assert float((found[0] - wanted[0]).abs().mean()) < 0.02


def test_what_is_saved_does_not_name_our_attention(folders: dict[str, Path], tmp_path: Path) -> None:
    load(folders["tiny"]).save(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()
