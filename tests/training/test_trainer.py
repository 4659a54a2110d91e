"""An optimizer step does not depend on its micro-batches or the number of ranks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from forked import on_two_ranks
from gradients import gradient, relative

from mmpost.errors import ConfigError, TrainError
from mmpost.objectives.likelihood import Likelihood
from mmpost.objectives.policy import FORMS, PolicyLoss
from mmpost.training.trainer import allocate_steps, split_minibatches
from mmpost.types import Loss, Objective

OBJECTIVES: dict[str, Objective] = {
    **{
        name: PolicyLoss(
            loss_type=name,  # type: ignore[arg-type]
            old="column",
            beta=0.1,
            entropy=0.01,
            max_tokens=10 if name == "dr_grpo" else None,
        )
        for name in FORMS
    },
    "likelihood": Likelihood(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_do_not_change_the_gradient(name: str, tiny_folder: str) -> None:
    full, loss = gradient(tiny_folder, OBJECTIVES[name])
    assert full.norm() > 1e-4
    for micro in (1, 4):
        accumulated, accumulated_loss = gradient(tiny_folder, OBJECTIVES[name], max_replies_per_microbatch=micro)
        assert relative(accumulated, full) < 1e-5
        assert math.isclose(accumulated_loss, loss, rel_tol=1e-5, abs_tol=1e-6)


def test_two_ranks_give_the_gradient_of_one_rank(tiny_folder: str, tmp_path: Path) -> None:
    def all_objectives() -> dict[str, tuple[torch.Tensor, float]]:
        return {name: gradient(tiny_folder, objective) for name, objective in OBJECTIVES.items()}

    two_ranks = on_two_ranks(all_objectives, tmp_path)
    for name, (full, loss) in all_objectives().items():
        gradient_of_two, loss_of_two = two_ranks[name]
        assert relative(gradient_of_two, full) < 1e-5, name
        assert math.isclose(loss_of_two, loss, rel_tol=1e-5, abs_tol=1e-6), name


def test_a_rollout_batch_cut_into_updates_keeps_its_dapo_denominator(tiny_folder: str) -> None:
    """dapo divides by (tokens of the rollout batch) / k for k updates, so k gradients sum to k times that of one."""
    objective = PolicyLoss(loss_type="dapo", old="column")
    full, _ = gradient(tiny_folder, objective)
    two_updates, _ = gradient(tiny_folder, objective, updates=2)
    assert relative(two_updates, 2 * full) < 1e-5
    bnpo_updates, _ = gradient(tiny_folder, PolicyLoss(loss_type="bnpo", old="column"), updates=2)
    assert relative(bnpo_updates, 2 * full) > 1e-3


def test_a_loss_that_is_not_finite_stops_and_names_its_samples(tiny_folder: str) -> None:
    class Broken(Likelihood):
        def __call__(self, outputs, batch) -> Loss:  # type: ignore[no-untyped-def]
            return Loss({k: v * math.nan for k, v in super().__call__(outputs, batch).terms.items()})

    with pytest.raises(TrainError, match=r"digits-train-5-0.*digits-train-5-7"):
        gradient(tiny_folder, Broken())


def test_the_one_sample_whose_loss_is_not_finite_is_named(tiny_folder: str) -> None:
    """Only the longest reply of its micro-batch overflows."""

    class Overflows(Likelihood):
        def __call__(self, outputs, batch) -> Loss:  # type: ignore[no-untyped-def]
            longest = int(batch.sum(torch.ones(batch.tokens)).max()) >= 8
            return Loss(
                {k: v * (math.inf if longest else 1.0) for k, v in super().__call__(outputs, batch).terms.items()}
            )

    with pytest.raises(TrainError) as raised:
        gradient(tiny_folder, Overflows())
    named_uids = str(raised.value).split("Not finite on their own: ")[1].split(". ")[0]
    assert 0 < len(named_uids.split(", ")) < 8
    assert "weights were not moved" in str(raised.value)


def test_minibatches_and_rank_shards_cover_all_samples() -> None:
    assert [len(p) for p in split_minibatches(list(range(7)), 3)] == [2, 3, 2]  # type: ignore[arg-type]
    assert [len(p) for p in split_minibatches([], 2)] == [0, 0]
    assert allocate_steps(10, [("a", 1.0), ("b", 2.0)]) == {"a": 3, "b": 7}
    assert sum(allocate_steps(101, [("a", 0.3), ("b", 0.3), ("c", 0.4)]).values()) == 101


def test_several_updates_need_old_log_probs() -> None:
    assert PolicyLoss(loss_type="grpo").on_policy_only
    assert not PolicyLoss(loss_type="grpo", old="column").on_policy_only
    assert issubclass(ConfigError, ValueError)
