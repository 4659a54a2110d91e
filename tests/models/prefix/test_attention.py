"""Attention over a packed stream of groups: both implementations against a dense mask, in float64."""

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


def test_a_layout_round_trips_through_its_mask() -> None:
    for layout in LAYOUTS:
        assert Layout.from_mask(layout.to_mask()) == layout
    assert Layout.from_lengths([(3, [2, 0, 1]), (4, [0])]) == Layout(((3, 2, 1), (4,)))


def dense(layout: Layout) -> Tensor:
    """The mask by definition: keys of the same group, not after the query, of the prompt or of the same reply."""
    group_and_reply = [
        (g, r) for g, lengths in enumerate(layout.groups) for r, n in enumerate(lengths) for _ in range(n)
    ]
    size = range(len(group_and_reply))
    rows = [
        [
            group_and_reply[i][0] == group_and_reply[j][0]
            and j <= i
            and group_and_reply[j][1] in (0, group_and_reply[i][1])
            for j in size
        ]
        for i in size
    ]
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
def test_values_and_gradients_equal_those_of_a_dense_mask(layout: Layout, last: bool, name: str) -> None:
    tokens = sum(sum(g) for g in layout.groups)
    weight = torch.randn(1, tokens, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    is_read = torch.ones(tokens, dtype=torch.bool)
    if last:
        for group in layout.prompt_groups:
            is_read[group.start : group.fork - 1] = False
        weight = weight * is_read[:, None, None]

    def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        return scaled_dot_product_attention(q, k, v, attn_mask=dense(layout), scale=0.4).transpose(1, 2)

    options = {"last": last} if name == "attend" else {}
    actual = with_gradients(lambda q, k, v: getattr(attention, name)(q, k, v, layout, 0.4, **options), layout, weight)
    expected = with_gradients(reference, layout, weight)
    torch.testing.assert_close(actual[0][:, is_read], expected[0][:, is_read], atol=1e-12, rtol=0)
    for a, b in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
