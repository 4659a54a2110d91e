"""compute.reuse=auto against off in every training configuration: log-probs and gradients, and a table.

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
from tests.models.samples import random_image, random_video

EXACT = 1e-5
"""Tolerance: absolute for log-probs, relative for gradients."""

PROMPTS: dict[str, tuple[Part, ...]] = {
    "small": (Part("image", random_image(56, 56)), Part("text", "what is in the image")),
    "wide": (Part("image", random_image(140, 62, seed=1)), Part("text", "left or right")),
    "two": (
        Part("image", random_image(30, 80, seed=2)),
        Part("image", random_image(56, 56)),
        Part("text", "which is larger"),
    ),
    "video": (Part("video", random_video(84, 56, seed=3, frames=6)), Part("text", "and now")),
    "text": (Part("text", "count from one to three, please, and then stop at the last number"),),
}
BATCHES: dict[str, tuple[str, ...]] = {
    "one image": ("small",),
    "mixed sizes": ("small", "wide", "two"),
    "and a text-only row": ("small", "text", "wide", "two"),
    "and a video": ("small", "video", "text", "two"),
}
"""Prompts of each batch; `small` and `two` share one image."""
REPLIES = ("three digits and a box", "no", "the blue one is left of the first")

TableRow = tuple[str, str, str, str, float, float, float, str]


@pytest.fixture(scope="module")
def table_rows() -> Iterator[list[TableRow]]:
    """The largest differences of each combination, printed as a table after the last one."""
    rows: list[TableRow] = []
    yield rows
    names = ("tower", "weights", "activations", "batch", "log-probs", "gradient", "its worst tensor")
    table = Table(*names, title="compute.reuse=auto against off: largest differences", title_justify="left")
    for *configuration, logp, total, worst, name in rows:
        table.add_row(*configuration, f"{logp:.1e}", f"{total:.1e}", f"{worst:.1e} {name.removeprefix('model.')}")
    Console(width=160).print(table)


def load(folder: str, reuse: str, encoder: str, adapters: str, checkpoints: str) -> ChatModel:
    settings = ModelSettings(name="tiny", device="cpu", gradient_checkpointing=checkpoints == "checkpointing")
    # Splits groups of three replies, so that an image is used in several micro-batches.
    compute = ComputeSettings.model_validate({"reuse": reuse, "max_replies_per_microbatch": 4})
    model = ChatModel.load(folder, settings, compute)
    torch.manual_seed(0)
    if adapters == "lora":
        parts = ("vision", "projector", "language") if encoder == "trained" else ("language",)
        Lora(LoraSettings(rank=4, target_groups=parts))(model)
        for key, parameter in model.module.named_parameters():
            if "lora_B" in key:  # LoRA B starts at zero, which blocks gradients
                torch.nn.init.normal_(parameter, std=0.1)
    elif encoder == "frozen":
        Freeze(("vision", "projector"))(model)
    return model


def logps_and_gradients(model: ChatModel, batch: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs of all reply tokens, and gradients of a randomly weighted sum of log-probs and entropies."""
    replies = tuple(model.encode_reply(text, "data") for text in REPLIES)
    samples = [replace(Sample(name, PROMPTS[name]), replies=replies) for name in BATCHES[batch]]
    model.module.zero_grad(set_to_none=True)
    logps, rng = [], torch.Generator().manual_seed(0)
    plan = model.plan(samples, frozenset(), "reply")
    with model.step(plan):
        for part in plan:
            out = model(part, frozenset({"logp", "entropy"}))
            assert out.logp is not None
            assert out.entropy is not None
            weights = (
                torch.rand(len(out.logp), 2, generator=rng) - 0.3
            )  # one row per token, because the two paths split batches differently
            (weights * torch.stack([out.logp, out.entropy], dim=1)).sum().backward()
            logps.append(out.logp.detach())
    return torch.cat(logps), {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}


def differences(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, float, str]:
    """Relative error of the full gradient, and of the worst tensor with its name."""
    assert actual.keys() == expected.keys()
    norms = {name: float(g.norm()) for name, g in expected.items()}
    errors = {name: float((actual[name] - g).norm()) for name, g in expected.items()}
    total = sum(n**2 for n in norms.values()) ** 0.5
    assert total > 1
    # Some gradients are zero up to rounding, such as those of key biases.
    each = {name: errors[name] / max(norms[name], 1e-2 * total) for name in errors}
    worst = max(each, key=lambda name: each[name])
    return sum(n**2 for n in errors.values()) ** 0.5 / total, each[worst], worst


@pytest.mark.parametrize("checkpoints", ["kept", "checkpointing"])
@pytest.mark.parametrize("adapters", ["full", "lora"])
@pytest.mark.parametrize("encoder", ["trained", "frozen"])
def test_sharing_changes_neither_log_probs_nor_gradients(
    encoder: str, adapters: str, checkpoints: str, tiny_folder: str, table_rows: list[TableRow]
) -> None:
    plain, shared = (load(tiny_folder, reuse, encoder, adapters, checkpoints) for reuse in ("off", "auto"))
    assert plain.no_prefix_reason
    assert not shared.no_prefix_reason
    assert shared.feature_cache.enabled
    assert shared.feature_cache.trainable == (encoder == "trained")
    recomputes = any(getattr(m, "gradient_checkpointing", False) for m in shared.module.modules())
    assert recomputes == (checkpoints == "checkpointing")
    for batch in BATCHES:
        (logp, gradient), (expected_logp, expected_gradient) = (
            logps_and_gradients(shared, batch),
            logps_and_gradients(plain, batch),
        )
        assert any("visual" in name for name in gradient) == (encoder == "trained")
        assert all("lora" in name for name in gradient) == (adapters == "lora")
        logp_error = float((logp - expected_logp).abs().max())
        total, worst, name = differences(gradient, expected_gradient)
        table_rows.append((encoder, adapters, checkpoints, batch, logp_error, total, worst, name))
        assert logp_error <= EXACT
        assert max(total, worst) <= EXACT
