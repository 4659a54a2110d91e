"""Log-probabilities and entropies from hidden states, a chunk of tokens at a time.

Full logits [tokens, vocabulary] would be the largest tensor of a step; they never exist at once, nor does their
gradient.
"""

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

from mmpost.core.samples import at_least_fp32

Entropy = Literal["none", "value", "gradient"]


class StatisticsRequest(NamedTuple):
    """Which statistics are computed besides log-probs."""

    entropy: Entropy = "none"
    """"value": without gradient."""
    sum_p2: bool = False


class Statistics(NamedTuple):
    """Statistics of each token's distribution, fp32 or finer; None where not requested."""

    logp: Float[Tensor, " tok"]
    entropy: Float[Tensor, " tok"] | None
    sum_p2: Float[Tensor, " tok"] | None
    """Sum of the squared probabilities, without gradient."""


NEVER = -1e30
"""The logit of a banned token. Its probability is 0; with -inf the entropy would be 0 * inf = NaN."""


def processed_logprobs(
    logits: Float[Tensor, "tok vocab"], temperature: Float[Tensor, " tok"], banned: Bool[Tensor, " vocab"]
) -> Float[Tensor, "tok vocab"]:
    """Log-probabilities of the distribution that replies are sampled from: temperature applied, banned tokens removed.

    In fp32 or finer. All passes compute them this way, so that sampling-time, old, reference and current log-probs of
    the same weights agree.
    """
    return (at_least_fp32(logits) / temperature[:, None]).masked_fill(banned, NEVER).log_softmax(-1)


@dataclass(frozen=True)
class LanguageHead:
    """A model's output layer, and what the family does to its logits afterwards (such as soft capping)."""

    layer: torch.nn.Module
    after: Callable[[Tensor], Tensor]

    def __call__(self, hidden: Float[Tensor, "tok dim"]) -> Float[Tensor, "tok vocab"]:
        return self.after(self.layer(hidden))

    @property
    def linear(self) -> bool:
        """Whether the layer is a weight and a bias and nothing else: no adapter, no hook, no parametrization."""
        hooks = (self.layer._forward_hooks, self.layer._forward_pre_hooks, self.layer._backward_hooks)
        return type(self.layer) is torch.nn.Linear and not any(hooks)


