"""R1-AQA: prompts, rewards, benches, and training on synthetic sounds and real speech."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mmpost
from mmpost.config.settings import DataSettings
from mmpost.data.sources.blanked import Blanked
from mmpost.data.worlds.sounds import Sounds
from mmpost.tasks.r1_aqa import R1Aqa
from mmpost.types import Part, Reply, Sample
from tests.transforms.fakes import FakeContext

CLIP = Sample("s", (), truth="dog", meta={"choices": ["dog", "cat"], "thought": "bark"})


def reward_scores(task: R1Aqa, text: str) -> dict[str, float | None]:
    reply = Reply((Part("text", text),))
    return {name: reward(CLIP, reply) for name, reward in task.rewards().items()}


@pytest.mark.parametrize("reward", ["strict", "released"])
@pytest.mark.parametrize("prompt", ["plain", "answer", "think"])
def test_the_correct_reply_earns_the_full_reward(prompt: Any, reward: Any) -> None:
    task = R1Aqa(prompt=prompt, reward=reward)
    gold = task.gold()[0]
    text = gold.text(CLIP)
    assert text is not None
    assert sum(v or 0 for v in reward_scores(task, text).values()) == gold.reward
    assert reward_scores(task, text.replace("dog", "cat"))["accuracy"] == 0
    assert ("<think>bark</think>" in text, "<answer>" in text) == (prompt == "think", prompt != "plain")


def test_the_three_prompts_build_on_each_other() -> None:
    plain, answer, think = (R1Aqa(prompt=p).template() for p in ("plain", "answer", "think"))
    assert answer.startswith(plain)
    assert "<answer>" not in plain
    assert "<think>" not in answer
    assert "<think>" in think
    assert R1Aqa().prompt == "answer"
    sample = next(iter(R1Aqa(question_types=("count",)).stages())).source[0]
    assert [p.modality for p in sample.prompt] == ["audio", "text"]
    assert sample.prompt[1].value.startswith("how many sounds? Please choose the answer from the following options: [")
    assert str(sample.meta["choices"]) in sample.prompt[1].value


def test_a_row_without_thought_is_labelled_bare_and_its_gold_reply_has_one() -> None:
    task, row = R1Aqa(prompt="think"), Sample("a", (), truth="dog")
    (gold,) = task.gold()
    assert (task.reply(row), gold.text(row)) == ("<answer>dog</answer>", "<think>look</think><answer>dog</answer>")


def test_strict_and_released_rewards_differ() -> None:
    strict, released = R1Aqa(), R1Aqa(reward="released")
    assert reward_scores(strict, "dog") == {"accuracy": 0, "format": 0}
    assert reward_scores(released, "dog") == {"accuracy": 1, "format": 0}
    assert reward_scores(R1Aqa(ignore_case=True), "<answer>Dog</answer>") == {"accuracy": 1, "format": 1}
    assert reward_scores(strict, "<answer>Dog</answer>") == {"accuracy": 0, "format": 1}


def test_the_published_hyperparameters() -> None:
    stage = next(iter(R1Aqa().stages()))
    assert (stage.objective.beta, stage.objective.kl_estimator) == (0.04, "k3")  # type: ignore[attr-defined]
    assert [s.name for s in R1Aqa(sft_fraction=0.5).stages()] == ["sft", "rl"]
    assert [s.name for s in R1Aqa(sft_fraction=1.0).stages()] == ["sft"]


def test_the_benches() -> None:
    benches = {bench.name: bench.source for bench in R1Aqa().benches("test")}
    assert isinstance(benches["silent"], Blanked)
    assert benches["silent"].source is benches["target"]
    assert isinstance(benches["old"], Sounds)


def test_mmau_rows_get_both_scores(tmp_path: Path) -> None:
    sound = Sounds("test", n=1)[0].prompt[0].value
    (tmp_path / "a.wav").write_bytes(sound.bytes())
    row = {"id": "a", "audio_id": "a.wav", "question": "Who?", "choices": ["Man", "Woman"], "answer": "Man"}
    file = tmp_path / "mmau.json"
    file.write_text(json.dumps([{**row, "task": "speech", "difficulty": "easy", "sub-category": "Speaker"}]))
    bench = R1Aqa(data=DataSettings(test=str(file))).benches("test")[0]
    sample = replace(bench.source[0], replies=(Reply((Part("text", "a man"),)),))
    scored = bench.transforms[-1]([sample], FakeContext())
    summary = bench.summary(scored)
    assert (summary["accuracy"], summary["mmau"], summary["mmau_strict"]) == (0, 100, 0)
    assert summary["accuracy/speech"] == summary["accuracy/easy"] == summary["accuracy/Speaker"] == 100


@pytest.mark.parametrize("prompt", ["answer", "think"])
def test_a_two_step_run(prompt: str, tmp_path: Path) -> None:
    task = {"name": "r1_aqa", "prompt": prompt, "sft_fraction": 0.5, "prompts_per_step": 2, "num_generations": 2}
    summary = mmpost.train(
        {"task": {**task, "sampling": {"max_tokens": 4}}, "model": "random-tiny-audio", "eval": {"max_samples": 2}},
        steps=2,
        out=str(tmp_path / "run"),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["sft", "rl"]
    assert {"target/accuracy", "silent/accuracy", "old/accuracy"} <= summary["eval_after"].keys()


@pytest.mark.slow
def test_a_held_out_speaker(tmp_path: Path) -> None:
    """Spoken digits: trains on three speakers and tests on the fourth; prints the accuracy before and after."""
    root = os.environ.get("MMPOST_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
    folder = Path(root) / "spoken-digits"
    if not folder.exists():
        print(f"no real data: {folder} (set MMPOST_TEST_DATA)")
        pytest.skip(f"no real data: {folder} (set MMPOST_TEST_DATA)")
    summary = mmpost.train(
        {"task": {"name": "r1_aqa", "speech": str(folder), "sft_fraction": 0.5, "prompts_per_step": 32}},
        {"stages": {"sft": {"optim": {"lr": 1e-3}}}},
        steps=90,
        out=str(tmp_path / "run"),
    )
    before, after = (summary[f"eval_{when}"]["target/accuracy"]["value"] for when in ("before", "after"))
    print(f"held-out speaker: {before:.1f} % before, {after:.1f} % after")
    assert after > before + 15
    assert summary["eval_after"]["silent/accuracy"]["value"] < after - 15, "the answers depend on the sound"
