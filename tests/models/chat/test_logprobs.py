"""The head against whole logits in double precision: values, and gradients on hidden states, matrix and bias."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmpost.models.chat import logprobs as module
from mmpost.models.chat.logprobs import Entropy, LanguageHead, StatisticsRequest, token_statistics

TOKENS, DIM, VOCAB = 13, 8, 31
BANNED = (3, 30)
EXACT = 1e-5
AFTER: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "softcap": lambda x: torch.tanh(x / 3.0) * 3.0,
    "scale": lambda x: x * 1.7,
}


def banned() -> Tensor:
    mask = torch.zeros(VOCAB, dtype=torch.bool)
    mask[list(BANNED)] = True
    return mask


class Case:
    """Hidden states, targets and temperatures; `run` gives values, and gradients of a random sum of them."""

    def __init__(self, layer: nn.Module, after: str = "nothing", dtype: torch.dtype = torch.float32) -> None:
        rng = torch.Generator().manual_seed(1)
        self.layer, self.after, self.dtype = layer, AFTER[after], dtype
        self.hidden = torch.randn(TOKENS, DIM, generator=rng)
        self.targets = torch.randint(4, 30, (TOKENS,), generator=rng)
        self.temperature = 0.5 + torch.rand(TOKENS, generator=rng)
        self.weights = torch.randn(2, TOKENS, generator=rng)

    def run(self, statistics: Callable[..., Any], entropy: Entropy, times: int = 1) -> list[Tensor]:
        layer = copy.deepcopy(self.layer).to(self.dtype)
        hidden = self.hidden.to(self.dtype).requires_grad_()
        head = LanguageHead(layer, self.after)
        total, values = torch.zeros((), dtype=self.dtype), []
        for _ in range(times):
            logp, found = statistics(hidden, self.targets, self.temperature.to(self.dtype), head, entropy)
            assert (found is None) == (entropy == "none")
            assert found is None or found.requires_grad == (entropy == "gradient")
            values = [logp] if found is None else [logp, found]
            total = total + sum((w.to(logp) * v).sum() for w, v in zip(self.weights, values, strict=False))
        wanted = [hidden, *(p for p in layer.parameters() if p.requires_grad)]
        return [*(v.detach() for v in values), *torch.autograd.grad(total, wanted)]

    def off(self, entropy: Entropy, times: int = 1, **settings: Any) -> float:
        """The largest relative difference, of values and gradients, from whole logits in double precision."""
        double = Case(self.layer, dtype=torch.float64)
        double.after = self.after
        wanted = double.run(whole, entropy, times)
        found = self.run(chunked(**settings), entropy, times)
        # torch's maximum: that of Python passes over NaN.
        return float(torch.stack([(a - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True)]).max())


def whole(hidden: Tensor, targets: Tensor, temperature: Tensor, head: LanguageHead, entropy: Entropy) -> Any:
    """By the book, with all logits at once."""
    scores = (head(hidden) / temperature[:, None]).masked_fill(banned(), -math.inf)
    logp = scores.log_softmax(-1)
    picked = logp.gather(1, targets[:, None]).squeeze(1)
    if entropy == "none":
        return picked, None
    logp = (logp if entropy == "gradient" else logp.detach()).masked_fill(banned(), 0.0)
    return picked, -(logp.exp() * logp * ~banned()).sum(-1)


def chunked(tokens: int = 4, closed: bool = True) -> Callable[..., Any]:
    def statistics(hidden: Tensor, targets: Tensor, temperature: Tensor, head: LanguageHead, entropy: Entropy) -> Any:
        wanted = StatisticsRequest(entropy)
        return token_statistics(hidden, targets, temperature, head, banned(), tokens * VOCAB, wanted, closed)[:2]

    return statistics


def plain(bias: bool = True, trains: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(DIM, VOCAB, bias=bias).requires_grad_(trains)


ENTROPIES = ("none", "value", "gradient")


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("tokens", [1, 4, TOKENS])
@pytest.mark.parametrize("closed", [True, False])
def test_values_and_gradients_are_those_of_whole_logits(
    closed: bool, tokens: int, after: str, entropy: Entropy
) -> None:
    for layer in (plain(), plain(bias=False), plain(trains=False)):
        assert Case(layer, after).off(entropy, tokens=tokens, closed=closed) < EXACT
    half = plain()
    half.weight.requires_grad_(False)
    assert Case(half, after).off(entropy, tokens=tokens, closed=closed) < EXACT


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("tokens", [1, 4, TOKENS])
@pytest.mark.parametrize("closed", [True, False])
def test_squared_probabilities_are_those_of_whole_logits(closed: bool, tokens: int, entropy: Entropy) -> None:
    """Without gradient, and without a change to the others."""
    for layer in (plain(), plain(trains=False)):
        case, slopes = Case(layer, "softcap"), []
        hidden = case.hidden.requires_grad_()
        head = LanguageHead(layer, case.after)
        given = (hidden, case.targets, case.temperature, head, banned(), tokens * VOCAB)
        with_them, without = (
            token_statistics(*given, StatisticsRequest(entropy, more), closed) for more in (True, False)
        )
        scores = (head(hidden).detach().double() / case.temperature[:, None]).masked_fill(banned(), -math.inf)
        assert with_them.sum_p2 is not None
        assert not with_them.sum_p2.requires_grad
        torch.testing.assert_close(with_them.sum_p2.double(), scores.softmax(-1).square().sum(-1), rtol=EXACT, atol=0)
        assert without.sum_p2 is None
        for found in (with_them, without):
            torch.testing.assert_close(found.logp, without.logp, rtol=0, atol=0)
            slopes.append(torch.autograd.grad((found.logp * case.weights[0]).sum(), hidden)[0])
        torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_it_may_be_used_twice_before_the_backward(entropy: Entropy) -> None:
    assert Case(plain()).off(entropy, times=2) < EXACT
    assert Case(plain(), "softcap").off(entropy, times=2, tokens=TOKENS) < EXACT


@pytest.mark.parametrize("tokens", [4, TOKENS])
def test_a_graph_that_is_kept_gives_the_same_gradient_again(tokens: int) -> None:
    case = Case(plain())
    hidden = case.hidden.requires_grad_()
    logp, _ = chunked(tokens)(hidden, case.targets, case.temperature, LanguageHead(case.layer, case.after), "none")
    first, second = (torch.autograd.grad(logp.sum(), hidden, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_adapter_on_the_head_takes_the_plain_path() -> None:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
    wrapped = inject_adapter_in_model(settings, nn.Sequential(plain())).get_submodule("0")
    assert not LanguageHead(wrapped, AFTER["nothing"]).linear
    for entropy in ENTROPIES:
        assert Case(wrapped).off(entropy) < EXACT


def test_a_hook_on_the_head_is_heard() -> None:
    def double(module: nn.Module, args: Any, out: Any) -> Tensor:
        return out * 2.0

    layer = plain()
    layer.register_forward_hook(double)
    assert Case(layer).off("gradient") < EXACT


def test_tied_embeddings_get_both_gradients() -> None:
    torch.manual_seed(0)
    embedding, layer = nn.Embedding(VOCAB, DIM), plain(bias=False)
    layer.weight = embedding.weight
    case, found = Case(layer), []
    for closed in (True, False):
        hidden = torch.tanh(embedding(case.targets))
        logp, _ = chunked(closed=closed)(
            hidden, case.targets, case.temperature, LanguageHead(layer, case.after), "none"
        )
        found.append(torch.autograd.grad(logp.sum(), embedding.weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [4, TOKENS])
@pytest.mark.parametrize("trains", [True, False])
def test_sixteen_bits_are_as_near_as_autograds(trains: bool, tokens: int) -> None:
    case = Case(plain(trains=trains), "softcap")
    exact = Case(plain(trains=trains), "softcap", torch.float64).run(whole, "gradient")

    def errors(closed: bool) -> list[float]:
        with torch.autocast("cpu", torch.bfloat16):
            found = case.run(chunked(tokens, closed), "gradient")
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    for mine, theirs in zip(errors(True), errors(False), strict=True):
        assert mine < 1.5 * theirs + 1e-3
        assert theirs > 1e-5  # or it was not in 16 bits


def test_banned_tokens_take_no_part() -> None:
    layer = plain()
    with torch.no_grad():
        layer.bias[list(BANNED)] = 1e4
    case = Case(layer)
    *_, of_weight, of_bias = case.run(chunked(), "gradient")
    assert (of_weight[list(BANNED)] == 0).all()
    assert (of_bias[list(BANNED)] == 0).all()


class Largest(TorchDispatchMode):
    """The most numbers of a tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_no_tensor_is_larger_than_the_budget(closed: bool, trains: bool) -> None:
    case = Case(plain(trains=trains))
    with Largest() as largest:
        case.run(chunked(tokens=9, closed=closed), "gradient")
    assert largest.numbers == max(9 * VOCAB, DIM * VOCAB)
    with Largest() as largest:
        case.run(whole, "gradient")
    assert largest.numbers == TOKENS * VOCAB


@pytest.mark.parametrize(
    ("trains", "tokens", "entropy", "products"),
    [(True, 4, "value", 4), (True, TOKENS, "value", 3), (False, 4, "value", 2), (False, TOKENS, "gradient", 2)],
)
def test_products_with_the_matrix_are_counted(
    trains: bool, tokens: int, entropy: Entropy, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that trains needs three, and a fourth where the logits do not fit; a frozen one two."""
    done = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
                done.append(func)
            return func(*args, **(kwargs or {}))

    with Count():
        Case(plain(bias=False, trains=trains)).run(chunked(tokens), entropy)
    assert len(done) == products * len(module._chunks(TOKENS, tokens))
