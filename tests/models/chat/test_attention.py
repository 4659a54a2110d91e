"""The attention of reply tokens to media: planted maps, a second computation, shapes, and that it leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForMultimodalLM

from mmpost.config.settings import ComputeSettings, LoraSettings, ModelSettings
from mmpost.edits.lora import Lora
from mmpost.errors import ConfigError
from mmpost.models.chat import families
from mmpost.models.chat.model import ChatModel
from mmpost.rollout.local import LocalRollout
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Sample
from tests.models.chat.test_families import MODALITIES, transformers_inputs
from tests.models.checkpoints import Checkpoints, typical_first
from tests.models.samples import mixed_prompts

SIDE = 28
"""Pixels of one token's side in the tiny model: two patches of 14."""
PROJECTIONS = ("q_proj", "k_proj")
LOGIT = 5.0
"""The planted attention logit of the bright token; that of all others is 0."""


@pytest.fixture
def model(tiny_folder: str) -> ChatModel:
    """Newly loaded, since most tests change its weights or adapters."""
    return load(tiny_folder)


def load(folder: str, **settings: Any) -> ChatModel:
    return ChatModel.load(folder, ModelSettings(name="tiny", device="cpu", **settings))


def make_context(model: ChatModel) -> TrainingContext:
    return TrainingContext(model, LocalRollout(model), seed=3)


def with_replies(model: ChatModel, sample: Sample, *texts: str) -> Sample:
    return replace(sample, replies=tuple(model.encode_reply(t, "data") for t in texts))


def samples_of(model: ChatModel) -> list[Sample]:
    """Prompts with one image, none, and two, with replies of different lengths."""
    return [with_replies(model, s, "red", "green left of the box", "") for s in mixed_prompts()[:4]]


def attentions_of(model: ChatModel) -> list[Any]:
    """The attention modules of the language model, from the first layer to the last."""
    return [layer.self_attn for layer in model.module.model.language_model.layers]


def grid(rows: int, columns: int, bright: tuple[int, int] | None = None) -> Part:
    """A black image of `rows` x `columns` tokens, of which one may be white."""
    pixels = np.zeros((rows * SIDE, columns * SIDE, 3), np.uint8)
    if bright is not None:
        row, column = (SIDE * i for i in bright)
        pixels[row : row + SIDE, column : column + SIDE] = 255
    return Part("image", Image.fromarray(pixels))


def attend_alike(model: ChatModel) -> None:
    """All queries and keys are 0, and so are all attention logits."""
    with torch.no_grad():
        for attention in attentions_of(model):
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.zero_()
                projection.bias.zero_()


@torch.no_grad()
def attend_to_bright_tokens(model: ChatModel) -> None:
    """In every layer, the logit of each query is `LOGIT` for a white token of an image and 0 for anything else.

    The hidden states are the embeddings, of which channel 0 is 0 except for white tokens. Keys read that channel in the
    rotary dimension of the lowest frequency, which positions below 50 rotate by less than 0.01.
    """
    attend_alike(model)
    visual, text = model.module.model.visual, model.module.model.language_model
    text.embed_tokens.weight[:, 0] = 0
    for block in visual.blocks:
        for output in (block.attn.proj, block.mlp.down_proj):
            output.weight.zero_()
            output.bias.zero_()
    visual.patch_embed.proj.weight.zero_()
    visual.patch_embed.proj.weight[0] = 1.0
    for linear in (visual.merger.mlp[0], visual.merger.mlp[2]):
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[0, 0] = 1.0
    for layer, attention in zip(text.layers, attentions_of(model), strict=True):
        layer.mlp.down_proj.weight.zero_()
        attention.o_proj.weight.zero_()
        layer.input_layernorm.weight.fill_(1.0)
        dim, lowest = attention.head_dim, attention.head_dim // 2 - 1
        # A white token is a multiple of the first unit vector, which the norm scales to the root of its size.
        scale = math.sqrt(text.config.hidden_size) * attention.scaling
        attention.q_proj.bias[lowest::dim] = LOGIT / scale
        attention.k_proj.weight[lowest::dim, 0] = 1.0


