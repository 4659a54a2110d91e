"""The benchmark: equal work in all arms, correct counters, and a FLOP floor that equals the count of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_parts import head, own, show
from bench_parts.flops import floor
from bench_parts.meters import Memory, _pictures
from bench_parts.work import SHAPES, Row, Shape, parse, reward, write_rows
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from mmpost.models.builtin.qwen_vl import tiny_config, tiny_processor
from mmpost.types import Reply

ROOT = Path(__file__).resolve().parents[2]


def bench(out: Path, *arguments: str) -> dict:
    """The results of one run of the script."""
    command = [sys.executable, "scripts/bench.py", "--steps", "1", "--warmup", "0", "--out", str(out), *arguments]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(out.read_text())


@pytest.mark.slow
def test_the_plain_arm_computes_each_prompt_once_per_reply(tmp_path: Path) -> None:
    (measured,) = bench(tmp_path / "a.json", "--arms", "plain", "--shapes", "60x2x4@1")["shapes"]
    arm = measured["arms"]["plain"]
    assert arm["tokens_training"] == 2 * (60 + 4)
    assert arm["tokens_rollout"] == 60 + 2 * 3
    assert (arm["tower_training"], arm["tower_rollout"], arm["processor"]) == (2, 1, 1)
    assert arm["training_bytes"] > 0
    assert set(arm["seconds"]) == {"step", "rollout", "training"}
    assert "| 60x2x4 | plain |" in show.markdown({"machine": {"gflops": 1.0}, "shapes": [measured]})


@pytest.mark.slow
def test_the_arms_do_the_same_work(tmp_path: Path) -> None:
    (measured,) = bench(tmp_path / "a.json", "--arms", "plain", "trl", "--shapes", "60x2x4@2")["shapes"]
    plain, trl = measured["arms"]["plain"], measured["arms"]["trl"]
    assert plain["tokens_training"] == trl["tokens_training"] == 2 * 2 * (60 + 4)
    assert trl["tokens_rollout"] == 2 * (2 * 60 + 2 * 3)  # the prompt once per reply
    assert plain["tower_training"] == trl["tower_training"] == 2


@pytest.mark.parametrize("shape", [*SHAPES, Shape(75, 2, 4)], ids=lambda s: s.name)
def test_prompts_have_the_length_of_the_shape(shape: Shape, tmp_path: Path) -> None:
    rows = write_rows(tmp_path, replace(shape, prompts=1), 2, seed=0)
    processor: Any = tiny_processor()
    for row in rows:
        content: list[dict[str, Any]] = [{"type": "text", "text": row.text}]
        content = [{"type": "image", "image": Image.open(row.image)}, *content] if row.image else content
        ids = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        assert len(ids[0]) == shape.prompt
    assert rows[0].text != rows[1].text
    assert (rows[0].image is not None) == shape.image


def test_shapes_round_trip_through_text() -> None:
    assert parse("1056x8x64") == SHAPES[0]
    assert parse("60x8x128text") == SHAPES[-1]
    assert parse("60x4x8@3") == Shape(60, 4, 8, prompts=3)


def test_micro_batches_stay_within_the_budget() -> None:
    assert Shape(1056, 8, 64, prompts=2).rows == 8
    assert Shape(288, 8, 32, prompts=4).rows == 32


def test_a_reward_depends_on_prompt_and_position() -> None:
    replies = (Reply(()), Reply(()))
    sample = replace(own.sample(Row("a", "x")), replies=replies)
    assert [own.drawn(sample, r) for r in replies] == [reward("a", 0), reward("a", 1)]
    assert len({reward(u, i) for u in "ab" for i in range(8)}) == 16


def test_the_flop_floor_equals_the_count_of_torch() -> None:
    """Linear layers of language model, head and vision encoder; attention is counted by hand, since kernels differ."""
    torch.manual_seed(0)
    processor = tiny_processor()
    config = tiny_config(processor.tokenizer)
    module = Qwen2_5_VLForConditionalGeneration(config)
    length, text = 40, Shape(40, 1, 1, image=False, prompts=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(input_ids=torch.zeros(1, length, dtype=torch.long), logits_to_keep=1)
    linear = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op) and "bmm" not in str(op))
    attention = length * length / 2 * 4 * 128 * 4
    assert floor(text, config, "shared").rollout == pytest.approx(linear + attention)

    image = Shape(30 + 36, 1, 1, prompts=1)
    patches = image.side**2 * 4
    grid = torch.tensor([[1, image.side * 2, image.side * 2]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.model.visual(torch.zeros(patches, 3 * 2 * 14 * 14), grid_thw=grid)
    counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    linear = sum(n for op, n in counts.items() if op.endswith(("mm", "convolution")) and "bmm" not in op)
    attention = 2 * patches**2 * 4 * 64
    with_image = floor(image, config, "shared").rollout
    without = floor(replace(image, image=False), config, "shared").rollout
    assert with_image - without == pytest.approx(linear + attention)


def test_sharing_saves_the_repeated_prompts() -> None:
    config = tiny_config(tiny_processor().tokenizer)
    for shape in SHAPES:
        trl, plain, shared = (floor(shape, config, arm) for arm in ("trl", "plain", "shared"))
        assert plain.rollout == shared.rollout < trl.rollout
        assert plain.training == trl.training
        assert 1 < plain.training / shared.training < shape.group
    single_reply = Shape(60, 1, 8)
    assert (
        floor(single_reply, config, "trl")
        == floor(single_reply, config, "plain")
        == floor(single_reply, config, "shared")
    )


def test_a_chunked_output_layer_takes_less_memory() -> None:
    sizes = head.Sizes(widths=(16,), tokens=256, vocabulary=2000, chunk=16 * 2000)
    lines = head.measure(sizes, torch.device("cpu"))
    assert [(x["path"], x["trains"]) for x in lines[:3]] == [(p, True) for p in ("whole logits", "plain", "shared")]
    for full_logits, plain, shared in (lines[:3], lines[3:]):
        assert plain["logp"] == shared["logp"] == pytest.approx(full_logits["logp"], rel=1e-5)
        assert full_logits["bytes"] >= 2 * 256 * 2000 * 4
        assert max(plain["bytes"], shared["bytes"]) < full_logits["bytes"] / 5
    assert head.table(sizes, lines).row_count == 6


def test_memory_is_the_peak_of_live_bytes() -> None:
    existing = torch.empty(1 << 20)
    memory = Memory(torch.device("cpu"))
    memory.start()
    a = torch.empty(1 << 20)
    del a
    b, c = torch.empty(1 << 19), torch.empty(1 << 19)
    del b
    d = torch.empty(1 << 18)
    peak = memory.stop()
    assert peak == 4 << 20, (peak, existing.shape, c.shape, d.shape)


def test_images_are_counted_at_any_nesting() -> None:
    assert _pictures([["a", "b"], ["c"]]) == 3
    assert _pictures("a") == 1
