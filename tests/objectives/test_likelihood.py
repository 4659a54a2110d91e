"""Maximum likelihood: token mean and reply mean over the optimizer step."""

import pytest
import torch

from mmpost.objectives.likelihood import Likelihood
from mmpost.types import Outputs
from tests.objectives.ragged import batch, flat, total


def test_token_mean_is_not_a_mean_of_means():
    """Four tokens of NLL 2 and one of NLL 1: 1.8, where averaging the micro-batches would give 1.5."""
    parts = [(batch([4]), Outputs(logp=flat([[-2.0] * 4]))), (batch([1]), Outputs(logp=flat([[-1.0]])))]
    assert total(Likelihood(), parts).item() == pytest.approx(1.8)
    assert total(Likelihood(reduce="reply"), parts).item() == pytest.approx(1.5)


def test_masked_tokens_and_replies_do_not_count():
    logp = flat([[-2.0, -float("inf")], [-4.0, -4.0], [-1.0, -3.0]])
    masked_batch = batch([2, 2, 2], mask=[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert total(Likelihood(), [(masked_batch, Outputs(logp=logp))]).item() == pytest.approx(2.0)
    loss = total(Likelihood(reduce="reply"), [(masked_batch, Outputs(logp=logp))])
    assert loss.item() == pytest.approx(2.0)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-0.5, 0, 0, 0, -0.25, -0.25])
    assert Likelihood().zero_gradient_mask(masked_batch).tolist() == [False, True, False]


def test_a_reply_mask_is_broadcast_to_its_tokens():
    masked_batch = batch([1, 3], mask=[1.0, 0.0])
    assert Likelihood().counts(masked_batch) == {"nll": 1.0}
    logp = flat([[-5.0], [-1.0] * 3])
    assert total(Likelihood(), [(masked_batch, Outputs(logp=logp))]).item() == 5.0


def test_numbers_in_float32_stay_float32():
    masked_batch = batch([2], dtype=torch.float32)
    assert Likelihood()(Outputs(logp=torch.zeros(2)), masked_batch).terms["nll"].dtype == torch.float32