def test_uniform_attention_is_one_over_the_tokens_so_far(model: ChatModel) -> None:
    attend_alike(model)
    prompt = (grid(2, 3), Part("text", "which is larger"), grid(1, 2), Part("text", "say"))
    sample = with_replies(model, Sample("a", prompt), "left", "the first one")
    length = len(model.prompt(sample).ids)
    (rows,) = make_context(model).attention([sample])
    for reply, weights in zip(sample.replies, rows, strict=True):
        tokens = len(reply.token_ids or ())
        expected = 1 / (length + 1 + torch.arange(tokens))
        torch.testing.assert_close(weights, expected[:, None].expand(-1, 6 + 2))
        torch.testing.assert_close(weights.sum(1), 8 * expected)


@pytest.mark.parametrize(
    "bright", [(0, (0, 0)), (0, (1, 2)), (1, (0, 1)), (1, (2, 0))], ids=["first", "end of first", "second", "last row"]
)
def test_a_planted_map_is_found_at_its_image_row_and_column(
    model: ChatModel, bright: tuple[int, tuple[int, int]]
) -> None:
    attend_to_bright_tokens(model)
    image, place = bright
    shapes = ((2, 3), (3, 2))
    images = [grid(*shape, bright=place if i == image else None) for i, shape in enumerate(shapes)]
    prompt = (images[0], Part("text", "which is larger"), images[1], Part("text", "say"))
    sample = with_replies(model, Sample("a", prompt), "left", "the first one")
    planted = image * 6 + place[0] * shapes[image][1] + place[1]
    (rows,) = make_context(model).attention([sample])
    for weights in rows:
        others = len(model.prompt(sample).ids) + torch.arange(len(weights))
        expected = (1 / (math.exp(LOGIT) + others))[:, None].repeat(1, 12)
        expected[:, planted] *= math.exp(LOGIT)
        torch.testing.assert_close(weights, expected, atol=0, rtol=1e-3)
        assert (weights.argmax(1) == planted).all()


