"""compute.reuse=auto against off, in every combination of how a model trains: log-probs and gradients, and a table.

`pytest -s tests/models/prefix/test_combinations.py` prints the largest differences of each combination.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmpost.config.settings import ComputeSettings, LoraSettings, ModelSettings
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.models.chat.model import ChatModel
from mmpost.types import Part, Sample
from tests.models.samples import film, picture

EXACT = 1e-5
"""Log-probs absolutely, gradients relatively."""

PROMPTS: dict[str, tuple[Part, ...]] = {
    "small": (Part("image", picture(56, 56)), Part("text", "what is in the image")),
    "wide": (Part("image", picture(140, 62, seed=1)), Part("text", "left or right")),
    "two": (Part("image", picture(30, 80, seed=2)), Part("image", picture(56, 56)), Part("text", "which is larger")),
    "video": (Part("video", film(84, 56, seed=3, frames=6)), Part("text", "and now")),
    "text": (Part("text", "count from one to three, please, and then stop at the last number"),),
}
BATCHES: dict[str, tuple[str, ...]] = {
    "one image": ("small",),
    "mixed sizes": ("small", "wide", "two"),
    "and a text-only row": ("small", "text", "wide", "two"),
    "and a video": ("small", "video", "text", "two"),
}
"""Prompts of each batch; `small` and `two` show one picture twice."""
REPLIES = ("three digits and a box", "no", "the blue one is left of the first")

Line = tuple[str, str, str, str, float, float, float, str]


@pytest.fixture(scope="module")
def lines() -> Iterator[list[Line]]:
    """The largest differences of each combination; shown when the last is done."""
    found: list[Line] = []
    yield found
    names = ("tower", "weights", "activations", "batch", "log-probs", "gradient", "its worst tensor")
    table = Table(*names, title="compute.reuse=auto against off: largest differences", title_justify="left")
    for *how, logp, whole, worst, name in found:
        table.add_row(*how, f"{logp:.1e}", f"{whole:.1e}", f"{worst:.1e} {name.removeprefix('model.')}")
    Console(width=160).print(table)


def load(folder: str, share: str, tower: str, adapters: str, checkpoints: str) -> ChatModel:
    settings = ModelSettings(name="tiny", device="cpu", gradient_checkpointing=checkpoints == "checkpointing")
    # Groups of three are cut, and a picture has readers in several micro-batches.
    compute = ComputeSettings.model_validate({"reuse": share, "max_replies_per_microbatch": 4})
    model = ChatModel.load(folder, settings, compute)
    torch.manual_seed(0)
    if adapters == "lora":
        parts = ("vision", "projector", "language") if tower == "trained" else ("language",)
        Lora(LoraSettings(rank=4, target_groups=parts))(model)
        for key, parameter in model.module.named_parameters():
            if "lora_B" in key:  # fresh adapters change nothing and let no gradient through
                torch.nn.init.normal_(parameter, std=0.1)
    elif tower == "frozen":
        Freeze(("vision", "projector"))(model)
    return model


def learn(model: ChatModel, batch: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs of all reply tokens, and the gradient of a sum of log-probs and entropies with weights of their own."""
    replies = tuple(model.encode_reply(text, "data") for text in REPLIES)
    samples = [replace(Sample(name, PROMPTS[name]), replies=replies) for name in BATCHES[batch]]
    model.module.zero_grad(set_to_none=True)
    found, rng = [], torch.Generator().manual_seed(0)
    plan = model.plan(samples, frozenset(), "reply")
    with model.step(plan):
        for part in plan:
            out = model(part, frozenset({"logp", "entropy"}))
            assert out.logp is not None
            assert out.entropy is not None
            weights = torch.rand(len(out.logp), 2, generator=rng) - 0.3  # token by token: the paths cut otherwise
            (weights * torch.stack([out.logp, out.entropy], dim=1)).sum().backward()
            found.append(out.logp.detach())
    return torch.cat(found), {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}


def differences(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[float, float, str]:
    """Of the whole gradient, and of the tensor that differs most with its name: norm of the difference over norm."""
    assert found.keys() == wanted.keys()
    norms = {name: float(g.norm()) for name, g in wanted.items()}
    off = {name: float((found[name] - g).norm()) for name, g in wanted.items()}
    whole = sum(n**2 for n in norms.values()) ** 0.5
    assert whole > 1
    # Some gradients are zero but for rounding, such as that of what moves all keys alike.
    each = {name: off[name] / max(norms[name], 1e-2 * whole) for name in off}
    worst = max(each, key=lambda name: each[name])
    return sum(n**2 for n in off.values()) ** 0.5 / whole, each[worst], worst


@pytest.mark.parametrize("checkpoints", ["kept", "checkpointing"])
@pytest.mark.parametrize("adapters", ["full", "lora"])
@pytest.mark.parametrize("tower", ["trained", "frozen"])
def test_sharing_changes_neither_log_probs_nor_gradients(
    tower: str, adapters: str, checkpoints: str, tiny_folder: str, lines: list[Line]
) -> None:
    plain, shared = (load(tiny_folder, share, tower, adapters, checkpoints) for share in ("off", "auto"))
    assert plain.no_prefix_reason
    assert not shared.no_prefix_reason
    assert shared.feature_cache.enabled
    assert shared.feature_cache.trainable == (tower == "trained")
    recomputes = any(getattr(m, "gradient_checkpointing", False) for m in shared.module.modules())
    assert recomputes == (checkpoints == "checkpointing")
    for batch in BATCHES:
        (logp, gradient), (wanted, of_plain) = learn(shared, batch), learn(plain, batch)
        assert any("visual" in name for name in gradient) == (tower == "trained")
        assert all("lora" in name for name in gradient) == (adapters == "lora")
        apart = float((logp - wanted).abs().max())
        whole, worst, name = differences(gradient, of_plain)
        lines.append((tower, adapters, checkpoints, batch, apart, whole, worst, name))
        assert apart <= EXACT
        assert max(whole, worst) <= EXACT
