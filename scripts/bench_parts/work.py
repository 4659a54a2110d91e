"""The workload shared by all arms: model, prompts, images and rewards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmpost.models.builtin.qwen_vl import WORDS, tiny_config, tiny_processor, write_tiny
from mmpost.models.chat.prompts import PromptEncoder
from mmpost.types import Part

CELL = 28
"""Side in pixels of the square that one image token covers."""
BUDGET = 16384
"""Maximum tokens (prompts and replies) per micro-batch in every arm: mmpost's default."""


@dataclass(frozen=True)
class Shape:
    """The work of one step."""

    prompt: int
    """Tokens per prompt, including image tokens."""
    group: int
    """Replies per prompt."""
    reply: int
    """Tokens per reply."""
    image: bool = True
    prompts: int = 4
    """Prompts per rollout batch; each step does one update."""

    @property
    def name(self) -> str:
        return f"{self.prompt}x{self.group}x{self.reply}{'' if self.image else ' text'}"

    @property
    def side(self) -> int:
        """Image tokens along a side: the largest square that leaves room for the template and a question."""
        return int((self.prompt - 30) ** 0.5) if self.image else 0

    @property
    def rows(self) -> int:
        """Replies per micro-batch if prompts are repeated: the largest divisor of the batch that fits the budget."""
        batch = self.prompts * self.group
        fits = [n for n in range(1, batch + 1) if batch % n == 0 and n * (self.prompt + self.reply) <= BUDGET]
        return max(fits, default=1)


SHAPES = (
    Shape(1056, 8, 64, prompts=2),
    Shape(1056, 16, 64, prompts=2),
    Shape(288, 8, 32),
    Shape(60, 8, 64),
    Shape(60, 8, 128, image=False),
)


def parse(text: str) -> Shape:
    """Parse PROMPTxGROUPxREPLY[text][@PROMPTS]: "text" for prompts without an image, "@2" for two prompts per step."""
    body, _, prompts = text.partition("@")
    body, image = body.removesuffix("text").strip(), not body.endswith("text")
    prompt, group, reply = (int(n) for n in body.split("x"))
    known = next((s for s in SHAPES if (s.prompt, s.group, s.reply, s.image) == (prompt, group, reply, image)), None)
    number = int(prompts) if prompts else known.prompts if known else 2 if prompt > 600 else 4
    return Shape(prompt, group, reply, image, number)


@dataclass(frozen=True)
class Row:
    """A prompt: its text, and the path of its image if it has one."""

    uid: str
    text: str
    image: str | None = None


def write_model(folder: Path, width: str) -> None:
    """Write random weights, tokenizer and processor: "tiny", or two layers each with the width of Qwen2.5-VL-3B."""
    if width == "tiny":
        write_tiny(folder)
        return
    processor = tiny_processor()
    config = tiny_config(processor.tokenizer).to_dict()
    config["text_config"] |= {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "initializer_range": 0.02,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    config["vision_config"] |= {
        "depth": 2,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [1],
        "window_size": 112,
        "initializer_range": 0.02,
    }
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(config))
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=pad)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_rows(folder: Path, shape: Shape, count: int, seed: int) -> list[Row]:
    """Write `count` prompts of exactly the shape's length, each with its own image (PNG): no step repeats one."""
    prompter = PromptEncoder(None, tiny_processor())
    rng = np.random.default_rng(seed)
    words = WORDS.split()
    image = [Part("image", None)] if shape.image else []

    def length(text: str) -> int:
        ids = prompter.tokenizer(prompter.text([*image, Part("text", text)]), add_special_tokens=False).input_ids
        return len(ids) + shape.side**2 - len(image)

    rows = []
    free = shape.prompt - length("")
    for i in range(count):
        text = "".join(f" {words[k]}" for k in rng.integers(0, len(words), free))
        assert length(text) == shape.prompt, f"wanted {shape.prompt} tokens, found {length(text)}"
        path = None
        if shape.image:
            path = str(folder / f"{i}.png")
            noise = rng.integers(0, 255, (shape.side * 7, shape.side * 7, 3), dtype=np.uint8)
            side = shape.side * CELL
            Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR).save(path)
        rows.append(Row(f"r{i}", text, path))
    (folder / "rows.json").write_text(json.dumps([asdict(r) for r in rows]))
    return rows


def reward(uid: str, index: int) -> float:
    """A pseudo-random number in [0, 1) that depends only on the prompt and the reply's index in its group."""
    return int.from_bytes(hashlib.sha256(f"{uid}/{index}".encode()).digest()[:6], "big") / 2**48


def unwritable(model: Any, processor: Any) -> list[int]:
    """Tokens that no arm may sample: end tokens, so that all replies have full length, and media placeholders."""
    tokenizer = processor.tokenizer
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    media = {i for t, i in tokenizer.get_added_vocab().items() if t.startswith(("<|vision", "<|image", "<|video"))}
    extra = range(len(tokenizer), model.get_output_embeddings().weight.shape[0])
    return sorted(ends | media | set(extra))