@pytest.mark.parametrize("layers", [1 / 3, 0.5, 1.0])
def test_weights_are_the_softmax_of_queries_and_keys(model: ChatModel, layers: float) -> None:
    """Queries, keys and rotations are captured by hooks in the pass that computes log-probs, without eager attention.

    Of four layers, a third is one, and a half two.
    """
    (sample,) = [s for s in samples_of(model) if s.uid == "two"]
    sample = replace(sample, replies=sample.replies[1:2])
    prompt, reply = model.prompt(sample).ids, torch.tensor(sample.replies[0].token_ids)
    captured: dict[str, Any] = {}
    text = model.module.model.language_model
    watched = {f"{name} {i}": getattr(a, name) for i, a in enumerate(attentions_of(model)) for name in PROJECTIONS}
    handles = [
        module.register_forward_hook(lambda _, __, out, key=key: captured.update({key: out}))
        for key, module in {"rotary": text.rotary_emb, **watched}.items()
    ]
    # The log-probs of a token more: a pass leaves out the last token of the reply, which predicts nothing.
    longer = replace(sample.replies[0], token_ids=(*reply.tolist(), 1))
    make_context(model).logp([replace(sample, replies=(longer,))], "policy")
    for handle in handles:
        handle.remove()
    cos, sin = (t[0] for t in captured["rotary"])
    count = {3: 1, 2: 2, 1: 4}[round(1 / layers)]
    attentions = attentions_of(model)
    maps = []
    for i in range(len(attentions))[-count:]:
        dim = attentions[i].head_dim
        q, k = (rotated(captured[f"{name} {i}"][0].unflatten(-1, (-1, dim)), cos, sin) for name in PROJECTIONS)
        assert len(q) == len(prompt) + len(reply)
        logits = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(q.shape[1] // k.shape[1], 1)) / math.sqrt(dim)
        causal = torch.ones(len(q), len(q), dtype=torch.bool).tril()
        maps.append(logits.masked_fill(~causal, -torch.inf).softmax(-1).mean(0))
    is_image = pad(prompt == model.module.config.image_token_id, (0, len(reply)))
    expected = torch.stack(maps).mean(0)[len(prompt) :, is_image]
    torch.testing.assert_close(make_context(model).attention([sample], layers)[0][0], expected, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Checkpoints(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("name", typical_first(MODALITIES))
def test_equal_to_the_attentions_that_transformers_returns(folders: dict[str, Path], name: str) -> None:
    """Each [prompt | reply] as one row of a second copy of the model, of two layers, which is eager everywhere."""
    model = load(str(folders[name]))
    reference = AutoModelForMultimodalLM.from_pretrained(folders[name], attn_implementation="eager").eval()
    placeholders = torch.tensor(sorted(families.placeholder_ids(reference.config, model.processor)))
    samples = [with_replies(model, s, "red", "green left of the box") for s in mixed_prompts(MODALITIES[name])]
    before, context = implementations(model), make_context(model)
    for sample, last, both in zip(samples, context.attention(samples), context.attention(samples, 1.0), strict=True):
        inputs = transformers_inputs(model, sample)
        for i, reply in enumerate(sample.replies):
            tokens = len(reply.token_ids or ())
            ids = torch.cat([inputs["input_ids"], torch.tensor([reply.token_ids])], dim=1)
            types = {k: pad(v, (0, tokens)) for k, v in inputs.items() if k.endswith("token_type_ids")}
            rest = {k: v for k, v in inputs.items() if k not in {"input_ids", "attention_mask", *types}}
            mask = torch.ones_like(ids)
            with torch.no_grad():
                out = reference(input_ids=ids, attention_mask=mask, output_attentions=True, **types, **rest)
            columns = torch.isin(ids[0], placeholders)
            expected = torch.stack(out.attentions)[:, 0, :, -tokens:].mean(1)[..., columns]
            assert (expected.shape[-1] == 0) == (sample.uid == "text")
            torch.testing.assert_close(both[i], expected.mean(0), atol=1e-5, rtol=0)
            torch.testing.assert_close(last[i], expected[-1], atol=1e-5, rtol=0)
    assert implementations(model) == before


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x` [token, head, dim] by `cos` and `sin` [token, dim]."""
    a, b = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-b, a], -1) * sin[:, None]


def test_one_row_per_reply_token_and_one_column_per_media_token(model: ChatModel) -> None:
    samples = [*samples_of(model), replace(mixed_prompts()[0], replies=())]
    samples[0] = replace(samples[0], replies=(*samples[0].replies, replace(samples[0].replies[0], token_ids=())))
    attention = make_context(model).attention(samples)
    for sample, rows in zip(samples, attention, strict=True):
        media = int((model.prompt(sample).ids == model.module.config.image_token_id).sum())
        assert media == 0 if sample.uid == "text" else media > 0
        assert [tuple(w.shape) for w in rows] == [(len(r.token_ids or ()), media) for r in sample.replies]
        for weights in rows:
            assert weights.dtype == torch.float32
            assert weights.device.type == "cpu"
            assert not weights.requires_grad
            assert (weights.sum(1) < 1).all()
    assert len(attention[0][2]) == 1  # an empty reply still ends its turn
    alone = make_context(model).attention([replace(samples[2], replies=samples[2].replies[1:2])])
    assert torch.equal(alone[0][0], attention[2][1])


def implementations(model: ChatModel) -> list[str]:
    return [m.config._attn_implementation for m in model.module.modules() if hasattr(m, "config")]


@pytest.mark.parametrize(("name", "reuse"), [("sdpa", "auto"), ("sdpa", "off"), ("eager", "auto")])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_changes(
    tiny_folder: str, training: bool, name: Literal["sdpa", "eager"], reuse: Literal["auto", "off"]
) -> None:
    settings = ModelSettings(name="tiny", device="cpu", attn_implementation=name)
    model = ChatModel.load(tiny_folder, settings, ComputeSettings(reuse=reuse))
    samples, context = samples_of(model), make_context(model)
    logp, before = context.logp(samples, "policy"), implementations(model)
    generator = torch.get_rng_state()
    model.module.train(training)
    weight = attentions_of(model)[0].q_proj.weight
    weight.grad = torch.ones_like(weight)
    attentions_of(model)[1].q_proj.weight.requires_grad_(False)
    trainable = [p.requires_grad for p in model.module.parameters()]
    during: list[str] = []
    hooks = [
        block.attn.register_forward_hook(lambda m, *_: during.append(m.config._attn_implementation))
        for block in model.module.model.visual.blocks
    ]
    model.feature_cache._cache.clear()
    context.attention(samples)
    for hook in hooks:
        hook.remove()
    assert set(during) == {name}  # the vision encoder keeps its own
    assert implementations(model) == before
    assert {m.training for m in model.module.modules()} == {training}
    assert [p.requires_grad for p in model.module.parameters()] == trainable
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(p.grad is None for p in model.module.parameters() if p is not weight)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(m._forward_hooks for m in attentions_of(model))
    assert context.logp(samples, "policy") == logp


def test_gradients_after_it_are_the_same_bits(tiny_folder: str) -> None:
    """Also those of a trained vision encoder, whose features each step computes anew."""
    gradients = []
    for attends in (False, True):
        model = load(tiny_folder)
        samples, context = samples_of(model), make_context(model)
        for _ in range(2):  # weights change in between, and with them the features
            if attends:
                context.attention(samples)
            plan = model.plan(samples, frozenset(), "batch")
            with model.step(plan):
                logp = model(plan[0], frozenset({"logp"})).logp
                assert logp is not None
                logp.sum().backward()
            with torch.no_grad():
                for p in model.module.parameters():
                    p.add_(p.grad if p.grad is not None else 0, alpha=1e-4)
            model.after_step()
        gradients.append({k: p.grad for k, p in model.module.named_parameters() if p.grad is not None})
    assert any("visual" in k for k in gradients[0])
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[1][k], grad) for k, grad in gradients[0].items())


def test_adapters_are_part_of_the_model_and_their_dropout_is_off(model: ChatModel) -> None:
    samples, context = samples_of(model)[:1], make_context(model)
    plain = context.attention(samples)
    Lora(LoraSettings(target_groups=("vision", "language"), rank=2, dropout=0.5))(model)
    model.module.train()
    assert torch.equal(context.attention(samples)[0][1], plain[0][1])  # adapters start at 0
    with torch.no_grad():
        for parameter_name, p in model.module.named_parameters():
            if "lora_B" in parameter_name:
                p.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(parameter_name)))
    adapted = context.attention(samples)[0][1]
    assert (adapted - plain[0][1]).abs().max() > 1e-3
    assert torch.equal(context.attention(samples)[0][1], adapted)


def test_bfloat16_is_close_to_float32(tiny_folder: str) -> None:
    exact, rounded = (load(tiny_folder, precision=p) for p in ("fp32", "bf16"))
    a, b = (make_context(m).attention(samples_of(m))[2][1] for m in (exact, rounded))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0.05)


@pytest.fixture
def without_weights(model: ChatModel) -> Iterator[ChatModel]:
    """A model whose last layer returns no attention weights, as recurrent layers do."""
    hook = attentions_of(model)[-1].register_forward_hook(lambda _, __, out: (out[0], None))
    yield model
    hook.remove()


def test_layers_without_weights_are_left_out_or_refused(without_weights: ChatModel) -> None:
    model = without_weights
    samples, context = samples_of(model)[:1], make_context(model)
    before = implementations(model)
    with pytest.raises(ConfigError, match=r"wanted softmax attention in the last 0\.33 of the layers, found none"):
        context.attention(samples)
    assert implementations(model) == before
    assert context.attention(samples, 0.5)[0][0].shape[1] > 0


def test_wrong_use_is_refused(model: ChatModel) -> None:
    samples = samples_of(model)[:1]
    for layers in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="wanted a fraction of the layers"):
            make_context(model).attention(samples, layers)
    model._placeholders = frozenset()
    with pytest.raises(ConfigError, match="wanted the prompt's tokens that stand for media, found none"):
        make_context(model).attention(samples)
