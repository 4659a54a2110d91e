"""The contract of updates: frozen parameters stay, and a saved state resumes exactly."""

from __future__ import annotations

import inspect

import pytest
import torch

from mmpost.config import registry
from mmpost.config.settings import OptimSettings
from mmpost.errors import ConfigError
from mmpost.types import Update
from mmpost.updates.adamw import AdamWUpdate, schedule

PARTS = {"body": ["0"], "head": ["1"]}
OPTIM = OptimSettings(lr=0.1, weight_decay=0.1, schedule="cosine", warmup=3, lr_multipliers={"head": 0.5})

UPDATES = [
    value
    for name in registry.modules("mmpost.updates")
    for value in vars(registry.module(name, "mmpost.updates")).values()
    if inspect.isclass(value) and issubclass(value, Update) and value is not Update
]


def make(update_class: type[Update], frozen: bool = False) -> tuple[torch.nn.Sequential, Update]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    if frozen:
        module[0].requires_grad_(False)
    update = update_class(OPTIM)  # type: ignore[call-arg]
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
