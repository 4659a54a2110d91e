"""From hidden states to log-probabilities, a chunk of tokens at a time: whole logits never exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from mmpost.core.numerics import at_least_fp32

Entropy = Literal["none", "value", "gradient"]


class StatisticsRequest(NamedTuple):
    """Which statistics are computed besides log-probs."""

    entropy: Entropy = "none"
    sum_p2: bool = False


class Statistics(NamedTuple):
    """Of each token's distribution; None where nobody wants it."""

    logp: Float[Tensor, " tok"]
    entropy: Float[Tensor, " tok"] | None
    sum_p2: Float[Tensor, " tok"] | None
    """Sum of the squared probabilities, without gradient."""


NEVER = -1e30
"""The logit of a banned token: -inf would make 0 * inf in the entropy."""


def processed_logprobs(
    logits: Float[Tensor, "tok vocab"], temperature: Float[Tensor, " tok"], banned: Bool[Tensor, " vocab"]
) -> Float[Tensor, "tok vocab"]:
    """Log-probabilities of the distribution that replies are drawn from, in fp32 or finer: over temperature, bans out.

    Every pass uses it, so that behaviour, old, reference and current log-probs of the same weights agree.
    """
    return (at_least_fp32(logits) / temperature[:, None]).masked_fill(banned, NEVER).log_softmax(-1)


@dataclass(frozen=True)
class LanguageHead:
    """A model's output layer, and what the model does to each of its logits."""

    layer: torch.nn.Module
    after: Callable[[Tensor], Tensor]

    def __call__(self, hidden: Float[Tensor, "tok dim"]) -> Float[Tensor, "tok vocab"]:
        return self.after(self.layer(hidden))

    @property
    def linear(self) -> bool:
        """Whether its layer is a matrix and a bias, and nothing else: no adapter, no hook, no parametrization."""
        hooks = (self.layer._forward_hooks, self.layer._forward_pre_hooks, self.layer._backward_hooks)
        return type(self.layer) is torch.nn.Linear and not any(hooks)


