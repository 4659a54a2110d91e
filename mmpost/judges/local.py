"""A transformers chat model on this machine, as a judge: of language or, where it is shown images, one that sees."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from mmpost.data.media.media import media
from mmpost.errors import ConfigError
from mmpost.judges.answer_cache import Messages
from mmpost.judges.chat_judge import Answer, ChatBackend


class LocalModel(ChatBackend):
    """Generates answers with transformers, in batches. The model is loaded on the first call.

    Raises ConfigError if the model cannot be loaded or its tokenizer has no chat template.
    """

    model: str
    """Folder or hub id of a chat model; of one that sees, where a judge shows it images."""
    device: str = "auto"
    """"auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Data type of the weights; auto: as saved."""
    trust_remote_code: bool = False
    """Run code that ships with a hub model. Leave it off unless you trust its author."""
    batch: int = Field(default=8, ge=1)
    """Conversations per forward pass."""
    max_tokens: int = Field(default=1024, ge=1)
    """Maximum length of an answer, in tokens."""
    reask_temperature: float = Field(default=0.7, gt=0)
    """Sampling temperature of repeated questions; the first answer is greedy."""

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        processor, model, sees = _load_model(self.model, self.device, self.precision, self.trust_remote_code)
        if not sees and any(not isinstance(m["content"], str) for messages in conversations for m in messages):
            raise ConfigError(f"judge: wanted a vision-language model, since it is shown images, found {self.model!r}")
        answers: list[Answer] = []
        for start in range(0, len(conversations), self.batch):
            batch = conversations[start : start + self.batch]
            read = processor.apply_chat_template(
                [_with_open_images(messages) if sees else [dict(m) for m in messages] for messages in batch],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **({"processor_kwargs": {"padding": True}} if sees else {"padding": True}),
            )
            answers += self._generate(processor, model, read.to(model.device), draw)
        return answers

    def _generate(self, processor: Any, model: Any, inputs: Any, draw: int) -> list[Answer]:
        import torch
        from transformers import GenerationConfig

        tokenizer = getattr(processor, "tokenizer", processor)
        sampling = {"do_sample": True, "temperature": self.reask_temperature} if draw else {"do_sample": False}
        end = model.generation_config.eos_token_id or tokenizer.eos_token_id
        config = GenerationConfig(
            max_new_tokens=self.max_tokens, eos_token_id=end, pad_token_id=tokenizer.pad_token_id, **sampling
        )
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(draw)
            out = model.generate(**inputs, generation_config=config)
        generated = out[:, inputs["input_ids"].shape[1] :]
        finished = torch.isin(generated, torch.tensor(end, device=generated.device)).any(1).tolist()
        texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
        # A truncated answer may be misread: "Score: 1" is a prefix of "Score: 10".
        return [Answer(text if complete else "") for text, complete in zip(texts, finished, strict=True)]


def _with_open_images(messages: Messages) -> list[dict[str, Any]]:
    """The conversation as transformers' processors read it: lists of parts, with images instead of data URLs."""
    opened = []
    for message in messages:
        content: Any = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        opened.append({**message, "content": [_part(part) for part in parts]})
    return opened


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return dict(part)
    return {"type": "image", "image": media(part["image_url"]["url"], "image").open()}


@functools.lru_cache(maxsize=2)
def _load_model(name: str, device: str, precision: str, trust_remote_code: bool) -> tuple[Any, Any, bool]:
    """Processor of a model that sees or else tokenizer, model, and whether it sees.

    The last two models stay loaded: a judge runs on every rollout batch, and two may take turns.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoProcessor,
        AutoTokenizer,
    )

    types = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        sees = getattr(config, "vision_config", None) is not None
        reader: Any = (AutoProcessor if sees else AutoTokenizer).from_pretrained(
            name, padding_side="left", trust_remote_code=trust_remote_code
        )
        model: Any = (AutoModelForMultimodalLM if sees else AutoModelForCausalLM).from_pretrained(
            name, dtype=types[precision], trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as e:
        raise ConfigError(f"judge: wanted a chat model, found {name!r}, which cannot be loaded: {e}") from e
    tokenizer = getattr(reader, "tokenizer", reader)
    tokenizer.padding_side = "left"
    if not (reader.chat_template or tokenizer.chat_template):
        raise ConfigError(
            f"judge: wanted a model with a chat template, found {name!r} without one; use an instruction-tuned model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return reader, model.to(target).eval(), sees
