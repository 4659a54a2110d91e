"""Value and gradient of every preference loss against the trainers of trl; `pytest -s` prints the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpost.objectives.preference import Preference
from mmpost.types import Outputs
from tests.objectives import pair_oracle
from tests.objectives.pair_oracle import tables
from tests.objectives.pairs import loss
from tests.objectives.ragged import batch, total

pytest.importorskip("trl", reason="the numerical reference")
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = [(6, 8), (3, 3), (9, 2), (1, 7), (5, 4)]
EXACT = 1e-5
SMOOTHED = {"label_smoothing": 0.1}
MPO = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}

DPO: dict[str, tuple[dict[str, Any], dict[str, float], dict[str, Any]]] = {
    # name: (our fields, their loss types with weights, their settings)
    "dpo (sigmoid)": ({"loss_type": "dpo"}, {"sigmoid": 1.0}, {}),
    "robust": ({"loss_type": "robust"}, {"robust": 1.0}, SMOOTHED),
    "hinge": ({"loss_type": "hinge"}, {"hinge": 1.0}, {}),
    "ipo (per token)": ({"loss_type": "ipo"}, {"ipo": 1.0}, {}),
    "sigmoid_norm": ({"loss_type": "sigmoid_norm"}, {"sigmoid_norm": 1.0}, {}),
    "exo_pair": ({"loss_type": "exo_pair"}, {"exo_pair": 1.0}, {"label_smoothing": 1e-3}),
    "nca_pair": ({"loss_type": "nca_pair"}, {"nca_pair": 1.0}, {}),
    "bco_pair": ({"loss_type": "bco_pair"}, {"bco_pair": 1.0}, {}),
    "sppo_hard": ({"loss_type": "sppo_hard"}, {"sppo_hard": 1.0}, {}),
    "aot": ({"loss_type": "aot", "smoothing": 0.1}, {"aot": 1.0}, SMOOTHED),
    "aot_unpaired": ({"loss_type": "aot_unpaired"}, {"aot_unpaired": 1.0}, {}),
    "apo_zero": ({"loss_type": "apo_zero"}, {"apo_zero": 1.0}, {}),
    "apo_down": ({"loss_type": "apo_down"}, {"apo_down": 1.0}, {}),
    "discopop": ({"loss_type": "discopop"}, {"discopop": 1.0}, {}),
    "sft": ({"loss_type": "sft"}, {"sft": 1.0}, {}),
    "mpo": ({"loss_type": "mpo"}, MPO, {}),
    "dpo, ld_alpha 0.5": ({"ld_alpha": 0.5}, {"sigmoid": 1.0}, {"ld_alpha": 0.5}),
    "ipo, ld_alpha 0": ({"loss_type": "ipo", "ld_alpha": 0.0}, {"ipo": 1.0}, {"ld_alpha": 0.0}),
    "dpo, WPO": ({"weighting": True}, {"sigmoid": 1.0}, {"use_weighting": True}),
    "ipo, forward_kl": (
        {"loss_type": "ipo", "divergence": "forward_kl"},
        {"ipo": 1.0},
        {"f_divergence_type": "forward_kl"},
    ),
    "sigmoid_norm, js": (
        {"loss_type": "sigmoid_norm", "divergence": "js"}, {"sigmoid_norm": 1.0}, {"f_divergence_type": "js_divergence"}
    ),
    "dpo, alpha 0.5": ({"divergence": "alpha"}, {"sigmoid": 1.0}, {"f_divergence_type": "alpha_divergence"}),
}  # fmt: skip
CPO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cpo + nll": ({"loss_type": "cpo"}, {}),
    "cpo, smoothed": ({"loss_type": "cpo", "nll_weight": 0.0, "smoothing": 0.1}, {"cpo_alpha": 0.0, **SMOOTHED}),
    "slic + nll": ({"loss_type": "slic"}, {"loss_type": "hinge"}),
    "simpo": ({"loss_type": "simpo", "gamma": 0.5, "beta": 0.7}, {"loss_type": "simpo", "beta": 0.7, "cpo_alpha": 0.0}),
    "simpo, paper": (
        {"loss_type": "simpo"},
        {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 1.375, "cpo_alpha": 0.0},
    ),
    "alphapo": (
        {"loss_type": "alphapo", "beta": 2.0, "gamma": 1.0},
        {"loss_type": "simpo", "alpha": 0.25, "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
    ),
}
Compare = Callable[..., tuple[float, float]]


@pytest.fixture(scope="module")
def compare() -> Iterator[Compare]:
    """Returns the relative errors of a loss and its gradient; prints a table of all of them at the end."""
    rows: list[str] = []

    def errors(name: str, actual: Tensor, expected: Tensor, leaves: list[Tensor]) -> tuple[float, float]:
        both_gradients = [
            torch.autograd.grad(value, leaves, materialize_grads=True, allow_unused=True)
            for value in (actual, expected)
        ]
        ours, theirs = (torch.cat([g.flatten() for g in grads]) for grads in both_gradients)
        loss_error = abs(float(actual) - float(expected)) / abs(float(expected))
        gradient_error = float((ours - theirs).norm() / theirs.norm())
        rows.append(
            f"| {name} | {float(actual):.6f} | {float(expected):.6f} | {loss_error:.1e} | {gradient_error:.1e} |"
        )
        assert theirs.norm() > 1e-3
        return loss_error, gradient_error

    yield errors
    print("\n\n| loss | ours | trl 1.16.0 | difference of loss | of gradient |\n|---|---|---|---|---|")
    print("\n".join(rows))


@pytest.mark.parametrize("name", DPO)
def test_dpo_trainer(compare: Compare, name: str) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    fields, weights, settings = DPO[name]
    # trl does not clamp for float64.
    dtype = torch.float32 if "alpha" in settings.get("f_divergence_type", "") else torch.float64
    pair_tables = tables(LENGTHS, 1, dtype)
    expected = pair_oracle.dpo(DPOTrainer, pair_tables, weights, **settings)
    loss_error, gradient_error = compare(name, loss(Preference(**fields), pair_tables), expected, [pair_tables.logp])
    assert loss_error < EXACT
    assert gradient_error < EXACT


@pytest.mark.parametrize("name", CPO)
def test_cpo_trainer(compare: Compare, name: str) -> None:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    fields, settings = CPO[name]
    pair_tables = tables(LENGTHS, 2)
    expected = pair_oracle.cpo_or_orpo(CPOTrainer, pair_tables, **settings)
    loss_error, gradient_error = compare(name, loss(Preference(**fields), pair_tables), expected, [pair_tables.logp])
    assert loss_error < EXACT
    assert gradient_error < EXACT


def test_orpo_trainer(compare: Compare) -> None:
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    pair_tables = tables(LENGTHS, 3)
    expected = pair_oracle.cpo_or_orpo(ORPOTrainer, pair_tables)
    actual = loss(Preference(loss_type="orpo"), pair_tables)
    loss_error, gradient_error = compare("orpo + nll", actual, expected, [pair_tables.logp])
    assert loss_error < EXACT
    assert gradient_error < EXACT


@pytest.mark.parametrize(("loss_type", "shift"), [("kto", 0.4), ("kto", -0.4), ("apo_zero_unpaired", 0.4)])
def test_kto_trainer(compare: Compare, loss_type: str, shift: float) -> None:
    """With a positive z, and with one that is clamped at 0."""
    from trl.trainer.kto_trainer import KTOTrainer

    pair_tables, mismatched = tables([(n, n) for n in (4, 7, 2, 5)], 4), tables([(n, n) for n in (7, 2, 5, 4)], 5)
    mismatched.logp = mismatched.logp.detach()
    mismatched.ref = mismatched.logp - shift
    labels = [True, False, False, True]
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    expected = pair_oracle.kto(KTOTrainer, pair_tables, mismatched, labels, loss_type, **weights)
    reply_tables = (pair_tables, mismatched) if loss_type == "kto" else (pair_tables,)
    masks = [t.present[:, 0] for t in reply_tables]
    ref = [
        row[m].tolist()
        for t, mask in zip(reply_tables, masks, strict=True)
        for row, m in zip(t.ref[:, 0], mask, strict=True)
    ]
    columns = {"ref_logp": ref, "chosen": [*map(float, labels), *[0.0] * (len(ref) - 4)]}
    if loss_type == "kto":
        columns["mismatched"] = [0.0] * 4 + [1.0] * 4
    reply_batch = batch([len(row) for row in ref], **columns)
    outputs = Outputs(logp=torch.cat([t.logp[:, 0][mask] for t, mask in zip(reply_tables, masks, strict=True)]))
    objective = Preference(loss_type=loss_type, desirable=1.5, undesirable=0.7)  # type: ignore[arg-type]
    name = f"kto, z {'> 0' if shift > 0 else '= 0'}" if loss_type == "kto" else loss_type
    loss_error, gradient_error = compare(name, total(objective, [(reply_batch, outputs)]), expected, [pair_tables.logp])
    assert loss_error < EXACT
    assert gradient_error < EXACT
