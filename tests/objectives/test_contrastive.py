"""The contrastive loss against hand-computed values and open_clip, and with missing modalities."""

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
        modality_mask={modality: torch.tensor(values) for modality, values in present.items()},
    )


def outputs(embeddings: Mapping[str, Any], scale: float | Mapping[str, float] = 1.0, **aux: float) -> Outputs:
    """`scale` is the factor itself, not its logarithm."""
    scales = {"log_scale": scale} if isinstance(scale, float | int) else {f"log_scale/{k}": v for k, v in scale.items()}
    scales_as_leaves = {name: torch.tensor(math.log(value), requires_grad=True) for name, value in scales.items()}
    aux_leaves = {name: torch.tensor(value, requires_grad=True) for name, value in aux.items()}
    return Outputs(
        embeddings={k: torch.as_tensor(v) for k, v in embeddings.items()}, aux={**scales_as_leaves, **aux_leaves}
    )


def loss(objective: Contrastive, contrast_outputs: Outputs, contrast_batch: Batch | None = None) -> Tensor:
    size = len(next(iter(contrast_outputs.embeddings.values())))
    contrast_batch = contrast_batch or batch({modality: [True] * size for modality in contrast_outputs.embeddings})
    return total(objective, [(contrast_batch, contrast_outputs)])


def to_float(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).detach())


EYE: Rows = [[1.0, 0.0], [0.0, 1.0]]
P, S, M = EYE, [[0.8, 0.6], [0.6, 0.8]], [[1.0, 0.0], [0.6, 0.8]]


def test_hand_computed_loss_of_three_modalities() -> None:
    astro = Contrastive(modalities=THREE, **ASTRO)
    identical = outputs(dict.fromkeys(THREE, EYE))
    assert to_float(loss(astro, identical)) == pytest.approx(1.879570, abs=2e-6)
    equal = outputs(dict.fromkeys(THREE, [[1.0, 0.0]] * 2), 37.0)
    assert to_float(loss(astro, equal)) == pytest.approx(6 * math.log(2), abs=1e-6)
    mixed = outputs({"p": P, "s": S, "m": M}, 10.0)
    assert to_float(loss(astro, mixed)) == pytest.approx(1.547582, abs=2e-6)
    assert to_float(loss(Contrastive(modalities=THREE), mixed)) == pytest.approx(0.257930, abs=1e-6)
    terms = astro(mixed, batch({k: [True, True] for k in THREE})).terms
    assert to_float(terms["p-s"]) / 2 == pytest.approx(0.126928 * 2, abs=2e-6)
    assert to_float(terms["s-m"]) / 2 == pytest.approx(0.901025 + 0.319972, abs=2e-6)
    assert to_float(terms["p-m"]) / 2 == pytest.approx(0.063487 + 0.009243, abs=2e-6)


def test_random_embeddings_have_a_loss_of_log_batch_size() -> None:
    equal = outputs({kind: normalize(torch.ones(512, 4), dim=1) for kind in THREE}, 100.0)
    assert to_float(loss(Contrastive(modalities=THREE, **ASTRO), equal)) == pytest.approx(37.4299, abs=1e-3)


def test_hand_computed_loss_of_two_modalities() -> None:
    clip = Contrastive(modalities=("a", "b"))
    assert to_float(loss(clip, outputs({"a": EYE, "b": EYE}))) == pytest.approx(0.313262, abs=1e-6)
    assert to_float(loss(clip, outputs({"a": EYE, "b": EYE}, 10.0))) == pytest.approx(4.539890e-05, rel=1e-3)
    siglip = Contrastive(modalities=("a", "b"), loss="siglip")
    assert to_float(loss(siglip, outputs({"a": EYE, "b": EYE}, 10.0, bias=-10.0))) == pytest.approx(0.693193, abs=1e-6)


def features(
    size: int, dim: int = 16, seed: int = 0, modalities: Sequence[str] = ("image", "text")
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: normalize(torch.randn(size, dim, generator=generator), dim=1).requires_grad_() for k in modalities}


@pytest.mark.parametrize("loss_name", ["infonce", "siglip"])
def test_two_modalities_equal_open_clip(loss_name: Any) -> None:
    embeddings = features(24)
    scale, bias = torch.tensor(2.0, requires_grad=True), torch.tensor(-3.0, requires_grad=True)
    aux = {"log_scale": scale} | ({"bias": bias} if loss_name == "siglip" else {})
    inputs = [*embeddings.values(), *aux.values()]
    if loss_name == "infonce":
        expected = open_clip.ClipLoss()(embeddings["image"], embeddings["text"], scale.exp())
    else:
        expected = open_clip.loss.SigLipLoss()(embeddings["image"], embeddings["text"], scale.exp(), bias)
    actual = loss(Contrastive(modalities=("image", "text"), loss=loss_name), Outputs(embeddings=embeddings, aux=aux))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    for a, b in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


