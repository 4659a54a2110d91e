"""A new loss is one row of a table: example losses are added that way, and a run trains with them by name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_runs import QUICK, lines

import mmpost
from mmpost.config import run_config
from mmpost.errors import ConfigError
from mmpost.objectives import policy_forms, preference_forms
from mmpost.objectives.pairs import LabeledReplies, Numbers, Options, Pairs
from mmpost.objectives.policy import PolicyLoss
from mmpost.objectives.policy_forms import PolicyForm, PolicyOptions, PolicyTokens, Surrogate, Tokens
from mmpost.objectives.preference import Preference
from mmpost.objectives.preference_forms import PreferenceForm
from mmpost.runs.configured_task import make_task
from mmpost.types import Outputs
from tests.objectives.pairs import example_pair, loss
from tests.objectives.ragged import batch, flat, total


def exponential(p: Pairs, o: Options) -> Numbers:
    """exp(-beta (r_w - r_l)) + smoothing."""
    return (-o.beta * (p.r_w - p.r_l)).exp() + o.smoothing


def mean_difference(p: Pairs, o: Options) -> Numbers:
    return -o.beta * (p.mean_w - p.mean_l)


def signed(x: LabeledReplies, o: Options) -> Numbers:
    return o.beta * torch.where(x.good, -x.r, x.r)


def linear(x: PolicyTokens, o: PolicyOptions) -> Tokens:
    return -x.ratio * x.advantage


PREFERENCE: dict[str, PreferenceForm] = {
    "exponential": PreferenceForm(
        exponential, paper="made up", beta=0.2, smoothing=0.25, options=frozenset({"smoothing"})
    ),
    "mean_difference": PreferenceForm(
        mean_difference, paper="made up", reference_free=True, nll_weight=0.5, reward=preference_forms.mean_reward
    ),
    "signed": PreferenceForm(unpaired_function=signed, paper="made up"),
    "blend": PreferenceForm(mix={"dpo": 0.5, "exponential": 2.0}, paper="made up"),
}
POLICY = PolicyForm(Surrogate("linear", linear), reduction="step_tokens", paper="made up")


@pytest.fixture
def example_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, form in PREFERENCE.items():
        monkeypatch.setitem(preference_forms.FORMS, name, form)
    monkeypatch.setitem(policy_forms.FORMS, "linear", POLICY)


@pytest.mark.usefixtures("example_losses")
@pytest.mark.parametrize(
    ("fields", "value"),
    [
        # Log-ratios 1 and -2; log-probs -12 over 6 tokens and -20 over 8; the likelihood of the chosen reply is 2.
        ({"loss_type": "exponential"}, math.exp(-0.6) + 0.25),
        ({"loss_type": "exponential", "beta": 0.5, "smoothing": 0.0}, math.exp(-1.5)),
        ({"loss_type": "exponential", "nll_weight": 0.25}, math.exp(-0.6) + 0.25 + 0.25 * 2.0),
        ({"loss_type": "mean_difference"}, -0.1 * (-2.0 + 2.5) + 0.5 * 2.0),
        ({"loss_type": "blend"}, 0.5 * math.log1p(math.exp(-0.3)) + 2 * (math.exp(-0.6) + 0.25)),
        ({"mix": {"mean_difference": 3.0, "sft": 1.0}}, -0.15 + 1.5 * 2.0 + 2.0),
    ],
)
def test_a_preference_loss_is_its_formula_on_each_pair(fields: dict[str, Any], value: float) -> None:
    assert loss(Preference(**fields), example_pair()).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.usefixtures("example_losses")
def test_what_a_preference_loss_needs_is_in_its_row() -> None:
    exponential, mean, signed = (Preference(loss_type=name) for name in ("exponential", "mean_difference", "signed"))
    assert exponential.required_columns == {"mask", "chosen", "ref_logp"}
    assert mean.required_columns == {"mask", "chosen"}
    assert (mean.unit, signed.unit, signed.paired) == ("group", "reply", False)
    with pytest.raises(ValidationError, match=r"smoothing has no effect on mean_difference, only on .*exponential"):
        Preference(loss_type="mean_difference", smoothing=0.1)
    with pytest.raises(ValidationError, match=r"only .* support a divergence other than reverse_kl"):
        Preference(loss_type="exponential", divergence="js")


@pytest.mark.usefixtures("example_losses")
def test_a_loss_of_labeled_replies_is_its_formula_on_each_reply() -> None:
    replies = batch([1, 1], chosen=[1.0, 0.0], ref_logp=[[-3.0], [-3.0]])
    outputs = Outputs(logp=flat([[-1.0], [-7.0]]))
    # Log-ratios 2 and -4, and a weight of 3 for the undesirable reply.
    value = total(Preference(loss_type="signed", undesirable=3.0), [(replies, outputs)])
    assert value.item() == pytest.approx(0.1 * (-2.0 + 3.0 * -4.0) / 2)


@pytest.mark.usefixtures("example_losses")
def test_a_policy_loss_is_its_surrogate_reduced() -> None:
    replies = batch([2, 1], advantage=[1.0, -2.0], old_logp=[[-1.0, -1.0], [-1.0]])
    logp = flat([[math.log(1.5) - 1, -1.0], [math.log(0.5) - 1]])
    value = total(PolicyLoss(loss_type="linear", old="column"), [(replies, Outputs(logp=logp))])
    assert value.item() == pytest.approx((-1.5 - 1.0 + 2.0 * 0.5) / 3)
    value.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-0.5, -1 / 3, 1 / 3])
    # The surrogate alone, with the mean over replies of another loss.
    value = total(PolicyLoss(surrogate="linear", old="column"), [(replies, Outputs(logp=logp))])
    assert value.item() == pytest.approx((-1.25 + 1.0) / 2)
    with pytest.raises(ValidationError, match="clip_high has no effect on the surrogate 'linear'"):
        PolicyLoss(loss_type="linear", clip_high=0.3)


TASKS: dict[str, dict[str, Any]] = {
    "exponential": {"name": "preference", "prompts_per_step": 4, "scenes": 4, "bench_scenes": 2},
    "linear": {"name": "visurf", "prompts_per_step": 2, "num_generations": 2, "sampling": {"max_tokens": 4}},
}


@pytest.mark.usefixtures("example_losses")
@pytest.mark.parametrize("name", TASKS)
def test_a_run_trains_with_it(name: str, tmp_path: Path) -> None:
    section = {"exponential": "loss", "linear": "policy"}[name]
    task = {**TASKS[name], section: {"loss_type": name}}
    mmpost.train(run_config.merge(QUICK, {"task": task, "steps": 2}), out=str(tmp_path / "run"))
    log = lines(tmp_path / "run")
    assert [line["step"] for line in log] == [1, 2]
    assert all(math.isfinite(line["loss"]) for line in log)
    if name == "exponential":  # policy and reference agree at first: exp(0) + 0.25
        assert log[0]["loss"] == pytest.approx(1.25, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "preference", "loss": {"loss_type": "exponentail"}}, "did you mean exponential?"),
        ({"name": "visurf", "policy": {"loss_type": "grpoo"}}, "did you mean grpo?"),
        ({"name": "visurf", "policy": {"surrogate": "linaer"}}, "clip, cispo, sapo, vespo, linear, found 'linaer'"),
    ],
)
@pytest.mark.usefixtures("example_losses")
def test_an_unknown_loss_lists_the_known_and_the_closest_names(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_task(run_config.load([{"task": task}])[0])
