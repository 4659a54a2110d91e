"""Attention over streams in which replies share their prompt: the prompt causally, each reply over it and itself.

Shapes: `head` are the heads of queries, `kv` those of keys and values; `head / kv` query heads share a key head.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmpost.models.prefix.layout import Layout, PromptGroup

_forward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_backward: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)

Queries = Float[Tensor, "1 head tok dim"]
Keys = Float[Tensor, "1 kv tok dim"]


def attend(q: Queries, k: Keys, v: Keys, layout: Layout, scale: float, last: bool) -> Float[Tensor, "1 tok head dim"]:
    """Attention of a stream. In the `last` layer only what follows a prompt reads on: its other rows may be zero.

    On the CPU the two parts of a reply's attention are computed apart and merged by their normalisers, so that neither
    keys are repeated nor pairs computed that the mask forbids; elsewhere by a mask (`attend_masked`).
    """
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if q.device.type == "cpu" and _forward is not None and _backward is not None:
        return _Forked.apply(q, k, v, layout, scale, last)  # type: ignore[no-any-return]
    return attend_masked(q, k, v, layout, scale)


def attend_masked(q: Queries, k: Keys, v: Keys, layout: Layout, scale: float) -> Float[Tensor, "1 tok head dim"]:
    """The same by torch's attention with a mask, all replies of a group side by side, the prompt's keys before each."""
    sizes = [n for run in layout.runs for n in (run.fork - run.start, run.stop - run.fork)]
    done = []
    pieces = [iter(x.split(sizes, dim=2)) for x in (q, k, v)]
    for run in layout.runs:
        prompt = [next(p) for p in pieces]
        replies = [next(p) for p in pieces]
        wide = [_wide(x, q.shape[1]) for x in prompt[1:]]
        out = scaled_dot_product_attention(prompt[0], wide[0], wide[1], is_causal=True, scale=scale)
        done.append(out.transpose(1, 2))
        if not run.replies:
            continue
        own, table = [_apart(x, run) for x in replies], run.real(q.device)
        keys = [torch.cat([p.expand(len(o), -1, -1, -1), o], 2) for p, o in zip(prompt[1:], own[1:], strict=True)]
        seen = torch.ones(table.shape[1], keys[0].shape[2], dtype=torch.bool, device=q.device).tril(
            run.fork - run.start
        )
        wide = [_wide(x, q.shape[1]) for x in keys]
        out = scaled_dot_product_attention(own[0], wide[0], wide[1], attn_mask=seen, scale=scale)
        done.append(out.transpose(1, 2)[table][None])
    return torch.cat(done, dim=1)


class _Forked(torch.autograd.Function):
    """Both parts by torch's flash kernel for CPUs, which also returns the logarithm of each row's normaliser.

    With the merged output and normaliser in place of its own, the backward kernel of a part gives that part's share of
    the gradient; this is how ring attention works, too.
    """

    @staticmethod
    def forward(ctx: Any, q: Queries, k: Keys, v: Keys, layout: Layout, scale: float, last: bool) -> Tensor:
        heads = q.shape[1]
        make = q.new_zeros if last else q.new_empty
        out = make(1, q.shape[2], heads, q.shape[3]).transpose(1, 2)
        norm = torch.zeros(1, heads, q.shape[2], dtype=torch.promote_types(q.dtype, torch.float32))
        for run in layout.runs:
            a, b, c, above = _cut(run, last)
            if above >= b:
                out[:, :, a:b], norm[:, :, a:b] = _forward(
                    q[:, :, a:b], _wide(k[:, :, a:b], heads), _wide(v[:, :, a:b], heads), 0.0, True, scale=scale
                )
            if c == above:
                continue
            folds = _folds(run, heads, k.shape[1])
            far, far_norm = _forward(
                _folded(q[:, :, above:c], folds),
                *(_wide(x[:, :, a:b], folds) for x in (k, v)),
                0.0,
                False,
                scale=scale,
            )
            far, far_norm = far.reshape(1, heads, c - above, -1), far_norm.reshape(1, heads, c - above)
            out[:, :, above:b], norm[:, :, above:b] = far[:, :, : b - above], far_norm[:, :, : b - above]
            if c > b:
                far, far_norm = far[:, :, b - above :], far_norm[:, :, b - above :]
                own = [_apart(x[:, :, b:c], run) for x in (q, k, v)]
                near, near_norm = _forward(own[0], *(_wide(x, heads) for x in own[1:]), 0.0, True, scale=scale)
                near, near_norm = _together(near, run), _together(near_norm[..., None], run)[..., 0]
                out[:, :, b:c] = torch.lerp(near, far, (far_norm - near_norm).sigmoid()[..., None].to(near.dtype))
                norm[:, :, b:c] = torch.logaddexp(far_norm, near_norm)
        ctx.save_for_backward(q, k, v, out, norm)
        ctx.how = (layout, scale, last)
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, norm = ctx.saved_tensors
        layout, scale, last = ctx.how
        g = grads[0].transpose(1, 2)
        heads, kv = q.shape[1], k.shape[1]
        dq, dk, dv = (torch.zeros_like if last else torch.empty_like)(q), torch.zeros_like(k), torch.zeros_like(v)
        for run in layout.runs:
            a, b, c, above = _cut(run, last)
            if above >= b:
                wide = [_wide(x[:, :, a:b], heads) for x in (k, v)]
                at = (slice(None), slice(None), slice(a, b))
                dq[at], one, two = _backward(
                    g[at], q[at], *wide, out[at], norm[at].contiguous(), 0.0, True, scale=scale
                )
                dk[at], dv[at] = _narrow(one, kv), _narrow(two, kv)
            if c == above:
                continue
            folds = _folds(run, heads, kv)
            part = [_folded(x[:, :, above:c], folds) for x in (g, q, out, norm[..., None])]
            wide = [_wide(x[:, :, a:b], folds) for x in (k, v)]
            dq_, dk_, dv_ = _backward(
                part[0], part[1], *wide, part[2], part[3][..., 0].contiguous(), 0.0, False, scale=scale
            )
            dq[:, :, above:c] = dq_.reshape(1, heads, c - above, -1)
            dk[:, :, a:b] += _narrow(dk_, kv)
            dv[:, :, a:b] += _narrow(dv_, kv)
            if c > b:
                own = [_apart(x[:, :, b:c], run) for x in (g, q, k, v, out, norm[..., None])]
                if not run.even:
                    padding = ~run.real(q.device)[:, None, :, None]
                    # Rows of padding give nothing: no gradient comes in, and their weights are exp(-inf).
                    own[0], own[5] = own[0].masked_fill(padding, 0.0), own[5].masked_fill(padding, torch.inf)
                wide = [_wide(x, heads) for x in own[2:4]]
                lse = own[5][..., 0].contiguous()
                dq_, dk_, dv_ = _backward(own[0], own[1], *wide, own[4], lse, 0.0, True, scale=scale)
                dq[:, :, b:c] += _together(dq_, run)
                dk[:, :, b:c], dv[:, :, b:c] = (_together(_narrow(x, kv), run) for x in (dk_, dv_))
        return dq, dk, dv, None, None, None


def _cut(run: PromptGroup, last: bool) -> tuple[int, int, int, int]:
    """Where a run starts, forks and stops, and its first row that reads over the whole prompt.

    A reply without siblings shares nothing: prompt and reply are then one causal piece, a third of the kernel's calls.
    """
    if len(run.replies) == 1:
        return run.start, run.stop, run.stop, run.stop
    return run.start, run.fork, run.stop, run.fork - 1 if last else run.fork


def _wide(x: Float[Tensor, "row kv tok dim"], heads: int) -> Float[Tensor, "row head tok dim"]:
    """Key heads repeated for the query heads that share them."""
    rows, kv, tokens, dim = x.shape
    return x if kv == heads else x[:, :, None].expand(-1, -1, heads // kv, -1, -1).reshape(rows, heads, tokens, dim)


def _narrow(x: Float[Tensor, "row head tok dim"], kv: int) -> Float[Tensor, "row kv tok dim"]:
    """Gradients of repeated key heads, added up."""
    return x if x.shape[1] == kv else x.unflatten(1, (kv, -1)).sum(2)


def _folds(run: PromptGroup, heads: int, kv: int) -> int:
    """Heads to compute with over a prompt: those of its keys, unless repeating the keys moves less than the queries."""
    return heads if run.lengths[0] < sum(run.replies) else kv


def _folded(x: Float[Tensor, "1 head tok dim"], kv: int) -> Float[Tensor, "1 kv rows dim"]:
    """Rows of all query heads that share a key head, one after the other: without a mask their order is free."""
    return x.reshape(1, kv, -1, x.shape[3])


def _apart(x: Float[Tensor, "1 head tok dim"], run: PromptGroup) -> Float[Tensor, "reply head longest dim"]:
    """The replies of a run side by side."""
    if run.even:
        return x[0].unflatten(1, (len(run.replies), -1)).transpose(0, 1)
    return x[0][:, run.table(x.device)].transpose(0, 1)


def _together(x: Float[Tensor, "reply head longest dim"], run: PromptGroup) -> Float[Tensor, "1 head tok dim"]:
    """The replies of a run one after the other, without their padding."""
    if run.even:
        return x.transpose(0, 1).flatten(1, 2)[None]
    return x.transpose(1, 2)[run.real(x.device)].transpose(0, 1)[None]