def test_a_duplicated_modality_adds_the_loss_of_identical_features() -> None:
    embeddings = features(8)
    sum_of = Contrastive(modalities=("image", "text", "copy"), reduce="sum")
    actual = loss(sum_of, outputs({**embeddings, "copy": embeddings["text"]}, 5.0))
    clip = Contrastive(modalities=("image", "text"))
    identical = loss(clip, outputs({"image": embeddings["text"], "text": embeddings["text"]}, 5.0))
    assert to_float(actual) == pytest.approx(to_float(2 * loss(clip, outputs(embeddings, 5.0)) + identical), rel=1e-5)


def test_a_modality_absent_from_the_batch_is_ignored() -> None:
    embeddings = features(6, modalities=THREE)
    present = {"p": [True] * 6, "s": [True] * 6, "m": [False] * 6}
    for fields in ({}, {"reduce": "sum"}, {"loss": "siglip"}):
        three = Contrastive(modalities=THREE, **fields)  # type: ignore[arg-type]
        two = loss(Contrastive(modalities=("p", "s"), **fields), outputs(embeddings, 5.0))  # type: ignore[arg-type]
        assert to_float(loss(three, outputs(embeddings, 5.0), batch(present))) == pytest.approx(to_float(two), rel=1e-6)
        gone = outputs({k: embeddings[k] for k in ("p", "s")}, 5.0)
        assert to_float(loss(three, gone, batch(present))) == pytest.approx(to_float(two), rel=1e-6)


def test_a_missing_modality_drops_exactly_its_two_pairs() -> None:
    embeddings, objective = features(6, modalities=THREE), Contrastive(modalities=THREE, reduce="sum")
    present = {k: [True] * 6 for k in THREE}
    complete = objective(outputs(embeddings, 5.0), batch(present))
    one_missing = objective(outputs(embeddings, 5.0), batch({**present, "m": [True] * 5 + [False]}))
    without_sample = objective(
        outputs({k: v[:5] for k, v in embeddings.items()}, 5.0), batch({k: v[:5] for k, v in present.items()})
    )
    torch.testing.assert_close(one_missing.terms["p-s"], complete.terms["p-s"])
    for name in ("p-m", "s-m"):
        torch.testing.assert_close(one_missing.terms[name], without_sample.terms[name])
        assert one_missing.metrics[f"loss/{name}"][1] == 5
    value = total(objective, [(batch({**present, "m": [True] * 5 + [False]}), outputs(embeddings, 5.0))])
    gradients = dict(zip(embeddings, torch.autograd.grad(value, list(embeddings.values())), strict=True))
    assert (gradients["m"][5] == 0).all()
    assert (gradients["p"][5] != 0).any()


def test_a_single_sample_with_both_modalities_has_no_loss() -> None:
    embeddings, objective = features(3, modalities=THREE), Contrastive(modalities=THREE)
    partial = batch({"p": [True, True, False], "s": [True, False, False], "m": [True, True, False]})
    assert objective.counts(partial) == {"contrastive": 2.0}
    two_modalities = Contrastive(modalities=("p", "m"))
    assert to_float(loss(objective, outputs(embeddings), partial)) == pytest.approx(
        to_float(loss(two_modalities, outputs(embeddings), partial))
    )
    no_pairs = batch({k: [True, False, False] for k in THREE})
    value = loss(objective, outputs(embeddings), no_pairs)
    assert to_float(value) == 0
    assert all((g == 0).all() for g in torch.autograd.grad(value, list(embeddings.values())))


def test_permuting_all_modalities_changes_nothing_and_permuting_one_does() -> None:
    embeddings, objective = features(7, modalities=THREE), Contrastive(modalities=THREE, **ASTRO)
    embeddings = {k: normalize(embeddings["p"] + 0.1 * v, dim=1).detach() for k, v in embeddings.items()}
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    before = to_float(loss(objective, outputs(embeddings, 5.0)))
    assert to_float(loss(objective, outputs({k: v[order] for k, v in embeddings.items()}, 5.0))) == pytest.approx(
        before
    )
    assert to_float(loss(objective, outputs(dict(zip("smp", embeddings.values(), strict=True)), 5.0))) == pytest.approx(
        before
    )
    assert abs(to_float(loss(objective, outputs({**embeddings, "m": embeddings["m"][order]}, 5.0))) - before) > 0.1


