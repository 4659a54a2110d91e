"""Attention over a packed stream: prompts are causal, each reply attends to its prompt and, causally, to itself.

Axes: `head` are query heads, `kv` key and value heads; `head / kv` query heads share one of the latter (GQA).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmpost.models.prefix.layout import Layout, PromptGroup

_flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_flash_backward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)

Queries = Float[Tensor, "1 head tok dim"]
Keys = Float[Tensor, "1 kv tok dim"]


def attend(q: Queries, k: Keys, v: Keys, layout: Layout, scale: float, last: bool) -> Float[Tensor, "1 tok head dim"]:
    """Attention over a packed stream.

    `last`: this is the model's last layer, where a prompt's last column is all of it that anything reads (it predicts
    the first reply tokens); the other rows of prompts may come out as zero.

    On the CPU a reply's attention to its prompt and to itself are computed separately and merged by their normalizers
    (`_PrefixAttention`), which neither repeats keys nor computes pairs that a mask would discard; elsewhere by
    `attend_masked`.
    """
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if q.device.type == "cpu" and _flash is not None and _flash_backward is not None:
        return _PrefixAttention.apply(q, k, v, layout, scale, last)  # type: ignore[no-any-return]
    return attend_masked(q, k, v, layout, scale)


def attend_masked(q: Queries, k: Keys, v: Keys, layout: Layout, scale: float) -> Float[Tensor, "1 tok head dim"]:
    """The same by torch's attention: a group's replies as padded rows, each with a copy of the prompt's keys first."""
    sizes = [n for group in layout.prompt_groups for n in (group.fork - group.start, group.stop - group.fork)]
    pieces = [iter(x.split(sizes, dim=2)) for x in (q, k, v)]
    heads, outputs = q.shape[1], []
    for group in layout.prompt_groups:
        prompt, replies = [next(p) for p in pieces], [next(p) for p in pieces]
        keys, values = (_repeat_kv(x, heads) for x in prompt[1:])
        out = scaled_dot_product_attention(prompt[0], keys, values, is_causal=True, scale=scale)
        outputs.append(out.transpose(1, 2))
        if not group.reply_lengths:
            continue
        rows, token_mask = [_to_rows(x, group) for x in replies], group.token_mask(q.device)
        keys, values = (
            _repeat_kv(torch.cat([p.expand(len(r), -1, -1, -1), r], 2), heads)
            for p, r in zip(prompt[1:], rows[1:], strict=True)
        )
        # Row i of a reply sees the whole prompt and the reply up to i. Padding comes last, so that no token sees it.
        mask = torch.ones(token_mask.shape[1], keys.shape[2], dtype=torch.bool, device=q.device)
        mask = mask.tril(group.fork - group.start)
        out = scaled_dot_product_attention(rows[0], keys, values, attn_mask=mask, scale=scale)
        outputs.append(out.transpose(1, 2)[token_mask][None])
    return torch.cat(outputs, dim=1)


