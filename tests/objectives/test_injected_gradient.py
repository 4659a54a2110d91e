"""Injecting the truth is weighted supervised learning: gradients on a tiny language model."""

import pytest
import torch
from torch import Tensor, nn

from mmpost.core.columns import collate
from mmpost.objectives.likelihood import Likelihood
from mmpost.objectives.policy import PolicyLoss
from mmpost.transforms.advantage import GroupAdvantage
from mmpost.transforms.score import SmoothTruth
from mmpost.types import Batch, Outputs
from tests.objectives.ragged import select, total
from tests.transforms.fakes import FakeContext, group

VOCAB = 12
LENGTHS = [4, 2, 5, 3, 6]


def bigram_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(VOCAB, 8), nn.Tanh(), nn.Linear(8, VOCAB)).double()


def logp(module: nn.Module, ids: Tensor) -> Tensor:
    """Log-probs of a bigram model; 0 starts a reply."""
    previous = torch.cat([torch.zeros(1, dtype=torch.long), ids[:-1]])
    return module(previous).log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def gradient(module: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, materialize_grads=True))


def setup(rollouts: list[float], truth: float) -> tuple[nn.Module, Batch, Tensor, list[float]]:
    context = FakeContext()
    (sample,) = GroupAdvantage()(SmoothTruth()([group(rollouts, truth, LENGTHS)], context), context)
    batch = collate([sample], {"advantage", "mask"})
    module = bigram_model()
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(VOCAB, (n,), generator=generator) for n in LENGTHS]
    lp = torch.cat([logp(module, x) for x in ids])
    return module, batch, lp, batch.columns["advantage"].tolist()


def test_the_gradient_matches_the_paper():
    """On-policy: -(1 / (G + 1)) of the sum over members of A times the gradient of the mean log-probability."""
    module, batch, lp, advantages = setup([5, 3, 3, 1], 6)
    actual = gradient(module, total(PolicyLoss(), [(batch, Outputs(logp=lp))]))
    means = batch.sum(lp) / torch.tensor(LENGTHS)
    expected = gradient(module, -(torch.tensor(advantages, dtype=torch.float64) * means).sum() / 5)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("rollouts", "weight"), [([1, 1, 1, 1], 1.788854), ([7, 7, 3, 3], 0), ([6, 2, 2, 2], 0), ([7, 7, 7, 7], 0)]
)
def test_the_gradient_of_the_truth_is_weighted_supervised_learning(rollouts, weight):
    module, batch, lp, _ = setup(rollouts, 6)
    truth, tokens = select(batch, [4])
    truth_term = PolicyLoss()(Outputs(logp=lp[tokens]), truth).terms["policy"] / PolicyLoss().counts(batch)["policy"]
    actual = gradient(module, truth_term)
    sft = gradient(module, total(Likelihood(reduce="reply"), [(truth, Outputs(logp=lp[tokens]))]))
    torch.testing.assert_close(actual, [weight / 5 * g for g in sft], rtol=1e-5, atol=1e-9)
    if weight == 0:
        assert all(g.abs().max() == 0 for g in actual)
        assert PolicyLoss().zero_gradient_mask(batch)[4]


def test_a_solved_group_has_no_gradient():
    module, batch, lp, _ = setup([7, 7, 7, 7], 6)
    assert PolicyLoss().zero_gradient_mask(batch).all()
    assert all(g.abs().max() == 0 for g in gradient(module, total(PolicyLoss(), [(batch, Outputs(logp=lp))])))
