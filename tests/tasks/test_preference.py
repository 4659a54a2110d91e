"""The preference task: user pairs and built-in pairs, from rows to the optimizer step."""

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
    full, loss = gradient(tiny_folder, OBJECTIVES[name], judged())
    assert full.norm() > 1e-4
    for micro in (2, 4):
        accumulated, accumulated_loss = gradient(
            tiny_folder, OBJECTIVES[name], judged(), max_replies_per_microbatch=micro
        )
        assert relative(accumulated, full) < 1e-5
        assert accumulated_loss == pytest.approx(loss, rel=1e-5)


def test_two_ranks_give_the_gradient_of_one_rank(tiny_folder: str, tmp_path: Path) -> None:
    def all_objectives() -> dict[str, tuple[torch.Tensor, float]]:
        return {name: gradient(tiny_folder, objective, judged()) for name, objective in OBJECTIVES.items()}

    two_ranks = on_two_ranks(all_objectives, tmp_path)
    for name, (full, loss) in all_objectives().items():
        gradient_of_two, loss_of_two = two_ranks[name]
        assert relative(gradient_of_two, full) < 1e-5, name
        assert loss_of_two == pytest.approx(loss, rel=1e-5)


def load_model(folder: str, reuse: str) -> ChatModel:
    compute = ComputeSettings(reuse=reuse)  # type: ignore[arg-type]
    return ChatModel.load(folder, ModelSettings(name=folder, device="cpu"), compute)


def test_prefix_sharing_gives_the_plain_values_and_gradients(tiny_folder: str) -> None:
    results = []
    for reuse in ("auto", "off"):
        model = load_model(tiny_folder, reuse)
        assert bool(model.no_prefix_reason) == (reuse == "off")
        values = []
        for objective in (Preference(weighting=True, ld_alpha=0.5), Preference(loss_type="orpo")):
            (batch,) = model.plan(judged(), objective.required_columns, objective.unit)
            terms = objective(model(batch, objective.required_outputs), batch).terms
            torch.stack(list(terms.values())).sum().backward()
            values.append(torch.stack(list(terms.values())).detach())
        gradients = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.grad is not None])
        results.append((torch.cat(values), gradients))
    (shared, shared_gradient), (plain, plain_gradient) = results
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)
    assert relative(shared_gradient, plain_gradient) < 1e-5


def test_reference_log_probs_of_pairs_are_computed_once_and_cached(tiny_folder: str, tmp_path: Path) -> None:
    model = load_model(tiny_folder, "auto")
    calls = []

    def counted_logp(samples: list[Sample]) -> list[list[list[float]]]:
        calls.append(sum(len(s.replies) for s in samples))
        return TrainingContext(model, LocalRollout(model), 0).logp(samples, "policy")

    samples = judged()
    first = LogprobCache(tmp_path / "logp.sqlite").get_or_compute(samples, model.cache_key, counted_logp)
    again = LogprobCache(tmp_path / "logp.sqlite").get_or_compute(samples[::-1], model.cache_key, counted_logp)
    assert calls == [sum(len(s.replies) for s in samples)]
    assert again[::-1] == first
    # One more reply to a cached prompt: only that reply is computed.
    with_third_reply = replace(samples[0], replies=(*samples[0].replies, Reply((), "data", (11, 12, 13))))
    LogprobCache(tmp_path / "logp.sqlite").get_or_compute([with_third_reply], model.cache_key, counted_logp)
    assert calls[1:] == [1]
    # Sampled replies are new in each step and not cached, unless a data-generation stage recorded them.
    sampled = [replace(s, replies=tuple(replace(r, origin="policy") for r in s.replies)) for s in samples]
    for recorded in (False, True):
        calls.clear()
        for _ in range(2):
            LogprobCache(tmp_path / "more.sqlite", recorded=recorded).get_or_compute(
                sampled, model.cache_key, counted_logp
            )
        assert len(calls) == (1 if recorded else 2)


def write_pairs(folder: Path, *pairs: dict[str, object]) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in pairs))
    return str(path)


def test_preference_rows_of_all_formats_encode_to_the_same_replies(tiny_folder: str, tmp_path: Path) -> None:
    """Plain text, conversations with and without the prompt, and single labeled replies encode identically."""
    (tmp_path / "a.png").write_bytes(Scenes(n=1)[0].prompt[0].value.bytes())
    user = {"role": "user", "content": "<image>which?"}
    replies_as_turns = [{"role": "assistant", "content": text} for text in ("this", "that")]
    file = write_pairs(
        tmp_path,
        {"image": "a.png", "prompt": "which?", "chosen": "this", "rejected": "that"},
        {"image": "a.png", "prompt": [user], "chosen": [replies_as_turns[0]], "rejected": [replies_as_turns[1]]},
        {"image": "a.png", "chosen": [user, replies_as_turns[0]], "rejected": [user, replies_as_turns[1]]},
        {"image": "a.png", "prompt": "which?", "completion": "that", "label": False},
        {"image": "a.png", "prompt": [user], "completion": [replies_as_turns[0]], "label": True},
    )
    model = load_model(tiny_folder, "auto")
    context = TrainingContext(model, LocalRollout(model), 0)
    encoded = EncodePairs(unpaired=True)(list(open_dataset(file, loss="last")), context)
    assert [[r.columns["chosen"] for r in s.replies] for s in encoded] == [[1, 0], [1, 0], [1, 0], [0], [1]]
    prompts_and_replies = [(model.prompt(s).ids.tolist(), [r.token_ids for r in s.replies]) for s in encoded]
    this, that = (model.encode_reply(text, "data").token_ids for text in ("this", "that"))
    assert [replies for _, replies in prompts_and_replies] == [[this, that]] * 3 + [[that], [this]]
    assert all(prompt == prompts_and_replies[0][0] for prompt, _ in prompts_and_replies)
    assert {part.role for s in encoded for r in s.replies for part in r.parts} == {"assistant"}
    # What precedes a reply is the header of the assistant's turn.
    text = model.tokenizer.decode(prompts_and_replies[0][0])
    assert text.rstrip().endswith("assistant")


def test_a_rejected_box_is_another_digit_of_the_image() -> None:
    pairs = PreferencePairs("train", ("last from the top",), n=30, seed=0)
    for i in range(30):
        sample, scene = pairs[i], pairs.scenes.scene(i)
        rival = sample.meta["rival"]["boxes"][0]
        assert rival not in sample.truth["boxes"]
        assert not scene.digits or rival in [d.box for d in scene.digits]
    assert pairs[3].meta == PreferencePairs("train", ("last from the top",), n=30, seed=0)[3].meta


def test_pair_metrics() -> None:
    def reply(chosen: float, nll: float, tokens: float) -> Reply:
        return Reply((), scores={"nll": nll, "tokens": tokens}, columns={"chosen": chosen})

    metrics = pair_metrics([Sample("a", (), (reply(1, 6, 6), reply(0, 4, 2))), Sample("b", (), (reply(1, 1, 1),))])
    assert metrics == pytest.approx(
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
    log = lines(tmp_path / "run")
    margins = [line["rewards/chosen"] - line["rewards/rejected"] for line in log]
    assert margins[0] == pytest.approx(0.0, abs=1e-5)
    assert margins[-1] > margins[0] + 0.01
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[0]["length/chosen"] > 1


def test_a_reference_free_loss_computes_no_reference_log_probs() -> None:
    run, _ = run_config.load([{"task": {"name": "preference", "loss": {"loss_type": "simpo"}}}])
    (stage,) = make_task(run).stages()
    assert [type(t).__name__ for t in stage.transforms] == ["WritePairs", "EncodePairs"]