def token_statistics(
    hidden: Float[Tensor, "tok dim"],
    targets: Int[Tensor, " tok"],
    temperature: Float[Tensor, " tok"],
    head: LanguageHead,
    banned: Bool[Tensor, " vocab"],
    budget: int,
    wanted: StatisticsRequest = StatisticsRequest(),  # noqa: B008
    closed: bool = True,
) -> Statistics:
    """Log-probability of each target, and what else is wanted of its distribution.

    At most `budget` logits (tokens x vocabulary) are worked on at one time; what exists at the same moment is two to
    three times as many fp32 numbers. `closed` takes the gradient in closed form where the head allows it; else
    autograd makes the logits of each chunk again in the backward pass, which is slower and takes more memory.
    """
    chunk = max(1, budget // banned.shape[0])
    if closed and head.linear and len(hidden):
        return _closed(hidden, targets, temperature, head, banned, chunk, wanted)

    def piece(h: Tensor, t: Tensor, temp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logp = processed_logprobs(head(h), temp, banned)
        picked = logp.gather(-1, t[:, None]).squeeze(-1)
        entropy = squares = picked.detach()
        if wanted.sum_p2:
            squares = logp.detach().exp().square().sum(-1)
        if wanted.entropy != "none":
            logp = logp if wanted.entropy == "gradient" else logp.detach()
            entropy = -(logp.exp() * logp).sum(-1)
        return picked, entropy, squares

    pieces = []
    for h, t, temp in zip(hidden.split(chunk), targets.split(chunk), temperature.split(chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden) > chunk:
            pieces.append(checkpoint(piece, h, t, temp, use_reentrant=False))
        else:
            pieces.append(piece(h, t, temp))
    picked, entropy, squares = (torch.cat(found) for found in zip(*pieces, strict=True))
    return Statistics(picked, None if wanted.entropy == "none" else entropy, squares if wanted.sum_p2 else None)


# The closed form.


@dataclass(frozen=True)
class _Plan:
    """How the statistics of a call are computed."""

    after: Callable[[Tensor], Tensor] | None
    """None where it does nothing."""
    banned: Int[Tensor, " ids"]
    chunk: int
    entropy: Entropy
    squares: bool
    dtype: torch.dtype | None
    """Of the products with the head, under autocast."""
    keep: Literal["nothing", "logp", "slope"]
    """What of the forward pass is kept beside its inputs: the log-probs, where one chunk is all; the gradient of each
    log-prob on its hidden state, where the head does not train; else nothing: the backward makes the logits again."""

    def cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def log_probs(self, raw: Float[Tensor, "tok vocab"], temperature: Float[Tensor, " tok"]) -> Tensor:
        """As `processed`, but in place: `raw` is lost unless something comes after the head."""
        scores = at_least_fp32(raw if self.after is None else self.after(raw)).div_(temperature[:, None])
        return scores.index_fill_(1, self.banned, NEVER).log_softmax(-1)

    def pull(self, gradient: Tensor, raw: Tensor, temperature: Tensor) -> Float[Tensor, "tok vocab"]:
        """From the gradient on the scaled scores to that on `raw`, the output of the matrix; changes `gradient`."""
        gradient = gradient.div_(temperature[:, None])
        if self.after is None:
            return self.cast(gradient)
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.after(leaf), leaf, gradient.to(raw.dtype))
        return self.cast(pulled)


def _closed(
    hidden: Tensor,
    targets: Tensor,
    temperature: Tensor,
    head: LanguageHead,
    banned: Tensor,
    chunk: int,
    wanted: StatisticsRequest,
) -> Statistics:
    assert isinstance(head.layer, torch.nn.Linear)
    weight, bias = head.layer.weight, head.layer.bias
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    trains = weight.requires_grad or (bias is not None and bias.requires_grad)
    keep: Literal["nothing", "logp", "slope"] = "nothing"
    if torch.is_grad_enabled() and (trains or hidden.requires_grad):
        if not trains and wanted.entropy != "gradient":
            keep = "slope"
        elif len(hidden) <= chunk:
            keep = "logp"
    probe = weight.new_zeros(1)
    after = None if head.after(probe) is probe else head.after
    plan = _Plan(after, banned.nonzero().squeeze(1), chunk, wanted.entropy, wanted.sum_p2, dtype, keep)
    with torch.autocast(device, enabled=False):
        logp, found, squares = _Closed.apply(hidden, weight, bias, targets, temperature, plan)  # type: ignore[misc]
    return Statistics(logp, None if wanted.entropy == "none" else found, squares if wanted.sum_p2 else None)


class _Closed(torch.autograd.Function):
    """With s the scaled scores of a token, p = softmax(s), H its entropy, upstream gradients g (logp) and e (entropy):

    dL/ds = g (onehot(target) - p) - e p (log p + H), pulled back chunk by chunk to hidden states, matrix and bias.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
        targets, temperature, plan = rest
        w, b = plan.cast(weight), None if bias is None else plan.cast(bias)
        picked = at_least_fp32(hidden.new_empty(len(hidden)))
        entropy, squares = torch.zeros_like(picked), torch.zeros_like(picked)
        slope = torch.empty_like(hidden) if plan.keep == "slope" else None
        kept = None
        for part in _parts(len(hidden), plan.chunk):
            temp, target = temperature[part], targets[part, None]
            raw = linear(plan.cast(hidden[part]), w, b)
            logp = plan.log_probs(raw, temp)
            picked[part] = logp.gather(1, target).squeeze(1)
            kept = logp if plan.keep == "logp" else None
            if plan.entropy != "none" or slope is not None or plan.squares:
                p = logp.exp_() if plan.entropy == "none" and kept is None else logp.exp()
                if plan.squares:
                    squares[part] = torch.linalg.vecdot(p, p)
                if plan.entropy != "none":
                    entropy[part] = -torch.linalg.vecdot(p, logp)
                if slope is not None:
                    p.neg_().scatter_add_(1, target, torch.ones_like(target, dtype=p.dtype))
                    slope[part] = plan.pull(p, raw, temp) @ w
                del p
            del raw, logp  # or they would be there beside those of the next chunk
        ctx.plan = plan
        if plan.keep == "slope":
            ctx.save_for_backward(slope)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, temperature, entropy, kept)
        ctx.mark_non_differentiable(*((squares,) if plan.entropy == "gradient" else (entropy, squares)))
        return picked, entropy, squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logp: Tensor, of_entropy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.plan.keep == "slope":
            (slope,) = ctx.saved_tensors
            return ((slope * of_logp[:, None]).to(slope.dtype), None, None, None, None, None)
        return (*_gradients(ctx, of_logp, of_entropy), None, None, None)


def _gradients(ctx: Any, of_logp: Tensor, of_entropy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """On hidden states, matrix and bias."""
    plan: _Plan = ctx.plan
    hidden, weight, bias, targets, temperature, entropy, kept = ctx.saved_tensors
    wants = ctx.needs_input_grad
    w, b = plan.cast(weight), None if bias is None else plan.cast(bias)
    of_hidden = torch.empty_like(hidden) if wants[0] else None
    of_weight = torch.zeros_like(weight) if wants[1] else None
    of_bias = torch.zeros_like(bias) if bias is not None and wants[2] else None
    for part in _parts(len(hidden), plan.chunk):
        temp, g = temperature[part], of_logp[part, None]
        h = plan.cast(hidden[part])
        raw = linear(h, w, b) if kept is None or plan.after is not None else hidden
        logp = plan.log_probs(raw, temp) if kept is None else kept
        if plan.entropy == "gradient":
            factor = (logp + entropy[part, None]).mul_(of_entropy[part, None]).add_(g)
            d = logp.exp().mul_(factor).neg_()
            del factor
        else:
            d = (logp.exp() if kept is not None else logp.exp_()).mul_(-g)
        del logp
        d = plan.pull(d.scatter_add_(1, targets[part, None], g), raw, temp)
        del raw
        if of_hidden is not None:
            of_hidden[part] = d @ w
        if of_weight is not None:
            # Chunks add up in the precision of the weights.
            of_weight.addmm_(d.T, h) if d.dtype == of_weight.dtype else of_weight.add_(d.T @ h)
        if of_bias is not None:
            of_bias.add_(d.sum(0))
        del d
    return of_hidden, of_weight, of_bias


def _parts(length: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, length, chunk)]