def token_statistics(
    hidden: Float[Tensor, "tok dim"],
    targets: Int[Tensor, " tok"],
    temperature: Float[Tensor, " tok"],
    head: LanguageHead,
    banned: Bool[Tensor, " vocab"],
    budget: int,
    request: StatisticsRequest = StatisticsRequest(),  # noqa: B008
    closed_form: bool = True,
) -> Statistics:
    """Log-probability of each target, and the requested statistics of its distribution.

    At most `budget` logits (tokens x vocabulary) are in work at a time; two to three times as many fp32 numbers exist
    at the peak. `closed_form` computes gradients in closed form where the head is linear. Otherwise autograd recomputes
    the logits of each chunk in the backward pass, which is slower and takes more memory.
    """
    chunk = max(1, budget // banned.shape[0])
    if closed_form and head.linear and len(hidden):
        return _in_closed_form(hidden, targets, temperature, head, banned, chunk, request)

    def statistics(h: Tensor, t: Tensor, temp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logp = processed_logprobs(head(h), temp, banned)
        target_logp = logp.gather(-1, t[:, None]).squeeze(-1)
        entropy = sum_p2 = target_logp.detach()
        if request.sum_p2:
            sum_p2 = logp.detach().exp().square().sum(-1)
        if request.entropy != "none":
            logp = logp if request.entropy == "gradient" else logp.detach()
            entropy = -(logp.exp() * logp).sum(-1)
        return target_logp, entropy, sum_p2

    chunks = []
    for h, t, temp in zip(hidden.split(chunk), targets.split(chunk), temperature.split(chunk), strict=True):
        if torch.is_grad_enabled() and len(hidden) > chunk:
            chunks.append(checkpoint(statistics, h, t, temp, use_reentrant=False))
        else:
            chunks.append(statistics(h, t, temp))
    logp, entropy, sum_p2 = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return Statistics(logp, None if request.entropy == "none" else entropy, sum_p2 if request.sum_p2 else None)


# The closed form.


@dataclass(frozen=True)
class _Plan:
    """How a call computes its statistics, and what its backward pass needs of that."""

    after: Callable[[Tensor], Tensor] | None
    """`LanguageHead.after`; None for the identity."""
    banned: Int[Tensor, " ids"]
    chunk: int
    entropy: Entropy
    sum_p2: bool
    autocast_dtype: torch.dtype | None
    """Of matrix products with the head; None without autocast."""
    saved: Literal["nothing", "logp", "slope"]
    """What the forward pass saves besides its inputs.

    "slope": the gradient of each log-prob on its hidden state, where the head is frozen; the backward pass then needs
    no product with the head at all. "logp": the log-probs, where everything fits one chunk. "nothing": the backward
    pass recomputes the logits.
    """

    def cast(self, x: Tensor) -> Tensor:
        return x if self.autocast_dtype is None else x.to(self.autocast_dtype)

    def log_probs(self, raw: Float[Tensor, "tok vocab"], temperature: Float[Tensor, " tok"]) -> Tensor:
        """`processed_logprobs`, but in place: overwrites `raw` where `after` is None."""
        scores = at_least_fp32(raw if self.after is None else self.after(raw)).div_(temperature[:, None])
        return scores.index_fill_(1, self.banned, NEVER).log_softmax(-1)

    def to_raw(self, gradient: Tensor, raw: Tensor, temperature: Tensor) -> Float[Tensor, "tok vocab"]:
        """From the gradient on the scaled scores to that on `raw`, the output of the layer; overwrites `gradient`."""
        gradient = gradient.div_(temperature[:, None])
        if self.after is None:
            return self.cast(gradient)
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            (on_raw,) = torch.autograd.grad(self.after(leaf), leaf, gradient.to(raw.dtype))
        return self.cast(on_raw)


def _in_closed_form(
    hidden: Tensor,
    targets: Tensor,
    temperature: Tensor,
    head: LanguageHead,
    banned: Tensor,
    chunk: int,
    request: StatisticsRequest,
) -> Statistics:
    assert isinstance(head.layer, torch.nn.Linear)
    weight, bias = head.layer.weight, head.layer.bias
    device = hidden.device.type
    autocast_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    trains = weight.requires_grad or (bias is not None and bias.requires_grad)
    saved: Literal["nothing", "logp", "slope"] = "nothing"
    if torch.is_grad_enabled() and (trains or hidden.requires_grad):
        # The gradient of an entropy is another one: a saved slope serves log-probs only.
        if not trains and request.entropy != "gradient":
            saved = "slope"
        elif len(hidden) <= chunk:
            saved = "logp"
    probe = weight.new_zeros(1)
    after = None if head.after(probe) is probe else head.after
    banned_ids = banned.nonzero().squeeze(1)
    plan = _Plan(after, banned_ids, chunk, request.entropy, request.sum_p2, autocast_dtype, saved)
    # Casts are explicit (`_Plan.cast`), so that the backward pass, which autocast does not reach, computes alike.
    inputs = (hidden, weight, bias, targets, temperature)
    with torch.autocast(device, enabled=False):
        logp, entropy, sum_p2 = _ClosedForm.apply(*inputs, plan)  # type: ignore[misc]
    return Statistics(logp, None if request.entropy == "none" else entropy, sum_p2 if request.sum_p2 else None)


class _ClosedForm(torch.autograd.Function):
    """Log-probs, entropies and sums of squares with the gradient written out, so that autograd keeps no logits.

    With s the scaled scores of a token, p = softmax(s), H its entropy, and upstream gradients g on the log-prob and e
    on the entropy:

        dL/ds = g (onehot(target) - p) - e p (log p + H)

    From it the gradients on hidden states, weight and bias follow chunk by chunk.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
        targets, temperature, plan = rest
        w, b = plan.cast(weight), None if bias is None else plan.cast(bias)
        target_logp = at_least_fp32(hidden.new_empty(len(hidden)))
        entropy, sum_p2 = torch.zeros_like(target_logp), torch.zeros_like(target_logp)
        slope = torch.empty_like(hidden) if plan.saved == "slope" else None
        saved_logp = None
        for part in _chunks(len(hidden), plan.chunk):
            temp, target = temperature[part], targets[part, None]
            raw = linear(plan.cast(hidden[part]), w, b)
            logp = plan.log_probs(raw, temp)
            target_logp[part] = logp.gather(1, target).squeeze(1)
            saved_logp = logp if plan.saved == "logp" else None
            if plan.entropy != "none" or slope is not None or plan.sum_p2:
                p = logp.exp_() if plan.entropy == "none" and saved_logp is None else logp.exp()
                if plan.sum_p2:
                    sum_p2[part] = torch.linalg.vecdot(p, p)
                if plan.entropy != "none":
                    entropy[part] = -torch.linalg.vecdot(p, logp)
                if slope is not None:
                    p.neg_().scatter_add_(1, target, torch.ones_like(target, dtype=p.dtype))
                    slope[part] = plan.to_raw(p, raw, temp) @ w
                del p
            del raw, logp  # or they would still exist while the next chunk allocates its own
        ctx.plan = plan
        if plan.saved == "slope":
            ctx.save_for_backward(slope)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, temperature, entropy, saved_logp)
        ctx.mark_non_differentiable(*((sum_p2,) if plan.entropy == "gradient" else (entropy, sum_p2)))
        return target_logp, entropy, sum_p2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on_logp: Tensor, on_entropy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.plan.saved == "slope":
            (slope,) = ctx.saved_tensors
            return ((slope * on_logp[:, None]).to(slope.dtype), None, None, None, None, None)
        return (*_gradients(ctx, on_logp, on_entropy), None, None, None)


def _gradients(ctx: Any, on_logp: Tensor, on_entropy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """On hidden states, weight and bias, each None where not needed."""
    plan: _Plan = ctx.plan
    hidden, weight, bias, targets, temperature, entropy, saved_logp = ctx.saved_tensors
    needed = ctx.needs_input_grad
    w, b = plan.cast(weight), None if bias is None else plan.cast(bias)
    on_hidden = torch.empty_like(hidden) if needed[0] else None
    on_weight = torch.zeros_like(weight) if needed[1] else None
    on_bias = torch.zeros_like(bias) if bias is not None and needed[2] else None
    for part in _chunks(len(hidden), plan.chunk):
        temp, g = temperature[part], on_logp[part, None]
        h = plan.cast(hidden[part])
        # With saved log-probs and nothing after the head, `to_raw` does not read `raw`: any tensor will do.
        raw = linear(h, w, b) if saved_logp is None or plan.after is not None else hidden
        logp = plan.log_probs(raw, temp) if saved_logp is None else saved_logp
        # d = -p (g + e (log p + H)) here, plus g at the target below.
        if plan.entropy == "gradient":
            factor = (logp + entropy[part, None]).mul_(on_entropy[part, None]).add_(g)
            d = logp.exp().mul_(factor).neg_()
            del factor
        else:
            d = (logp.exp() if saved_logp is not None else logp.exp_()).mul_(-g)
        del logp
        d = plan.to_raw(d.scatter_add_(1, targets[part, None], g), raw, temp)
        del raw
        if on_hidden is not None:
            on_hidden[part] = d @ w
        if on_weight is not None:
            # Chunks accumulate in the precision of the weight, also where their products are in bf16.
            on_weight.addmm_(d.T, h) if d.dtype == on_weight.dtype else on_weight.add_(d.T @ h)
        if on_bias is not None:
            on_bias.add_(d.sum(0))
        del d
    return on_hidden, on_weight, on_bias


def _chunks(length: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, length, chunk)]
