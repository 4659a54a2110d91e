"""The tiny model: loads like a released one, tokenizes losslessly and compactly, and knows image positions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmpost.data.worlds.digits.scenes import EXAMPLE, QUESTION_TYPES, Scenes, answer_text, listing_thought, prompt_text
from mmpost.models.builtin.qwen_vl import SPECIAL, tiny_tokenizer, write_tiny

TOKENIZER = tiny_tokenizer()


@pytest.mark.parametrize(
    "text",
    [
        "",
        'find "the 7" with box and point',
        '<think>top left</think><answer>[{"bbox_2d": [8, 36, 32, 100], "point_2d": [20, 48]}]</answer>',
        '[{"bbox_2d":[1,2,3,4]}]',
        "Ünï\r\n\t 日本 🙂 x=12345.678  , 007 ,9 \x00",
        json.dumps(EXAMPLE * 2),
        " [] , , 5,6, 7",
        "A, B; c. 'don't'  <answer > <think></think>",
    ],
)
def test_tokenization_is_lossless(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_numbers_tags_and_scaffold_are_single_tokens() -> None:
    for n in range(100):
        for text in (f"{n}", f" {n}", f", {n}"):
            assert len(TOKENIZER.encode(text)) == 1
    for text in ("<think>", "</think>", "<answer>", "</answer>", '[{"bbox_2d": [', '], "point_2d": [', "]}]", *SPECIAL):
        assert len(TOKENIZER.encode(text)) == 1


@pytest.mark.parametrize("question_type", QUESTION_TYPES)
def test_prompts_and_answers_are_short(question_type: str) -> None:
    for sample in Scenes("val", (question_type,), n=20, none=0):
        answer = answer_text(sample.truth, thought=listing_thought(sample))
        objects = len(sample.truth["boxes"])
        assert len(TOKENIZER.encode(answer)) + 1 <= 12 + 12 * objects
        assert len(TOKENIZER.encode(prompt_text(sample.meta["question"]))) <= 12


def test_loads_like_a_published_checkpoint(tiny_folder: str) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    processor = AutoProcessor.from_pretrained(tiny_folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert sum(p.numel() for p in model.parameters()) < 1.2e6
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "find it"}]},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>find it"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    inputs = processor(text=[text], images=[Image.new("RGB", (84, 84))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    start = int((inputs["input_ids"][0] == model.config.image_token_id).nonzero()[0])
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    image = positions[:, 0, start : start + 9] - start
    assert image.tolist() == [[0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2] * 3]
    assert int(positions[0, 0, start + 9]) == start + 3
    with torch.no_grad():
        assert model(**inputs).logits.shape[-1] == len(processor.tokenizer)


def test_weights_depend_on_the_seed_and_the_random_state_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tiny(tmp_path / name, seed)
    assert torch.equal(torch.get_rng_state(), before)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_close_numbers_have_close_initial_embeddings(tiny_folder: str) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    for weight in (model.model.language_model.embed_tokens.weight, model.lm_head.weight):
        rows = {n: weight[TOKENIZER.encode(f", {n}")[0]] for n in (40, 41, 80)}
        assert (rows[40] - rows[41]).norm() < 0.3 * (rows[40] - rows[80]).norm()
