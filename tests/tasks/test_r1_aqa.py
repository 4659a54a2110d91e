"""R1-AQA: what is asked, what is paid, what is evaluated; learning from sounds and from real speech."""

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


def paid(task: R1Aqa, text: str) -> dict[str, float | None]:
    reply = Reply((Part("text", text),))
    return {name: reward(CLIP, reply) for name, reward in task.rewards().items()}


@pytest.mark.parametrize("reward", ["strict", "released"])
@pytest.mark.parametrize("prompt", ["plain", "answer", "think"])
def test_the_right_reply_earns_all_there_is(prompt: Any, reward: Any) -> None:
    task = R1Aqa(prompt=prompt, reward=reward)
    gold = task.gold()[0]
    text = gold.text(CLIP)
    assert text is not None
    assert sum(v or 0 for v in paid(task, text).values()) == gold.reward
    assert paid(task, text.replace("dog", "cat"))["accuracy"] == 0
    assert ("<think>bark</think>" in text, "<answer>" in text) == (prompt == "think", prompt != "plain")


def test_the_prompts_ask_one_after_the_other() -> None:
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


def test_strict_and_released_differ_where_they_should() -> None:
    strict, released = R1Aqa(), R1Aqa(reward="released")
    assert paid(strict, "dog") == {"accuracy": 0, "format": 0}
    assert paid(released, "dog") == {"accuracy": 1, "format": 0}
    assert paid(R1Aqa(ignore_case=True), "<answer>Dog</answer>") == {"accuracy": 1, "format": 1}
    assert paid(strict, "<answer>Dog</answer>") == {"accuracy": 0, "format": 1}


def test_the_published_arithmetic() -> None:
    stage = next(iter(R1Aqa().stages()))
    assert (stage.objective.beta, stage.objective.kl_estimator) == (0.04, "k3")  # type: ignore[attr-defined]
    assert [s.name for s in R1Aqa(sft_fraction=0.5).stages()] == ["sft", "rl"]
    assert [s.name for s in R1Aqa(sft_fraction=1.0).stages()] == ["sft"]


def test_what_is_evaluated() -> None:
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
    found = bench.summary(scored)
    assert (found["accuracy"], found["mmau"], found["mmau_strict"]) == (0, 100, 0)
    assert found["accuracy/speech"] == found["accuracy/easy"] == found["accuracy/Speaker"] == 100


@pytest.mark.parametrize("prompt", ["answer", "think"])
def test_two_steps_through_the_whole_loop(prompt: str, tmp_path: Path) -> None:
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
def test_a_speaker_who_was_never_heard(tmp_path: Path) -> None:
    """Real spoken digits: three speakers train, the fourth is asked for; printed before and after."""
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
    print(f"a speaker who was never heard: {before:.1f} % before, {after:.1f} % after")
    assert after > before + 15
    assert summary["eval_after"]["silent/accuracy"]["value"] < after - 15, "the sound decides"
