"""Attention over a stream of groups: both ways of it against a dense mask, values and gradients, in 64 bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmpost.models.prefix import attention
from mmpost.models.prefix.layout import Layout

LAYOUTS = (
    Layout(((5, 3, 3),)),
    Layout(((1, 2), (7,), (3, 4, 1, 2), (40, 70, 33))),
    Layout(((6,), (2,))),
    Layout(((6, 4), (5, 3, 2), (9, 1), (3,))),
)


def test_a_layout_is_read_as_it_was_written() -> None:
    for layout in LAYOUTS:
        assert Layout.from_mask(layout.to_mask()) == layout
    assert Layout.from_lengths([(3, [2, 0, 1]), (4, [0])]) == Layout(((3, 2, 1), (4,)))


def dense(layout: Layout) -> Tensor:
    """Which key a query may see, from the rule itself: of its own group, not after it, the prompt's or its own."""
    place = [(g, r) for g, lengths in enumerate(layout.groups) for r, n in enumerate(lengths) for _ in range(n)]
    size = range(len(place))
    rows = [[place[i][0] == place[j][0] and j <= i and place[j][1] in (0, place[i][1]) for j in size] for i in size]
    return torch.tensor(rows)


def with_gradients(attend: Callable[..., Tensor], layout: Layout, weight: Tensor) -> tuple[Tensor, ...]:
    """Values and gradients of a weighted sum."""
    generator, tokens = torch.Generator().manual_seed(0), weight.shape[1]
    q, k, v = (
        torch.randn(1, tokens, heads, 8, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_()
        for heads in (4, 2, 2)
    )
    out = attend(q, k, v)
    return (out.detach(), *torch.autograd.grad((out * weight).sum(), (q, k, v)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["attend", "attend_masked"])
def test_values_and_gradients_are_those_of_a_dense_mask(layout: Layout, last: bool, name: str) -> None:
    tokens = sum(sum(g) for g in layout.groups)
    weight = torch.randn(1, tokens, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    read_on = torch.ones(tokens, dtype=torch.bool)
    if last:
        for group in layout.prompt_groups:
            read_on[group.start : group.fork - 1] = False
        weight = weight * read_on[:, None, None]

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        return scaled_dot_product_attention(q, k, v, attn_mask=dense(layout), scale=0.4).transpose(1, 2)

    more = {"last": last} if name == "attend" else {}
    found = with_gradients(lambda q, k, v: getattr(attention, name)(q, k, v, layout, 0.4, **more), layout, weight)
    wanted = with_gradients(reference, layout, weight)
    torch.testing.assert_close(found[0][:, read_on], wanted[0][:, read_on], atol=1e-12, rtol=0)
    for a, b in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
