"""Preference losses against closed forms: a pair computed by hand, and properties of all pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mmpost.errors import TrainError
from mmpost.objectives.pairs import Options, Pairs, log1mexp, log_odds_ratio
from mmpost.objectives.preference import Preference
from mmpost.objectives.preference_forms import FORMS
from mmpost.types import Outputs
from tests.objectives.pair_oracle import Tables, tables
from tests.objectives.pairs import as_batch, example_pair, loss
from tests.objectives.ragged import batch, flat, select, total

# Policy log-probs -12 and -20, reference -13 and -18, 6 and 8 tokens, beta 0.1 by default.
FIXTURE: list[tuple[dict[str, Any], float]] = [
    ({"loss_type": "dpo"}, 0.554355),
    ({"loss_type": "sigmoid"}, 0.554355),
    ({"loss_type": "cdpo", "smoothing": 0.1}, 0.584355),
    ({"loss_type": "robust", "smoothing": 0.1}, 0.516855),
    ({"loss_type": "hinge"}, 0.7),
    ({"loss_type": "ipo"}, 21.006944),
    ({"loss_type": "ipo", "summed": True}, 4.0),
    ({"loss_type": "sigmoid_norm"}, 0.672531),
    ({"loss_type": "exo_pair", "smoothing": 1e-3}, 2.258199),
    ({"loss_type": "nca_pair"}, 1.315664),
    ({"loss_type": "bco_pair"}, 1.242536),
    ({"loss_type": "sppo_hard"}, 25.0),
    ({"divergence": "forward_kl"}, 0.402484),
    ({"divergence": "js"}, 0.606570),
    ({"divergence": "alpha", "order": 0.5}, 0.504106),
    ({"divergence": "alpha", "order": 1.0}, 0.554355),
    ({"loss_type": "ipo", "divergence": "forward_kl"}, 16.777335),
    ({"loss_type": "ipo", "divergence": "js"}, 22.633456),
    ({"loss_type": "sigmoid_norm", "divergence": "forward_kl"}, 0.648969),
    ({"loss_type": "sigmoid_norm", "divergence": "js"}, 0.681094),
    ({"loss_type": "mpo"}, 2.691991),
    ({"mix": {"dpo": 0.8, "bco_pair": 0.2, "sft": 1.0}}, 2.691991),
    ({"loss_type": "sft"}, 2.0),
    ({"loss_type": "apo_zero"}, 0.925187),
    ({"loss_type": "apo_down"}, 0.950537),
    ({"loss_type": "discopop"}, 0.740357),
    ({"loss_type": "rdpo", "length": 0.05}, 0.598139),
    ({"loss_type": "dpop", "penalty": 50.0}, 0.554355),
    ({"loss_type": "simpo", "beta": 2.0, "gamma": 1.0}, 0.693147),
    ({"loss_type": "simpo", "beta": 2.0, "gamma": 0.5}, 0.474077),
    ({"loss_type": "alphapo", "shape": 0.25, "beta": 2.0, "gamma": 1.0}, 0.384887),
    ({"loss_type": "alphapo", "shape": 0.0, "beta": 2.0, "gamma": 1.0}, 0.693147),
    ({"loss_type": "cpo", "nll_weight": 0.0}, 0.371101),
    ({"loss_type": "cpo"}, 2.371101),
    ({"loss_type": "slic", "nll_weight": 0.0}, 0.2),
    ({"loss_type": "orpo", "nll_weight": 0.0}, 0.045193),
    ({"loss_type": "orpo"}, 2.045193),
    ({"loss_type": "aot"}, 0.554355),
    ({"loss_type": "aot_unpaired"}, 0.554355),
]  # fmt: skip


def number(tensor: torch.Tensor) -> float:
    return tensor.item()


def case_id(fields: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in fields.items())


@pytest.mark.parametrize(("fields", "value"), FIXTURE, ids=[case_id(f) for f, _ in FIXTURE])
def test_a_pair_computed_by_hand(fields: dict[str, Any], value: float) -> None:
    assert loss(Preference(**fields), example_pair()).item() == pytest.approx(value, abs=6e-7)


def test_dpop_penalizes_a_decrease_of_the_chosen_log_prob() -> None:
    value = loss(Preference(loss_type="dpop"), example_pair(logp=(-14.0, -20.0)))
    assert value.item() == pytest.approx(4.907419, abs=6e-7)


def test_the_gradient_of_dpo_on_the_chosen_log_prob() -> None:
    pair_tables = example_pair()
    (gradient,) = torch.autograd.grad(loss(Preference(), pair_tables), pair_tables.logp)
    assert gradient[0, 0, :6].tolist() == pytest.approx([-0.042556] * 6, abs=6e-7)


def test_log_odds_of_the_pair() -> None:
    one = [torch.tensor([v], dtype=torch.float64) for v in (-12.0, -20.0, 0.0, 0.0, 6.0, 8.0)]
    assert float(log_odds_ratio(Pairs(*one))) == pytest.approx(0.559763, abs=6e-7)


def test_aot_compares_sorted_margins() -> None:
    """Policy margins 3 and -1, reference margins 0.5 and 1."""
    lengths = [1, 1, 1, 1]
    pair_batch = batch(
        lengths, groups=[0, 0, 1, 1], chosen=[1.0, 0.0, 1.0, 0.0], ref_logp=[[-1.5], [-2.0], [-1.0], [-2.0]]
    )
    outputs = Outputs(logp=flat([[-1.0], [-4.0], [-3.0], [-2.0]]))
    assert number(total(Preference(loss_type="aot"), [(pair_batch, outputs)])) == pytest.approx(0.684548, abs=6e-7)
    assert number(total(Preference(loss_type="dpo"), [(pair_batch, outputs)])) == pytest.approx(0.687039, abs=6e-7)


def test_ld_dpo_discounts_the_tail_of_the_longer_reply() -> None:
    pair_tables = example_pair()
    # Two tokens of the rejected reply beyond the six of the chosen one: -5 under the policy, -3 under the reference.
    logp, ref = pair_tables.logp.detach().clone(), pair_tables.ref.clone()
    logp[0, 1] = torch.tensor([-15.0 / 6] * 6 + [-2.5] * 2)
    ref[0, 1] = torch.tensor([-15.0 / 6] * 6 + [-1.5] * 2)
    tail = Tables(logp.requires_grad_(), ref, pair_tables.sum_p2, pair_tables.lengths)
    assert number(loss(Preference(ld_alpha=0.5), tail)) == pytest.approx(0.598139, abs=6e-7)
    assert number(loss(Preference(ld_alpha=1.0), tail)) == pytest.approx(number(loss(Preference(), tail)), abs=1e-12)


def kto_rows(z: float) -> tuple[Any, Outputs]:
    """A chosen reply of log-ratio 1, a rejected one of -2, and a mismatched one of log-ratio z."""
    pair_batch = batch(
        [1, 1, 1],
        groups=[0, 1, 1],
        chosen=[1.0, 0.0, 0.0],
        mismatched=[0.0, 0.0, 1.0],
        ref_logp=[[-13.0], [-18.0], [-9.0]],
    )
    return pair_batch, Outputs(logp=flat([[-12.0], [-20.0], [-9.0 + z]]))


def test_kto_of_the_pair() -> None:
    value = number(total(Preference(loss_type="kto"), [kto_rows(0.5)]))
    assert value == pytest.approx((0.487503 + 0.437823) / 2, abs=6e-7)
    weighted = number(total(Preference(loss_type="kto", desirable=2.0, undesirable=0.0), [kto_rows(0.5)]))
    assert weighted == pytest.approx(0.487503, abs=6e-7)
    # z is clamped at 0, and has no gradient.
    below = number(total(Preference(loss_type="kto"), [kto_rows(-3.0)]))
    assert below == pytest.approx(number(total(Preference(loss_type="kto"), [kto_rows(0.0)])), abs=1e-12)
    rows, outputs = kto_rows(0.5)
    assert outputs.logp is not None
    (gradient,) = torch.autograd.grad(total(Preference(loss_type="kto"), [(rows, outputs)]), outputs.logp)
    assert float(gradient[2]) == 0
    assert gradient[:2].abs().min() > 0


def test_the_likelihood_term_of_kto_covers_desirable_replies_only() -> None:
    rows, outputs = kto_rows(0.5)
    plain = number(total(Preference(loss_type="kto"), [(rows, outputs)]))
    # One desirable reply of one token with log-prob -12.
    assert number(total(Preference(loss_type="kto", nll_weight=0.25), [(rows, outputs)])) == pytest.approx(
        plain + 0.25 * 12.0
    )
    assert outputs.logp is not None
    (gradient,) = torch.autograd.grad(
        total(Preference(loss_type="kto", nll_weight=0.25), [(rows, outputs)]), outputs.logp
    )
    (without_nll,) = torch.autograd.grad(total(Preference(loss_type="kto"), [(rows, outputs)]), outputs.logp)
    assert (gradient - without_nll).tolist() == pytest.approx([-0.25, 0.0, 0.0], abs=1e-6)


def test_kto_without_replies_to_other_prompts_is_refused() -> None:
    pair_batch, outputs = kto_rows(0.5)
    alone, tokens = select(pair_batch, [0, 1])
    with pytest.raises(TrainError, match="at least two samples"):
        Preference(loss_type="kto")(Outputs(logp=outputs.logp[tokens]), alone)  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"loss_type": "dpo"}, math.log(2)),
        ({"loss_type": "robust", "smoothing": 0.1}, math.log(2)),
        ({"loss_type": "cdpo"}, math.log(2)),
        ({"loss_type": "ipo"}, 25.0),
        ({"loss_type": "ipo", "summed": True}, 25.0),
        ({"loss_type": "apo_zero"}, 1.0),
        ({"loss_type": "apo_down"}, 1.0),
        ({"loss_type": "bco_pair"}, 2 * math.log(2)),
        ({"loss_type": "nca_pair"}, 2 * math.log(2)),
        ({"loss_type": "hinge"}, 1.0),
        ({"loss_type": "sppo_hard"}, 50.0),
    ],
)
def test_where_policy_and_reference_agree(fields: dict[str, Any], value: float) -> None:
    pair_tables = tables([(6, 8), (3, 2), (4, 4)])
    pair_tables.ref = pair_tables.logp.detach().clone()
    assert number(loss(Preference(**fields), pair_tables)) == pytest.approx(value, rel=1e-9)


def test_kto_where_policy_and_reference_agree() -> None:
    rows, _ = kto_rows(0.0)
    same = Outputs(logp=rows.columns["ref_logp"].clone().requires_grad_())
    assert number(total(Preference(loss_type="kto"), [(rows, same)])) == pytest.approx(0.5, abs=1e-12)


def test_rdpo_is_dpo_at_equal_lengths_and_weaker_for_longer_chosen_replies() -> None:
    equal = example_pair(lengths=(6, 6))
    torch.testing.assert_close(loss(Preference(loss_type="rdpo"), equal), loss(Preference(), equal))
    gradients = []
    for n_w in (4, 6, 10):
        pair_tables = example_pair(lengths=(n_w, 6))
        (gradient,) = torch.autograd.grad(loss(Preference(loss_type="rdpo"), pair_tables), pair_tables.logp)
        gradients.append(float(gradient[0, 0, 0].abs()))
    assert gradients == sorted(gradients, reverse=True)
    assert gradients[0] > gradients[2]


PAIRED = [name for name, form in FORMS.items() if form.paired]


@pytest.mark.parametrize("loss_type", PAIRED)
def test_the_order_of_pairs_and_replies_does_not_matter(loss_type: str) -> None:
    pair_tables = tables([(6, 8), (3, 2), (4, 4), (1, 5)])
    objective = Preference(loss_type=loss_type)  # type: ignore[arg-type]
    pair_batch, outputs = as_batch(pair_tables, objective)
    order, tokens = select(pair_batch, [5, 4, 0, 1, 7, 6, 2, 3])
    assert outputs.logp is not None
    torch.testing.assert_close(
        total(objective, [(order, Outputs(logp=outputs.logp[tokens]))]), total(objective, [(pair_batch, outputs)])
    )


def test_kto_depends_on_the_mismatched_replies() -> None:
    assert number(total(Preference(loss_type="kto"), [kto_rows(0.5)])) != number(
        total(Preference(loss_type="kto"), [kto_rows(2.0)])
    )


PER_TOKEN = {"ipo", "sigmoid_norm", "simpo", "alphapo", "orpo", "rdpo", "sft", "cpo", "slic", "mpo"}
"""Losses that depend on lengths, directly or through their likelihood term."""


@pytest.mark.parametrize("loss_type", PAIRED)
def test_only_length_normalized_losses_depend_on_length(loss_type: str) -> None:
    """The same reply log-probs over more tokens."""
    objective = Preference(loss_type=loss_type)  # type: ignore[arg-type]
    same = torch.isclose(loss(objective, example_pair()), loss(objective, example_pair(lengths=(9, 8))))
    assert bool(same) == (loss_type not in PER_TOKEN)


def test_masked_tokens_have_no_effect() -> None:
    pair_tables = tables([(6, 8), (3, 2)])
    for loss_type in ("ipo", "simpo", "mpo"):
        objective = Preference(loss_type=loss_type, ld_alpha=0.5)  # type: ignore[arg-type]
        pair_batch, outputs = as_batch(pair_tables, objective)
        assert outputs.logp is not None
        # The same pairs with two masked tokens before the first reply.
        logps = {"logp": outputs.logp, **{k: pair_batch.columns[k] for k in objective.required_columns & {"ref_logp"}}}
        rows = {k: [values.tolist() for values in v.split([6, 8, 3, 2])] for k, v in logps.items()}
        longer = {k: [[-9.0, -9.0, *v[0]], *v[1:]] for k, v in rows.items()}
        masked = batch(
            [8, 8, 3, 2],
            groups=[0, 0, 1, 1],
            chosen=[1.0, 0.0, 1.0, 0.0],
            mask=[[0.0, 0.0, *[1.0] * 6], [1.0] * 8, [1.0] * 3, [1.0] * 2],
            **({"ref_logp": longer["ref_logp"]} if "ref_logp" in longer else {}),  # type: ignore[arg-type]
        )
        value = total(objective, [(masked, Outputs(logp=flat(longer["logp"])))])
        torch.testing.assert_close(value, total(objective, [(pair_batch, outputs)]))


def test_a_sample_with_several_rejected_replies_is_several_pairs() -> None:
    pair_batch = batch([1, 1, 1], groups=[0, 0, 0], chosen=[1.0, 0.0, 0.0], ref_logp=[[-2.0]] * 3)
    outputs = Outputs(logp=flat([[-1.0], [-2.0], [-4.0]]))
    assert Preference().counts(pair_batch) == {"preference": 2.0}
    ls = [math.log1p(math.exp(-0.1 * d)) for d in (1.0, 3.0)]
    assert number(total(Preference(), [(pair_batch, outputs)])) == pytest.approx(sum(ls) / 2, abs=1e-12)


def test_scores_make_pairs_of_all_replies_beyond_the_margin() -> None:
    pair_batch = batch([1] * 4, groups=[0] * 4, chosen=[0.5, 0.75, 0.75, 0.25], ref_logp=[[-2.0]] * 4)
    assert Preference().counts(pair_batch) == {"preference": 5.0}
    assert Preference(margin=0.3).counts(pair_batch) == {"preference": 2.0}
    # The likelihood term covers the best replies.
    assert Preference(nll_weight=0.5).counts(pair_batch) == {"preference": 5.0, "nll": 2.0}


def test_weights_of_wpo_are_those_of_the_policy_without_gradient() -> None:
    pair_tables = example_pair()
    pair_tables.sum_p2 = torch.full_like(pair_tables.sum_p2, math.exp(-1.0))
    plain, weighted = (Preference(weighting=w) for w in (False, True))
    # Means of -2 + 1 and -2.5 + 1 per token.
    weight = math.exp(-1.0) * math.exp(-1.5)
    gradients = []
    for objective in (plain, weighted):
        value = loss(objective, pair_tables)
        gradients.append(torch.autograd.grad(value, pair_tables.logp)[0])
    torch.testing.assert_close(gradients[1], weight * gradients[0])
    torch.testing.assert_close(loss(weighted, pair_tables), weight * loss(plain, pair_tables))


def test_required_columns() -> None:
    for loss_type in PAIRED:
        columns = Preference(loss_type=loss_type).required_columns  # type: ignore[arg-type]
        assert ("ref_logp" in columns) == (not FORMS[loss_type].reference_free)
    assert Preference(loss_type="kto").required_columns == {"mask", "chosen", "ref_logp", "mismatched"}
    assert [Preference(loss_type=k).unit for k in ("dpo", "aot", "kto", "apo_zero_unpaired")] == [
        *("group", "batch", "batch", "reply")
    ]  # fmt: skip


def test_logged_metrics() -> None:
    objective = Preference(nll_weight=0.1)
    metrics = objective(as_batch(example_pair(), objective)[1], as_batch(example_pair(), objective)[0]).metrics
    means = {name: float(total) / float(count) for name, (total, count) in metrics.items()}
    assert means == pytest.approx(
        {
            **{"rewards/chosen": 0.1, "rewards/rejected": -0.2, "rewards/margin": 0.3, "rewards/accuracy": 1.0},
            **{"logp/chosen": -12.0, "logp/rejected": -20.0, "length/chosen": 6.0, "length/rejected": 8.0},
            **{"nll/token": 2.0, "kl": (6 * (math.exp(-1 / 6) - 1) + 1 + 8 * (math.exp(0.25) - 1) - 2) / 14},
        }
    )


@pytest.mark.parametrize("loss_type", PAIRED)
@pytest.mark.parametrize("logp", [(-1e-30, -3000.0), (-3000.0, -1e-30), (0.0, 0.0)])
def test_extreme_log_probs_are_finite_in_single_precision(loss_type: str, logp: tuple[float, float]) -> None:
    pair_tables = example_pair(logp=logp)
    single = pair_tables.logp.detach().float().requires_grad_()
    small = Tables(single, pair_tables.ref.float(), pair_tables.sum_p2.float(), pair_tables.lengths)
    value = loss(Preference(loss_type=loss_type), small)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(value, single)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_log1mexp_on_both_sides_of_its_branch() -> None:
    x = torch.tensor([-1e-10, -0.1, -math.log(2), -0.7, -5.0, -40.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()]
    assert log1mexp(x).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss_type": "dpo", "smoothing": 0.1}, "smoothing has no effect on dpo"),
        ({"loss_type": "dpo", "gamma": 1.0}, "gamma has no effect on dpo, only on alphapo, simpo"),
        ({"loss_type": "kto", "ld_alpha": 0.5}, "ld_alpha has no effect on kto"),
        ({"loss_type": "nca_pair", "divergence": "js"}, "support a divergence other"),
        ({"loss_type": "dpo", "order": 0.3}, "order only applies to divergence=alpha"),
        ({"mix": {"kto": 0.5, "dpo": 0.5}}, "cannot be mixed"),
        ({"loss_type": "ipo", "mix": {"dpo": 1.0}}, "drop one of them"),
        ({"mix": {"typo": 1.0}}, "found 'typo'"),
        ({"loss_type": "exo_pair", "smoothing": 0.0}, "above 0"),
        ({"mix": {"dpo": 0.8, "sft": 1.0}, "nll_weight": 1.0}, "nll_weight conflicts with a mix that has sft"),
    ],
)
def test_settings_without_effect_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preference(**fields)


def test_options_follow_the_loss() -> None:
    assert Preference(loss_type="simpo").options == Options(beta=2.5, gamma=1.375)
    assert Preference(loss_type="simpo", beta=2.0).options.gamma == pytest.approx(1.1)
    assert Preference(loss_type="cdpo").options.smoothing == 0.1
    for mix in ({"dpo": 1.0, "robust": 1.0}, {"robust": 1.0, "dpo": 1.0}, {"sft": 1.0, "simpo": 1.0}):
        mixed = Preference(mix=mix)
        assert [mixed.options_of(name) for name in mix] == [Preference(loss_type=name).options for name in mix]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # d/d logp of -(1 - e) ls(x) - e ls(-x) is beta (s(x) - 1 + e) on the chosen side, at x = 0.3.
        ({"loss_type": "cdpo", "smoothing": 0.1}, 0.1 * (1 / (1 + math.exp(-0.3)) - 0.9)),
        # The same without smoothing at x = 0.3 - 0.1.
        ({"loss_type": "rdpo", "length": 0.05}, 0.1 * (1 / (1 + math.exp(-0.2)) - 1)),
        ({"loss_type": "ipo", "summed": True}, 2 * (3.0 - 5.0)),
        ({"loss_type": "dpop"}, 0.1 * (1 / (1 + math.exp(-0.3)) - 1)),
    ],
)
def test_gradients_of_losses_without_a_trl_equivalent(fields: dict[str, Any], expected: float) -> None:
    pair_tables = example_pair()
    (gradient,) = torch.autograd.grad(loss(Preference(**fields), pair_tables), pair_tables.logp)
    assert gradient[0, 0, :6].tolist() == pytest.approx([expected] * 6, rel=1e-6)
    assert gradient[0, 1].tolist() == pytest.approx([-expected] * 8, rel=1e-6)


def test_the_gradient_of_dpop_below_the_reference() -> None:
    """x = beta (r_w - r_l + penalty r_w): the gradient of the chosen reply has a factor of 1 + penalty."""
    pair_tables = example_pair(logp=(-14.0, -20.0))
    (gradient,) = torch.autograd.grad(loss(Preference(loss_type="dpop"), pair_tables), pair_tables.logp)
    dpo_gradient = 0.1 * (1 / (1 + math.exp(4.9)) - 1)
    assert gradient[0, 0, 0].item() == pytest.approx(51 * dpo_gradient, rel=1e-6)
    assert gradient[0, 1, 0].item() == pytest.approx(-dpo_gradient, rel=1e-6)
