"""Chunked token statistics against full logits in float64: values, and gradients of hidden states, weight and bias."""

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
    """Hidden states, targets and temperatures; `run` returns values, and gradients of a random weighted sum of them."""

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
            logp, entropies = statistics(hidden, self.targets, self.temperature.to(self.dtype), head, entropy)
            assert (entropies is None) == (entropy == "none")
            assert entropies is None or entropies.requires_grad == (entropy == "gradient")
            values = [logp] if entropies is None else [logp, entropies]
            total = total + sum((w.to(logp) * v).sum() for w, v in zip(self.weights, values, strict=False))
        inputs = [hidden, *(p for p in layer.parameters() if p.requires_grad)]
        return [*(v.detach() for v in values), *torch.autograd.grad(total, inputs)]

    def max_error(self, entropy: Entropy, times: int = 1, **settings: Any) -> float:
        """The largest relative difference of values and gradients from full logits in float64."""
        double = Case(self.layer, dtype=torch.float64)
        double.after = self.after
        expected = double.run(full_logits, entropy, times)
        actual = self.run(chunked(**settings), entropy, times)
        # max of torch, because that of Python ignores NaN.
        return float(torch.stack([(a - b).norm() / b.norm() for a, b in zip(actual, expected, strict=True)]).max())


def full_logits(hidden: Tensor, targets: Tensor, temperature: Tensor, head: LanguageHead, entropy: Entropy) -> Any:
    """The definition, with all logits at once."""
    scores = (head(hidden) / temperature[:, None]).masked_fill(banned(), -math.inf)
    logp = scores.log_softmax(-1)
    target_logp = logp.gather(1, targets[:, None]).squeeze(1)
    if entropy == "none":
        return target_logp, None
    logp = (logp if entropy == "gradient" else logp.detach()).masked_fill(banned(), 0.0)
    return target_logp, -(logp.exp() * logp * ~banned()).sum(-1)


def chunked(tokens: int = 4, closed: bool = True) -> Callable[..., Any]:
    def statistics(hidden: Tensor, targets: Tensor, temperature: Tensor, head: LanguageHead, entropy: Entropy) -> Any:
        request = StatisticsRequest(entropy)
        return token_statistics(hidden, targets, temperature, head, banned(), tokens * VOCAB, request, closed)[:2]

    return statistics


