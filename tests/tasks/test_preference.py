"""Pairs of one's own and the built-in ones, from rows to the step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import on_two_ranks
from gradients import gradient, relative
from preference_steps import OBJECTIVES, judged
from small_runs import QUICK, lines

import mmpost
from mmpost.config import run_config
from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.data.readers.dataset import open_dataset
from mmpost.data.worlds.digits.pairs import PreferencePairs
from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.methods.preference import pair_metrics
from mmpost.models.chat.model import ChatModel
from mmpost.objectives.preference import Preference
from mmpost.rollout.local import LocalRollout
from mmpost.runs.configured_task import make_task
from mmpost.training.context import TrainingContext
from mmpost.training.logprob_cache import LogprobCache
from mmpost.transforms.pairs import EncodePairs
from mmpost.types import Reply, Sample

SMALL = {"task": {"name": "preference", "prompts_per_step": 4, "scenes": 4, "bench_scenes": 2}}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_do_not_change_the_gradient(name: str, tiny_folder: str) -> None:
    whole, loss = gradient(tiny_folder, OBJECTIVES[name], judged())
    assert whole.norm() > 1e-4
    for micro in (2, 4):
        parts, of_parts = gradient(tiny_folder, OBJECTIVES[name], judged(), max_replies_per_microbatch=micro)
        assert relative(parts, whole) < 1e-5
        assert of_parts == pytest.approx(loss, rel=1e-5)


def test_two_ranks_give_the_gradient_of_one(tiny_folder: str, tmp_path: Path) -> None:
    def all_objectives() -> dict[str, tuple[torch.Tensor, float]]:
        return {name: gradient(tiny_folder, objective, judged()) for name, objective in OBJECTIVES.items()}

    of_two = on_two_ranks(all_objectives, tmp_path)
    for name, (whole, loss) in all_objectives().items():
        gradient_of_two, loss_of_two = of_two[name]
        assert relative(gradient_of_two, whole) < 1e-5, name
        assert loss_of_two == pytest.approx(loss, rel=1e-5)


def load(folder: str, share: str) -> ChatModel:
    compute = ComputeSettings(reuse=share)  # type: ignore[arg-type]
    return ChatModel.load(folder, ModelSettings(name=folder, device="cpu"), compute)


def test_a_prompt_that_both_replies_share_gives_the_plain_values_and_gradients(tiny_folder: str) -> None:
    found = []
    for share in ("auto", "off"):
        model = load(tiny_folder, share)
        assert bool(model.no_prefix_reason) == (share == "off")
        values = []
        for objective in (Preference(weighting=True, ld_alpha=0.5), Preference(loss_type="orpo")):
            (batch,) = model.plan(judged(), objective.required_columns, objective.unit)
            terms = objective(model(batch, objective.required_outputs), batch).terms
            torch.stack(list(terms.values())).sum().backward()
            values.append(torch.stack(list(terms.values())).detach())
        slopes = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None])
        found.append((torch.cat(values), slopes))
    (shared, ours), (plain, theirs) = found
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)
    assert relative(ours, theirs) < 1e-5


def test_reference_log_probs_of_pairs_are_computed_once_and_kept(tiny_folder: str, tmp_path: Path) -> None:
    model = load(tiny_folder, "auto")
    calls = []

    def counted(samples: list[Sample]) -> list[list[list[float]]]:
        calls.append(sum(len(s.replies) for s in samples))
        return TrainingContext(model, LocalRollout(model), 0).logp(samples, "policy")

    samples = judged()
    first = LogprobCache(tmp_path / "logp.sqlite").get_or_compute(samples, model.cache_key, counted)
    again = LogprobCache(tmp_path / "logp.sqlite").get_or_compute(samples[::-1], model.cache_key, counted)
    assert calls == [sum(len(s.replies) for s in samples)]
    assert again[::-1] == first
    # Another reply to a prompt that is known: only it is computed.
    more = replace(samples[0], replies=(*samples[0].replies, Reply((), "data", (11, 12, 13))))
    LogprobCache(tmp_path / "logp.sqlite").get_or_compute([more], model.cache_key, counted)
    assert calls[1:] == [1]
    # What the policy wrote is drawn anew, unless a stage put it on record.
    mine = [replace(s, replies=tuple(replace(r, origin="policy") for r in s.replies)) for s in samples]
    for recorded in (False, True):
        calls.clear()
        for _ in range(2):
            LogprobCache(tmp_path / "more.sqlite", recorded=recorded).get_or_compute(mine, model.cache_key, counted)
        assert len(calls) == (1 if recorded else 2)


def rows(folder: Path, *given: dict[str, object]) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in given))
    return str(file)


def test_rows_of_preferences_become_replies_in_the_role_of_the_assistant(tiny_folder: str, tmp_path: Path) -> None:
    """Plain texts, conversations, conversations that hold the prompt, and single judged replies: one and the same."""
    (tmp_path / "a.png").write_bytes(Scenes(n=1)[0].prompt[0].value.bytes())
    user = {"role": "user", "content": "<image>which?"}
    said = [{"role": "assistant", "content": text} for text in ("this", "that")]
    file = rows(
        tmp_path,
        {"image": "a.png", "prompt": "which?", "chosen": "this", "rejected": "that"},
        {"image": "a.png", "prompt": [user], "chosen": [said[0]], "rejected": [said[1]]},
        {"image": "a.png", "chosen": [user, said[0]], "rejected": [user, said[1]]},
        {"image": "a.png", "prompt": "which?", "completion": "that", "label": False},
        {"image": "a.png", "prompt": [user], "completion": [said[0]], "label": True},
    )
    model = load(tiny_folder, "auto")
    job = TrainingContext(model, LocalRollout(model), 0)
    found = EncodePairs(unpaired=True)(list(open_dataset(file, loss="last")), job)
    assert [[r.columns["chosen"] for r in s.replies] for s in found] == [[1, 0], [1, 0], [1, 0], [0], [1]]
    whole = [(model.prompt(s).ids.tolist(), [r.token_ids for r in s.replies]) for s in found]
    this, that = (model.encode_reply(text, "data").token_ids for text in ("this", "that"))
    assert [replies for _, replies in whole] == [[this, that]] * 3 + [[that], [this]]
    assert all(prompt == whole[0][0] for prompt, _ in whole)
    assert {part.role for s in found for r in s.replies for part in r.parts} == {"assistant"}
    # What precedes a reply is the header of the assistant's turn.
    text = model.tokenizer.decode(whole[0][0])
    assert text.rstrip().endswith("assistant")


def test_a_rival_is_another_digit_of_the_picture() -> None:
    pairs = PreferencePairs("train", ("last from the top",), n=30, seed=0)
    for i in range(30):
        sample, scene = pairs[i], pairs.scenes.scene(i)
        rival = sample.meta["rival"]["boxes"][0]
        assert rival not in sample.truth["boxes"]
        assert not scene.digits or rival in [d.box for d in scene.digits]
    assert pairs[3].meta == PreferencePairs("train", ("last from the top",), n=30, seed=0)[3].meta


def test_how_the_policy_orders_replies() -> None:
    def reply(chosen: float, nll: float, tokens: float) -> Reply:
        return Reply((), scores={"nll": nll, "tokens": tokens}, columns={"chosen": chosen})

    found = pair_metrics([Sample("a", (), (reply(1, 6, 6), reply(0, 4, 2))), Sample("b", (), (reply(1, 1, 1),))])
    assert found == pytest.approx(
        {
            **{"accuracy": 0.0, "accuracy_per_token": 100.0, "margin": -2.0},
            **{"logp/chosen": -3.5, "logp/rejected": -4.0, "length/chosen": 3.5, "length/rejected": 2.0},
        }
    )


@pytest.mark.parametrize("loss", [{"loss_type": "dpo", "weighting": True}, {"loss_type": "kto"}])
def test_a_few_steps_raise_the_margin(loss: dict[str, object], tmp_path: Path) -> None:
    settings = run_config.merge(
        run_config.merge(QUICK, SMALL), {"task": {"loss": loss}, "steps": 6, "optim": {"lr": 3e-4, "warmup": 0}}
    )
    mmpost.train(settings, out=str(tmp_path / "run"))
    found = lines(tmp_path / "run")
    rise = [line["rewards/chosen"] - line["rewards/rejected"] for line in found]
    assert rise[0] == pytest.approx(0.0, abs=1e-5)
    assert rise[-1] > rise[0] + 0.01
    assert found[-1]["loss"] < found[0]["loss"]
    assert found[0]["length/chosen"] > 1


def test_a_loss_without_reference_asks_for_none() -> None:
    run, _ = run_config.load([{"task": {"name": "preference", "loss": {"loss_type": "simpo"}}}])
    (stage,) = make_task(run).stages()
    assert [type(t).__name__ for t in stage.transforms] == ["WritePairs", "EncodePairs"]
