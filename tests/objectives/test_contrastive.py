"""The contrastive loss against numbers worked out by hand, against open_clip, and with modalities missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmpost.errors import ConfigError
from mmpost.objectives.contrastive import Contrastive
from mmpost.types import Batch, Outputs
from tests.objectives.ragged import total

open_clip = pytest.importorskip("open_clip")

Rows = Sequence[Sequence[float]]
ASTRO = {"half": False, "reduce": "sum"}
THREE = ("p", "s", "m")


def batch(present: Mapping[str, Sequence[bool]], ids: Sequence[int] | None = None, **columns: Sequence[float]) -> Batch:
    size = len(next(iter(present.values())))
    return Batch(
        reply_of=torch.zeros(0, dtype=torch.long),
        group_of=torch.zeros(0, dtype=torch.long),
        columns={},
        sample_ids=torch.tensor(ids if ids is not None else range(size)),
        sample_columns={name: torch.tensor(values) for name, values in columns.items()},
        modality_mask={kind: torch.tensor(values) for kind, values in present.items()},
    )


def outputs(embeddings: Mapping[str, Any], scale: float | Mapping[str, float] = 1.0, **aux: float) -> Outputs:
    """`scale` is not the logarithm."""
    scales = {"log_scale": scale} if isinstance(scale, float | int) else {f"log_scale/{k}": v for k, v in scale.items()}
    made = {name: torch.tensor(math.log(value), requires_grad=True) for name, value in scales.items()}
    more = {name: torch.tensor(value, requires_grad=True) for name, value in aux.items()}
    return Outputs(embeddings={k: torch.as_tensor(v) for k, v in embeddings.items()}, aux={**made, **more})


def loss(objective: Contrastive, made: Outputs, seen: Batch | None = None) -> Tensor:
    size = len(next(iter(made.embeddings.values())))
    seen = seen or batch({kind: [True] * size for kind in made.embeddings})
    return total(objective, [(seen, made)])


def number(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).detach())


EYE: Rows = [[1.0, 0.0], [0.0, 1.0]]
P, S, M = EYE, [[0.8, 0.6], [0.6, 0.8]], [[1.0, 0.0], [0.6, 0.8]]


def test_the_numbers_of_three_modalities() -> None:
    astro = Contrastive(modalities=THREE, **ASTRO)
    same = outputs(dict.fromkeys(THREE, EYE))
    assert number(loss(astro, same)) == pytest.approx(1.879570, abs=2e-6)
    equal = outputs(dict.fromkeys(THREE, [[1.0, 0.0]] * 2), 37.0)
    assert number(loss(astro, equal)) == pytest.approx(6 * math.log(2), abs=1e-6)
    mixed = outputs({"p": P, "s": S, "m": M}, 10.0)
    assert number(loss(astro, mixed)) == pytest.approx(1.547582, abs=2e-6)
    assert number(loss(Contrastive(modalities=THREE), mixed)) == pytest.approx(0.257930, abs=1e-6)
    terms = astro(mixed, batch({k: [True, True] for k in THREE})).terms
    assert number(terms["p-s"]) / 2 == pytest.approx(0.126928 * 2, abs=2e-6)
    assert number(terms["s-m"]) / 2 == pytest.approx(0.901025 + 0.319972, abs=2e-6)
    assert number(terms["p-m"]) / 2 == pytest.approx(0.063487 + 0.009243, abs=2e-6)


def test_random_embeddings_start_at_the_logarithm_of_the_batch() -> None:
    equal = outputs({kind: normalize(torch.ones(512, 4), dim=1) for kind in THREE}, 100.0)
    assert number(loss(Contrastive(modalities=THREE, **ASTRO), equal)) == pytest.approx(37.4299, abs=1e-3)


def test_the_numbers_of_two_modalities() -> None:
    clip = Contrastive(modalities=("a", "b"))
    assert number(loss(clip, outputs({"a": EYE, "b": EYE}))) == pytest.approx(0.313262, abs=1e-6)
    assert number(loss(clip, outputs({"a": EYE, "b": EYE}, 10.0))) == pytest.approx(4.539890e-05, rel=1e-3)
    siglip = Contrastive(modalities=("a", "b"), loss="siglip")
    assert number(loss(siglip, outputs({"a": EYE, "b": EYE}, 10.0, bias=-10.0))) == pytest.approx(0.693193, abs=1e-6)


def features(size: int, dim: int = 16, seed: int = 0, kinds: Sequence[str] = ("image", "text")) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: normalize(torch.randn(size, dim, generator=generator), dim=1).requires_grad_() for k in kinds}


@pytest.mark.parametrize("which", ["infonce", "siglip"])
def test_two_modalities_are_open_clip(which: Any) -> None:
    made = features(24)
    scale, bias = torch.tensor(2.0, requires_grad=True), torch.tensor(-3.0, requires_grad=True)
    aux = {"log_scale": scale} | ({"bias": bias} if which == "siglip" else {})
    leaves = [*made.values(), *aux.values()]
    if which == "infonce":
        wanted = open_clip.ClipLoss()(made["image"], made["text"], scale.exp())
    else:
        wanted = open_clip.loss.SigLipLoss()(made["image"], made["text"], scale.exp(), bias)
    found = loss(Contrastive(modalities=("image", "text"), loss=which), Outputs(embeddings=made, aux=aux))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


def test_a_modality_twice_adds_the_loss_of_identical_features() -> None:
    made = features(8)
    sum_of = Contrastive(modalities=("image", "text", "copy"), reduce="sum")
    found = loss(sum_of, outputs({**made, "copy": made["text"]}, 5.0))
    clip = Contrastive(modalities=("image", "text"))
    twins = loss(clip, outputs({"image": made["text"], "text": made["text"]}, 5.0))
    assert number(found) == pytest.approx(number(2 * loss(clip, outputs(made, 5.0)) + twins), rel=1e-5)


def test_a_modality_that_nobody_has_is_as_if_it_were_not_asked_for() -> None:
    made = features(6, kinds=THREE)
    present = {"p": [True] * 6, "s": [True] * 6, "m": [False] * 6}
    for fields in ({}, {"reduce": "sum"}, {"loss": "siglip"}):
        three = Contrastive(modalities=THREE, **fields)  # type: ignore[arg-type]
        two = loss(Contrastive(modalities=("p", "s"), **fields), outputs(made, 5.0))  # type: ignore[arg-type]
        assert number(loss(three, outputs(made, 5.0), batch(present))) == pytest.approx(number(two), rel=1e-6)
        gone = outputs({k: made[k] for k in ("p", "s")}, 5.0)
        assert number(loss(three, gone, batch(present))) == pytest.approx(number(two), rel=1e-6)


def test_a_missing_modality_leaves_exactly_its_two_pairs() -> None:
    made, objective = features(6, kinds=THREE), Contrastive(modalities=THREE, reduce="sum")
    there = {k: [True] * 6 for k in THREE}
    every = objective(outputs(made, 5.0), batch(there))
    some = objective(outputs(made, 5.0), batch({**there, "m": [True] * 5 + [False]}))
    fewer = objective(outputs({k: v[:5] for k, v in made.items()}, 5.0), batch({k: v[:5] for k, v in there.items()}))
    torch.testing.assert_close(some.terms["p-s"], every.terms["p-s"])
    for name in ("p-m", "s-m"):
        torch.testing.assert_close(some.terms[name], fewer.terms[name])
        assert some.metrics[f"loss/{name}"][1] == 5
    value = total(objective, [(batch({**there, "m": [True] * 5 + [False]}), outputs(made, 5.0))])
    gradients = dict(zip(made, torch.autograd.grad(value, list(made.values())), strict=True))
    assert (gradients["m"][5] == 0).all()
    assert (gradients["p"][5] != 0).any()


def test_one_sample_with_both_is_nothing_to_compare() -> None:
    made, objective = features(3, kinds=THREE), Contrastive(modalities=THREE)
    seen = batch({"p": [True, True, False], "s": [True, False, False], "m": [True, True, False]})
    assert objective.counts(seen) == {"contrastive": 2.0}
    alone = Contrastive(modalities=("p", "m"))
    assert number(loss(objective, outputs(made), seen)) == pytest.approx(number(loss(alone, outputs(made), seen)))
    nothing = batch({k: [True, False, False] for k in THREE})
    value = loss(objective, outputs(made), nothing)
    assert number(value) == 0
    assert all((g == 0).all() for g in torch.autograd.grad(value, list(made.values())))


def test_a_common_permutation_does_not_show_and_one_of_a_single_modality_does() -> None:
    made, objective = features(7, kinds=THREE), Contrastive(modalities=THREE, **ASTRO)
    made = {k: normalize(made["p"] + 0.1 * v, dim=1).detach() for k, v in made.items()}
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    before = number(loss(objective, outputs(made, 5.0)))
    assert number(loss(objective, outputs({k: v[order] for k, v in made.items()}, 5.0))) == pytest.approx(before)
    assert number(loss(objective, outputs(dict(zip("smp", made.values(), strict=True)), 5.0))) == pytest.approx(before)
    assert abs(number(loss(objective, outputs({**made, "m": made["m"][order]}, 5.0))) - before) > 0.1


def test_each_pair_has_its_own_scale_and_weight() -> None:
    made = features(5, kinds=THREE)
    scales = {"s-p": 3.0, "s-m": 7.0, "p-m": 2.0}
    objective = Contrastive(modalities=THREE, reduce="sum", weights={"m-p": 0.25, "s-m": 0})
    found = objective(outputs(made, scales), batch({k: [True] * 5 for k in THREE}))
    assert found.terms.keys() == {"p-s", "p-m"}
    for name, scale, weight in (("p-s", 3.0, 1.0), ("p-m", 2.0, 0.25)):
        a, b = name.split("-")
        two = loss(Contrastive(modalities=(a, b)), outputs({a: made[a], b: made[b]}, scale))
        assert number(found.terms[name]) / 5 == pytest.approx(weight * number(two), rel=1e-5)
        assert number(found.metrics[f"scale/{name}"][0]) == pytest.approx(scale)
    mean = Contrastive(modalities=THREE, weights={"m-p": 0.25, "s-m": 0})
    value = number(loss(mean, outputs(made, scales)))
    assert value == pytest.approx(number(loss(objective, outputs(made, scales))) / 1.25, rel=1e-5)


def test_a_star_has_the_pairs_of_its_anchor() -> None:
    seen = batch({k: [True] * 2 for k in THREE})
    star = Contrastive(modalities=THREE, pairs="star", anchor="s", reduce="sum")
    assert star.counts(seen) == {"s-p": 2.0, "s-m": 2.0}


def test_samples_of_one_number_are_positives_of_each_other() -> None:
    made = features(4)
    seen = batch({k: [True] * 4 for k in made}, label=[0.0, 1.0, 0.0, math.nan])
    many = Contrastive(modalities=("image", "text"), positives="label")
    logits = 5.0 * (made["image"] @ made["text"].T).detach()
    wanted = 0.0
    for block in (logits, logits.T):
        logp = block.log_softmax(1)
        wanted -= float((logp[0, 0] + logp[0, 2] + logp[2, 0] + logp[2, 2]) / 2 + logp[1, 1] + logp[3, 3]) / 8
    assert number(loss(many, outputs(made, 5.0), seen)) == pytest.approx(wanted, rel=1e-5)
    unknown = batch({k: [True] * 4 for k in made}, label=[0.0, -1.0, 0.0, -1.0])
    assert number(loss(many, outputs(made, 5.0), unknown)) == pytest.approx(wanted, rel=1e-5)
    twice = batch({k: [True] * 4 for k in made}, ids=[7, 8, 7, 9])
    plain = Contrastive(modalities=("image", "text"))
    assert number(loss(plain, outputs(made, 5.0), twice)) == pytest.approx(wanted, rel=1e-5)


def test_accuracy_is_of_the_mean_of_row_and_column_shares() -> None:
    made = features(9, dim=3, kinds=THREE)
    found = Contrastive(modalities=THREE)(outputs(made, 4.0), batch({k: [True] * 9 for k in THREE})).metrics
    shares = 0
    for a, b in (("p", "s"), ("p", "m"), ("s", "m")):
        logits = 4.0 * made[a] @ made[b].T
        share = logits.softmax(1) + logits.softmax(0)
        hits = int((share.argmax(1) == torch.arange(9)).sum())
        assert (number(found[f"accuracy/{a}-{b}"][0]), found[f"accuracy/{a}-{b}"][1]) == (hits, 9)
        shares = shares + share
    assert number(found["accuracy"][0]) == int((shares.argmax(1) == torch.arange(9)).sum())  # type: ignore[union-attr]


def test_half_precision_embeddings_are_compared_in_single() -> None:
    made = {k: v.detach().bfloat16() for k, v in features(16).items()}
    wanted = loss(Contrastive(modalities=("image", "text")), outputs({k: v.float() for k, v in made.items()}, 100.0))
    assert number(loss(Contrastive(modalities=("image", "text")), outputs(made, 100.0))) == number(wanted)


def test_what_cannot_be_compared_is_refused() -> None:
    for fields in (
        {"modalities": ("a",)},
        {"modalities": ("a", "a")},
        {"modalities": ("a", "b"), "weights": {"a-c": 1}},
        {"modalities": ("a", "b"), "weights": {"a-b": 0}},
        {"modalities": ("a", "b"), "anchor": "a"},
        {"modalities": ("a", "b"), "pairs": "star", "anchor": "c"},
    ):
        with pytest.raises(ValueError, match=r"wanted|wants"):
            Contrastive(**fields)  # type: ignore[arg-type]
    made = features(3)
    seen = batch({"image": [True] * 3, "text": [True] * 3})
    with pytest.raises(ConfigError, match="encoder for text"):
        Contrastive(modalities=("image", "text"))(outputs({"image": made["image"]}), seen)
    with pytest.raises(ConfigError, match="log_scale"):
        Contrastive(modalities=("image", "text"))(Outputs(embeddings=made), seen)