def linear_head(bias: bool = True, trains: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(DIM, VOCAB, bias=bias).requires_grad_(trains)


ENTROPIES = ("none", "value", "gradient")


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("tokens", [1, 4, TOKENS])
@pytest.mark.parametrize("closed", [True, False])
def test_values_and_gradients_equal_those_of_full_logits(
    closed: bool, tokens: int, after: str, entropy: Entropy
) -> None:
    for layer in (linear_head(), linear_head(bias=False), linear_head(trains=False)):
        assert Case(layer, after).max_error(entropy, tokens=tokens, closed=closed) < EXACT
    bias_only = linear_head()
    bias_only.weight.requires_grad_(False)
    assert Case(bias_only, after).max_error(entropy, tokens=tokens, closed=closed) < EXACT


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("tokens", [1, 4, TOKENS])
@pytest.mark.parametrize("closed", [True, False])
def test_squared_probabilities_equal_those_of_full_logits(closed: bool, tokens: int, entropy: Entropy) -> None:
    """sum_p2 has no gradient and does not change the other statistics."""
    for layer in (linear_head(), linear_head(trains=False)):
        case, gradients = Case(layer, "softcap"), []
        hidden = case.hidden.requires_grad_()
        head = LanguageHead(layer, case.after)
        arguments = (hidden, case.targets, case.temperature, head, banned(), tokens * VOCAB)
        with_them, without = (
            token_statistics(*arguments, StatisticsRequest(entropy, sum_p2), closed) for sum_p2 in (True, False)
        )
        scores = (head(hidden).detach().double() / case.temperature[:, None]).masked_fill(banned(), -math.inf)
        assert with_them.sum_p2 is not None
        assert not with_them.sum_p2.requires_grad
        torch.testing.assert_close(with_them.sum_p2.double(), scores.softmax(-1).square().sum(-1), rtol=EXACT, atol=0)
        assert without.sum_p2 is None
        for statistics in (with_them, without):
            torch.testing.assert_close(statistics.logp, without.logp, rtol=0, atol=0)
            gradients.append(torch.autograd.grad((statistics.logp * case.weights[0]).sum(), hidden)[0])
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_two_calls_before_one_backward(entropy: Entropy) -> None:
    assert Case(linear_head()).max_error(entropy, times=2) < EXACT
    assert Case(linear_head(), "softcap").max_error(entropy, times=2, tokens=TOKENS) < EXACT


@pytest.mark.parametrize("tokens", [4, TOKENS])
def test_a_retained_graph_gives_the_same_gradient_again(tokens: int) -> None:
    case = Case(linear_head())
    hidden = case.hidden.requires_grad_()
    logp, _ = chunked(tokens)(hidden, case.targets, case.temperature, LanguageHead(case.layer, case.after), "none")
    first, second = (torch.autograd.grad(logp.sum(), hidden, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_adapter_on_the_head_takes_the_plain_path() -> None:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
    wrapped = inject_adapter_in_model(settings, nn.Sequential(linear_head())).get_submodule("0")
    assert not LanguageHead(wrapped, AFTER["nothing"]).linear
    for entropy in ENTROPIES:
        assert Case(wrapped).max_error(entropy) < EXACT


def test_hooks_on_the_head_run() -> None:
    def double(module: nn.Module, args: Any, out: Any) -> Tensor:
        return out * 2.0

    layer = linear_head()
    layer.register_forward_hook(double)
    assert Case(layer).max_error("gradient") < EXACT


def test_tied_embeddings_get_both_gradients() -> None:
    torch.manual_seed(0)
    embedding, layer = nn.Embedding(VOCAB, DIM), linear_head(bias=False)
    layer.weight = embedding.weight
    case, gradients = Case(layer), []
    for closed in (True, False):
        hidden = torch.tanh(embedding(case.targets))
        logp, _ = chunked(closed=closed)(
            hidden, case.targets, case.temperature, LanguageHead(layer, case.after), "none"
        )
        gradients.append(torch.autograd.grad(logp.sum(), embedding.weight)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [4, TOKENS])
@pytest.mark.parametrize("trains", [True, False])
def test_bfloat16_is_as_accurate_as_autograd(trains: bool, tokens: int) -> None:
    case = Case(linear_head(trains=trains), "softcap")
    exact = Case(linear_head(trains=trains), "softcap", torch.float64).run(full_logits, "gradient")

    def errors(closed: bool) -> list[float]:
        with torch.autocast("cpu", torch.bfloat16):
            actual = case.run(chunked(tokens, closed), "gradient")
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(actual, exact, strict=True)]

    for closed_error, autograd_error in zip(errors(True), errors(False), strict=True):
        assert closed_error < 1.5 * autograd_error + 1e-3
        assert autograd_error > 1e-5  # otherwise autocast had no effect


def test_banned_tokens_have_no_gradient() -> None:
    layer = linear_head()
    with torch.no_grad():
        layer.bias[list(BANNED)] = 1e4
    case = Case(layer)
    *_, weight_gradient, bias_gradient = case.run(chunked(), "gradient")
    assert (weight_gradient[list(BANNED)] == 0).all()
    assert (bias_gradient[list(BANNED)] == 0).all()


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.num_elements = max(self.num_elements, tensor.numel())
        return out


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_no_tensor_is_larger_than_the_budget(closed: bool, trains: bool) -> None:
    case = Case(linear_head(trains=trains))
    with LargestTensor() as largest:
        case.run(chunked(tokens=9, closed=closed), "gradient")
    assert largest.num_elements == max(9 * VOCAB, DIM * VOCAB)
    with LargestTensor() as largest:
        case.run(full_logits, "gradient")
    assert largest.num_elements == TOKENS * VOCAB


@pytest.mark.parametrize(
    ("trains", "tokens", "entropy", "products"),
    [(True, 4, "value", 4), (True, TOKENS, "value", 3), (False, 4, "value", 2), (False, TOKENS, "gradient", 2)],
)
def test_the_number_of_matrix_products(
    trains: bool, tokens: int, entropy: Entropy, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainable head needs three matrix products, four where the logits do not fit; a frozen one needs two."""
    calls = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
                calls.append(func)
            return func(*args, **(kwargs or {}))

    with Count():
        Case(linear_head(bias=False, trains=trains)).run(chunked(tokens), entropy)
    assert len(calls) == products * len(module._chunks(TOKENS, tokens))