def test_each_pair_has_its_own_scale_and_weight() -> None:
    embeddings = features(5, modalities=THREE)
    scales = {"s-p": 3.0, "s-m": 7.0, "p-m": 2.0}
    objective = Contrastive(modalities=THREE, reduce="sum", weights={"m-p": 0.25, "s-m": 0})
    result = objective(outputs(embeddings, scales), batch({k: [True] * 5 for k in THREE}))
    assert result.terms.keys() == {"p-s", "p-m"}
    for name, scale, weight in (("p-s", 3.0, 1.0), ("p-m", 2.0, 0.25)):
        a, b = name.split("-")
        two = loss(Contrastive(modalities=(a, b)), outputs({a: embeddings[a], b: embeddings[b]}, scale))
        assert to_float(result.terms[name]) / 5 == pytest.approx(weight * to_float(two), rel=1e-5)
        assert to_float(result.metrics[f"scale/{name}"][0]) == pytest.approx(scale)
    mean = Contrastive(modalities=THREE, weights={"m-p": 0.25, "s-m": 0})
    value = to_float(loss(mean, outputs(embeddings, scales)))
    assert value == pytest.approx(to_float(loss(objective, outputs(embeddings, scales))) / 1.25, rel=1e-5)


def test_a_star_has_the_pairs_of_its_anchor() -> None:
    complete = batch({k: [True] * 2 for k in THREE})
    star = Contrastive(modalities=THREE, pairs="star", anchor="s", reduce="sum")
    assert star.counts(complete) == {"s-p": 2.0, "s-m": 2.0}


def test_samples_with_equal_labels_are_positives_of_each_other() -> None:
    embeddings = features(4)
    labeled = batch({k: [True] * 4 for k in embeddings}, label=[0.0, 1.0, 0.0, math.nan])
    by_label = Contrastive(modalities=("image", "text"), positives="label")
    logits = 5.0 * (embeddings["image"] @ embeddings["text"].T).detach()
    expected = 0.0
    for block in (logits, logits.T):
        logp = block.log_softmax(1)
        expected -= float((logp[0, 0] + logp[0, 2] + logp[2, 0] + logp[2, 2]) / 2 + logp[1, 1] + logp[3, 3]) / 8
    assert to_float(loss(by_label, outputs(embeddings, 5.0), labeled)) == pytest.approx(expected, rel=1e-5)
    unknown = batch({k: [True] * 4 for k in embeddings}, label=[0.0, -1.0, 0.0, -1.0])
    assert to_float(loss(by_label, outputs(embeddings, 5.0), unknown)) == pytest.approx(expected, rel=1e-5)
    duplicates = batch({k: [True] * 4 for k in embeddings}, ids=[7, 8, 7, 9])
    plain = Contrastive(modalities=("image", "text"))
    assert to_float(loss(plain, outputs(embeddings, 5.0), duplicates)) == pytest.approx(expected, rel=1e-5)


def test_accuracy_is_the_mean_over_rows_and_columns() -> None:
    embeddings = features(9, dim=3, modalities=THREE)
    metrics = Contrastive(modalities=THREE)(outputs(embeddings, 4.0), batch({k: [True] * 9 for k in THREE})).metrics
    sum_of_probs = 0
    for a, b in (("p", "s"), ("p", "m"), ("s", "m")):
        logits = 4.0 * embeddings[a] @ embeddings[b].T
        probs = logits.softmax(1) + logits.softmax(0)
        hits = int((probs.argmax(1) == torch.arange(9)).sum())
        assert (to_float(metrics[f"accuracy/{a}-{b}"][0]), metrics[f"accuracy/{a}-{b}"][1]) == (hits, 9)
        sum_of_probs = sum_of_probs + probs
    assert to_float(metrics["accuracy"][0]) == int((sum_of_probs.argmax(1) == torch.arange(9)).sum())  # type: ignore[union-attr]


def test_half_precision_embeddings_are_compared_in_single() -> None:
    embeddings = {k: v.detach().bfloat16() for k, v in features(16).items()}
    expected = loss(
        Contrastive(modalities=("image", "text")), outputs({k: v.float() for k, v in embeddings.items()}, 100.0)
    )
    assert to_float(loss(Contrastive(modalities=("image", "text")), outputs(embeddings, 100.0))) == to_float(expected)


def test_invalid_contrastive_settings_are_refused() -> None:
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
    embeddings = features(3)
    complete = batch({"image": [True] * 3, "text": [True] * 3})
    with pytest.raises(ConfigError, match="encoder for text"):
        Contrastive(modalities=("image", "text"))(outputs({"image": embeddings["image"]}), complete)
    with pytest.raises(ConfigError, match="log_scale"):
        Contrastive(modalities=("image", "text"))(Outputs(embeddings=embeddings), complete)
