"""A chat model of transformers on this machine, as a judge."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mmpost.errors import ConfigError
from mmpost.judges.answer_cache import Messages
from mmpost.judges.chat_judge import Answer, Answering


class LocalModel(Answering):
    """Answers by transformers' own generation, several conversations at a time. The first answer loads the model.

    Raises ConfigError where there is no such model, or its tokenizer has no chat template.
    """

    model: str
    """A folder or hub id of a causal language model with a chat template."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1"."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of its weights; auto: as they were saved."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model. Off unless you trust its author."""
    batch: int = Field(default=8, ge=1)
    """Conversations at a time."""
    max_tokens: int = Field(default=1024, ge=1)
    """Most tokens of an answer."""
    reask_temperature: float = Field(default=0.7, gt=0)
    """Of further answers to the same question; the first one takes the most likely tokens."""

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        tokenizer, model = _loaded(self.model, self.device, self.precision, self.trust_remote_code)
        texts = [
            tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
        found: list[Answer] = []
        for start in range(0, len(texts), self.batch):
            found += self._batch(tokenizer, model, texts[start : start + self.batch], draw)
        return found

    def _batch(self, tokenizer: Any, model: Any, texts: Sequence[str], draw: int) -> list[Answer]:
        import torch
        from transformers import GenerationConfig

        # The template has written the special tokens already.
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        sampling = {"do_sample": True, "temperature": self.reask_temperature} if draw else {"do_sample": False}
        end = model.generation_config.eos_token_id or tokenizer.eos_token_id
        config = GenerationConfig(
            max_new_tokens=self.max_tokens, eos_token_id=end, pad_token_id=tokenizer.pad_token_id, **sampling
        )
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(draw)
            out = model.generate(**inputs, generation_config=config)
        written = out[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(written, torch.tensor(end, device=written.device)).any(1).tolist()
        said = tokenizer.batch_decode(written, skip_special_tokens=True)
        # Cut off, an answer may say another number than it began to.
        return [Answer(text if whole else "") for text, whole in zip(said, ended, strict=True)]


@functools.lru_cache(maxsize=1)
def _loaded(name: str, device: str, precision: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Tokenizer and model; the last one is kept, because a judge is asked once per rollout batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    types = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", trust_remote_code=trust_remote_code)
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=types[precision], trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as e:
        raise ConfigError(f"judge: wanted a causal language model, found {name!r}, which cannot be loaded: {e}") from e
    if not tokenizer.chat_template:
        raise ConfigError(
            f"judge: wanted a model with a chat template, found {name!r} without one; take an instruct model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return tokenizer, model.to(where).eval()