class _PrefixAttention(torch.autograd.Function):
    """Both parts of a reply's attention by torch's flash kernel for CPUs, which also returns each row's log-sum-exp.

    Attention over the union of two key sets is the average of the attentions over each, weighted by their normalizers:
    out = lerp(out_self, out_prompt, sigmoid(lse_prompt - lse_self)), lse = logaddexp(lse_prompt, lse_self). A part's
    backward kernel, given the merged output and lse in place of its own, returns that part's contribution to the
    gradient of the union. Ring attention (arXiv 2310.01889) rests on the same identity.
    """

    @staticmethod
    def forward(ctx: Any, q: Queries, k: Keys, v: Keys, layout: Layout, scale: float, last: bool) -> Tensor:
        heads = q.shape[1]
        allocate = q.new_zeros if last else q.new_empty
        out = allocate(1, q.shape[2], heads, q.shape[3]).transpose(1, 2)
        lse = torch.zeros(1, heads, q.shape[2], dtype=torch.promote_types(q.dtype, torch.float32))
        for group in layout.prompt_groups:
            a, b, c, above = _bounds(group, last)
            if above >= b:
                keys, values = (_repeat_kv(x[:, :, a:b], heads) for x in (k, v))
                out[:, :, a:b], lse[:, :, a:b] = _flash(q[:, :, a:b], keys, values, 0.0, True, scale=scale)
            if c == above:
                continue
            folds = _num_folds(group, heads, k.shape[1])
            keys, values = (_repeat_kv(x[:, :, a:b], folds) for x in (k, v))
            far, far_lse = _flash(_fold_queries(q[:, :, above:c], folds), keys, values, 0.0, False, scale=scale)
            far, far_lse = far.reshape(1, heads, c - above, -1), far_lse.reshape(1, heads, c - above)
            out[:, :, above:b], lse[:, :, above:b] = far[:, :, : b - above], far_lse[:, :, : b - above]
            if c > b:
                far, far_lse = far[:, :, b - above :], far_lse[:, :, b - above :]
                queries, keys, values = (_to_rows(x[:, :, b:c], group) for x in (q, k, v))
                keys, values = _repeat_kv(keys, heads), _repeat_kv(values, heads)
                near, near_lse = _flash(queries, keys, values, 0.0, True, scale=scale)
                near, near_lse = _from_rows(near, group), _from_rows(near_lse[..., None], group)[..., 0]
                out[:, :, b:c] = torch.lerp(near, far, (far_lse - near_lse).sigmoid()[..., None].to(near.dtype))
                lse[:, :, b:c] = torch.logaddexp(far_lse, near_lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.arguments = (layout, scale, last)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        layout, scale, last = ctx.arguments
        g = grads[0].transpose(1, 2)
        heads, kv = q.shape[1], k.shape[1]
        dq, dk, dv = (torch.zeros_like if last else torch.empty_like)(q), torch.zeros_like(k), torch.zeros_like(v)
        for group in layout.prompt_groups:
            a, b, c, above = _bounds(group, last)
            if above >= b:
                keys, values = (_repeat_kv(x[:, :, a:b], heads) for x in (k, v))
                at = (slice(None), slice(None), slice(a, b))
                dq[at], dk_, dv_ = _flash_backward(
                    g[at], q[at], keys, values, out[at], lse[at].contiguous(), 0.0, True, scale=scale
                )
                dk[at], dv[at] = _sum_kv(dk_, kv), _sum_kv(dv_, kv)
            if c == above:
                continue
            folds = _num_folds(group, heads, kv)
            g_, q_, out_, lse_ = (_fold_queries(x[:, :, above:c], folds) for x in (g, q, out, lse[..., None]))
            keys, values = (_repeat_kv(x[:, :, a:b], folds) for x in (k, v))
            dq_, dk_, dv_ = _flash_backward(
                g_, q_, keys, values, out_, lse_[..., 0].contiguous(), 0.0, False, scale=scale
            )
            dq[:, :, above:c] = dq_.reshape(1, heads, c - above, -1)
            dk[:, :, a:b] += _sum_kv(dk_, kv)
            dv[:, :, a:b] += _sum_kv(dv_, kv)
            if c > b:
                g_, q_, keys, values, out_, lse_ = (
                    _to_rows(x[:, :, b:c], group) for x in (g, q, k, v, out, lse[..., None])
                )
                if not group.equal_lengths:
                    # Padding repeats real rows. No gradient and weights of exp(-inf) keep it out of the sums.
                    padding = ~group.token_mask(q.device)[:, None, :, None]
                    g_, lse_ = g_.masked_fill(padding, 0.0), lse_.masked_fill(padding, torch.inf)
                keys, values = _repeat_kv(keys, heads), _repeat_kv(values, heads)
                dq_, dk_, dv_ = _flash_backward(
                    g_, q_, keys, values, out_, lse_[..., 0].contiguous(), 0.0, True, scale=scale
                )
                dq[:, :, b:c] += _from_rows(dq_, group)
                dk[:, :, b:c], dv[:, :, b:c] = (_from_rows(_sum_kv(x, kv), group) for x in (dk_, dv_))
        return dq, dk, dv, None, None, None


def _bounds(group: PromptGroup, last: bool) -> tuple[int, int, int, int]:
    """(a, b, c, above): the prompt is columns a to b, the replies are b to c, rows from `above` see all of the prompt.

    In the last layer `above` is the prompt's last column, since nothing reads those before it. A single reply shares
    nothing, so that prompt and reply are one causal piece, which takes a third of the kernel calls.
    """
    if len(group.reply_lengths) == 1:
        return group.start, group.stop, group.stop, group.stop
    return group.start, group.fork, group.stop, group.fork - 1 if last else group.fork


def _repeat_kv(x: Float[Tensor, "row kv tok dim"], heads: int) -> Float[Tensor, "row head tok dim"]:
    """Key heads repeated for the query heads that share them."""
    rows, kv, tokens, dim = x.shape
    return x if kv == heads else x[:, :, None].expand(-1, -1, heads // kv, -1, -1).reshape(rows, heads, tokens, dim)


def _sum_kv(x: Float[Tensor, "row head tok dim"], kv: int) -> Float[Tensor, "row kv tok dim"]:
    """Gradients on repeated key heads, summed over the repetitions."""
    return x if x.shape[1] == kv else x.unflatten(1, (kv, -1)).sum(2)


def _num_folds(group: PromptGroup, heads: int, kv: int) -> int:
    """Heads for the attention to a prompt: those of its keys, unless repeating the keys moves less than the queries."""
    return heads if group.lengths[0] < sum(group.reply_lengths) else kv


def _fold_queries(x: Float[Tensor, "1 head tok dim"], kv: int) -> Float[Tensor, "1 kv rows dim"]:
    """The rows of all query heads that share a key head, one after the other: without a mask their order is free."""
    return x.reshape(1, kv, -1, x.shape[3])


def _to_rows(x: Float[Tensor, "1 head tok dim"], group: PromptGroup) -> Float[Tensor, "reply head longest dim"]:
    """A group's replies from the stream to right-padded rows."""
    if group.equal_lengths:
        return x[0].unflatten(1, (len(group.reply_lengths), -1)).transpose(0, 1)
    return x[0][:, group.token_index(x.device)].transpose(0, 1)


def _from_rows(x: Float[Tensor, "reply head longest dim"], group: PromptGroup) -> Float[Tensor, "1 head tok dim"]:
    """A group's replies from rows back to the stream, without padding."""
    if group.equal_lengths:
        return x.transpose(0, 1).flatten(1, 2)[None]
    return x.transpose(1, 2)[group.token_mask(x.device)].transpose(0, 1)[None]
