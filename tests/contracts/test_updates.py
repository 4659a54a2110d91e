"""The contract of updates: frozen parameters stay, and a saved state resumes exactly."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
import torch

from mmpost.config import registry
from mmpost.config.settings import OptimSettings
from mmpost.errors import ConfigError
from mmpost.types import Update
from mmpost.updates.adam import UPDATES as UPDATE_NAMES, AdamUpdate, named_update
from mmpost.updates.adamw import AdamWUpdate, schedule

PARTS = {"body": ["0"], "head": ["1"]}
OPTIM = OptimSettings(lr=0.1, weight_decay=0.1, schedule="cosine", warmup=3, lr_multipliers={"head": 0.5})
PLATEAU = OptimSettings(
    lr=0.1, schedule="plateau", plateau_factor=0.5, plateau_patience=1, monitor="-a/loss", early_stopping_patience=5
)

UPDATES = list(
    dict.fromkeys(
        value
        for name in registry.modules("mmpost.updates")
        for value in vars(registry.module(name, "mmpost.updates")).values()
        if inspect.isclass(value) and issubclass(value, Update) and value is not Update
    )
)


def make(
    update_class: type[Update], frozen: bool = False, optim: OptimSettings = OPTIM
) -> tuple[torch.nn.Sequential, Update]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    if frozen:
        module[0].requires_grad_(False)
    update = update_class(optim)  # type: ignore[call-arg]
    update.start(module, PARTS, steps=20)
    return module, update


def run(module: torch.nn.Module, update: Update, steps: int, seed: int) -> list[float]:
    learning_rates = []
    for step in range(steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed + step))
        module(x).square().sum().backward()
        learning_rates.append(update.step()["lr"])
    return learning_rates


@pytest.mark.parametrize("update_class", UPDATES)
def test_frozen_parameters_are_bit_identical_under_weight_decay(update_class: type[Update]) -> None:
    module, update = make(update_class, frozen=True)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    run(module, update, 10, seed=1)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("0."), name


@pytest.mark.parametrize("update_class", UPDATES)
def test_resuming_equals_an_uninterrupted_run(update_class: type[Update]) -> None:
    uninterrupted, update = make(update_class)
    run(uninterrupted, update, 10, seed=1)
    first, before = make(update_class)
    run(first, before, 4, seed=1)
    second, after = make(update_class)
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    run(second, after, 6, seed=5)
    for a, b in zip(uninterrupted.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("update_class", UPDATES)
@pytest.mark.parametrize("kept", [1, 3, 5, 6])
def test_resuming_on_a_plateau_equals_an_uninterrupted_run(update_class: type[Update], kept: int) -> None:
    """One step and one evaluation in turn: the best metric, the counters and the lowered rate are part of the state."""

    def heard(module: torch.nn.Module, update: Update, losses: list[float]) -> list[tuple[float, bool]]:
        out = []
        for loss in losses:
            (rate,) = run(module, update, 1, seed=int(100 * loss))
            update.observe({"a/loss": loss})
            out.append((rate, update.should_stop))
        return out

    losses = [3.0, 2.0, 2.5, 2.5, 2.1, 2.2, 2.3, 1.0]
    uninterrupted, update = make(update_class, optim=PLATEAU)
    expected = heard(uninterrupted, update, losses)
    # The best is 2.0: every second evaluation after it halves the rate, and the fifth ends the stage.
    assert [rate for rate, _ in expected] == pytest.approx([0.1] * 4 + [0.05] * 2 + [0.025] * 2)
    assert [stops for _, stops in expected] == [False] * 6 + [True, False]
    first, before = make(update_class, optim=PLATEAU)
    done = heard(first, before, losses[:kept])
    second, after = make(update_class, optim=PLATEAU)
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    assert done + heard(second, after, losses[kept:]) == expected
    for a, b in zip(uninterrupted.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adam_on_a_plateau_equals_the_release_of_astrom3() -> None:
    """Adam with L2 on everything, LinearLR by epochs, then ReduceLROnPlateau, stepped as in its src/trainer.py."""
    epoch, warmup = 3, 2
    optim = OptimSettings(
        **{"name": "adam", "lr": 0.0625, "betas": (0.75, 0.999), "weight_decay": 0.25, "weight_decay_on": "all"},
        **{"max_grad_norm": 1.0, "warmup": warmup * epoch, "warmup_start": 1e-5, "warmup_interval": epoch},
        **{"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 1, "monitor": "-val/loss"},
    )
    module, update = make(AdamUpdate, optim=optim)
    reference, _ = make(AdamUpdate, optim=optim)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.0625, betas=(0.75, 0.999), weight_decay=0.25)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-5, total_iters=warmup)
    rates = []
    for number, loss in enumerate([2.0, 5.0, 5.0, 3.0, 3.5, 3.25, 4.0, 2.5, 2.75, 2.75, 2.0]):
        for _ in range(epoch):
            x = torch.randn(5, 3)
            for m in (module, reference):
                m(x).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rates.append(optimizer.param_groups[0]["lr"])
            assert update.step()["lr"] == pytest.approx(rates[-1], rel=1e-6)
        update.observe({"val/loss": loss})
        linear.step() if number < warmup else plateau.step(loss)
    assert (max(rates), rates[-1]) == pytest.approx((0.0625, 0.0625 / 4))
    for a, b in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_weight_decay_of_adam_is_part_of_the_gradient() -> None:
    """First step from zero gradients: Adam moves by lr * sign(weight), whatever the decay; AdamW by lr * decay."""
    start, _ = make(AdamUpdate)
    for update_class, expected in (
        (AdamUpdate, lambda p: p - 0.1 * p.sign()),
        (AdamWUpdate, lambda p: p - 0.1 * 0.25 * p),
    ):
        module, update = make(update_class, optim=OptimSettings(lr=0.1, weight_decay=0.25, weight_decay_on="all"))
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        update.step()
        for p, q in zip(module.parameters(), start.parameters(), strict=True):
            torch.testing.assert_close(p, expected(q), rtol=1e-5, atol=1e-6)


def test_a_metric_that_is_not_measured_is_named() -> None:
    _, update = make(AdamWUpdate, optim=PLATEAU)
    with pytest.raises(ConfigError, match=r"found 'a/loss', which is not among b/loss, b/score; correct it"):
        update.observe({"b/score": 1.0, "b/loss": 1.0})
    _, deaf = make(AdamWUpdate)
    deaf.observe({"b/loss": 1.0})
    assert not deaf.should_stop


def test_the_names_of_optimizers() -> None:
    assert set(UPDATE_NAMES) == set(get_args(OptimSettings.model_fields["name"].annotation))
    assert [type(named_update(OptimSettings(name=name))) for name in ("adam", "adamw")] == [AdamUpdate, AdamWUpdate]
    assert (AdamUpdate.optimizer_class, AdamWUpdate.optimizer_class) == (torch.optim.Adam, torch.optim.AdamW)


def test_a_non_finite_gradient_changes_no_weight() -> None:
    module, update = make(AdamWUpdate)
    before = [p.clone() for p in module.parameters()]
    (module(torch.ones(1, 3)).sum() * float("inf")).backward()
    assert not torch.isfinite(torch.tensor(update.step()["grad_norm"]))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_one_step_equals_that_of_torch() -> None:
    module, update = make(AdamWUpdate)
    reference, _ = make(AdamWUpdate)
    optimizer = torch.optim.AdamW(
        [
            {"params": [reference[0].weight], "lr": 0.1 * 0.25, "weight_decay": 0.1},
            {"params": [reference[0].bias], "lr": 0.1 * 0.25, "weight_decay": 0.0},
            {"params": [reference[1].weight], "lr": 0.05 * 0.25, "weight_decay": 0.1},
            {"params": [reference[1].bias], "lr": 0.05 * 0.25, "weight_decay": 0.0},
        ]
    )
    for m in (module, reference):
        (m(torch.ones(1, 3)).sum() * 0.01).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    update.step()
    optimizer.step()
    for a, b in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warmup": 3}, [0.25, 0.5, 0.75, 1, 1]),
        ({"warmup": 0.4, "schedule": "linear"}, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        ({"warmup": 4, "warmup_start": 0.2}, [0.2, 0.4, 0.6, 0.8, 1]),
        ({"warmup": 4, "warmup_start": 0.2, "warmup_interval": 2, "schedule": "plateau"}, [0.2, 0.2, 0.6, 0.6, 1]),
        ({"schedule": "cosine", "min_lr_ratio": 0.5}, [1, 0.952254, 0.827254, 0.672746, 0.547746]),
    ],
)
def test_schedules(settings: dict[str, object], expected: list[float]) -> None:
    optim = OptimSettings.model_validate(settings)
    assert [schedule(optim, step, 5) for step in range(5)] == pytest.approx(expected, abs=1e-6)


def test_lr_multipliers_of_missing_parts_are_refused() -> None:
    update = AdamWUpdate(OptimSettings(lr_multipliers={"vison": 0.1}))
    with pytest.raises(ConfigError, match=r"\['vison'\]; this model has \['body', 'head'\]"):
        update.start(torch.nn.Linear(2, 2), PARTS, 1)
