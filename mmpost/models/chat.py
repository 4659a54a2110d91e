"""Any image chat model of transformers: templates, pixels, positions and padding end here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmpost.columns import reply_space
from mmpost.errors import ConfigError
from mmpost.models import families, rows
from mmpost.models.head import processed, token_statistics
from mmpost.models.prompts import Prompt, Prompter, Recipe
from mmpost.settings import ModelSettings
from mmpost.types import Batch, Frame, Origin, Outputs, Part, Reply, Sample


class ChatModel:
    """A transformers chat VLM as mmpost sees it: prompts and replies in, per-token statistics out."""

    def __init__(
        self,
        module: torch.nn.Module,
        processor: Any,
        settings: ModelSettings = ModelSettings(),
        micro_tokens: int = 16384,
        micro_replies: int = 0,
        head_chunk: int = 2048,
    ) -> None:
        self.module: Any = module
        self.processor, self.settings = processor, settings
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.prompt = Prompter(module, processor, settings.system)
        self.micro_tokens, self.micro_replies, self.head_chunk = micro_tokens, micro_replies, head_chunk
        self.device = torch.device(_device(settings.device))
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")
        self.module.to(self.device)
        _without_dropout(self.module)
        if settings.gradient_checkpointing:
            self.module.gradient_checkpointing_enable({"use_reentrant": False})
            self.module.train()
        else:
            self.module.eval()
        banned = families.banned_ids(self.module.config, processor)
        head = self.module.get_output_embeddings()
        self.banned = torch.zeros(head.weight.shape[0], dtype=torch.bool, device=self.device)
        self.banned[[i for i in banned if i < len(self.banned)]] = True
        self.recipe = Recipe(
            template=str(getattr(processor, "chat_template", None) or self.tokenizer.chat_template),
            system=settings.system,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            banned=tuple(banned),
            end=tuple(self.prompt.end_of_turn()),
        )
        text = self.module.config.get_text_config()
        self._softcap: float | None = getattr(text, "final_logit_softcapping", None)
        filler = self.tokenizer.pad_token_id
        self._filler: int = self.recipe.end[0] if filler is None else filler

    @classmethod
    def load(cls, folder: str, settings: ModelSettings, **budget: int) -> ChatModel:
        """From a folder or hub id. Raises ConfigError where transformers cannot load it, or a setting does not apply."""
        trust = settings.trust_remote_code
        try:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust)
            module = AutoModelForImageTextToText.from_pretrained(
                folder, trust_remote_code=trust, dtype=torch.float32, attn_implementation=settings.attention
            )
        except (OSError, ValueError) as e:
            raise ConfigError(f"model={settings.name}: transformers cannot load {folder} as an image chat model: {e}") from e
        if settings.min_pixels is not None or settings.max_pixels is not None:
            _set_pixels(processor, settings)
        return cls(module, processor, settings, **budget)

    # What the trainer asks.

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Micro-batches in order, as full as the budgets allow; units of `unit` stay together."""
        batches, current, width = [], [], 0
        for block in _units(samples, unit):
            longest = max(len(self.prompt(s).ids) + max(len(r.token_ids or ()) for r in s.replies) for s in block)
            count = sum(len(s.replies) for s in (*current, *block))
            full = count * max(width, longest) > self.micro_tokens or count > (self.micro_replies or count)
            if current and full:
                batches.append(self._batch(current, columns))
                current, width = [], 0
            current, width = [*current, *block], max(width, longest)
        return [*batches, self._batch(current, columns)] if current else batches

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return reply_space(samples, columns)

    def step(self, plan: Sequence[Batch]) -> Any:
        return nullcontext()

    def __call__(self, batch: Batch, wants: Collection[str]) -> Outputs:
        """The statistics in `wants` for every reply token of `batch`."""
        samples: Sequence[Sample] = batch.inputs
        pairs = [(self.prompt(s), torch.tensor(r.token_ids)) for s in samples for r in s.replies]
        inputs = self._to_device(rows.training([p for p, _ in pairs], [r for _, r in pairs], self._filler))
        with self._arithmetic():
            hidden = self.module.model(**inputs, use_cache=False).last_hidden_state
        width = hidden.shape[1]
        # A reply token is predicted by the column before it.
        index = [i * width + len(p.ids) - 1 + torch.arange(len(r)) for i, (p, r) in enumerate(pairs)]
        picked = hidden.reshape(-1, hidden.shape[-1])[torch.cat(index).to(self.device)]
        targets = torch.cat([r for _, r in pairs]).to(self.device)
        heat = [float(_scalar(r.columns.get("temperature", 1.0))) for s in samples for r in s.replies]
        temperature = torch.tensor(heat, device=self.device)[batch.reply_of]
        with self._arithmetic():
            logp, entropy = token_statistics(
                picked, targets, temperature, self._logits, self.banned, self.head_chunk, "entropy" in wants
            )
        return Outputs(logp=logp, entropy=entropy)

    def decoder(self, samples: Sequence[Sample], n: int) -> ChatDecoder:
        """A decoder of `n` replies to each sample; each prompt is computed once."""
        return ChatDecoder(self, [self.prompt(s) for s in samples], n)

    def reply(self, text: str, origin: Origin) -> Reply:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return Reply((Part("text", text, "assistant"),), origin, (*ids, self.recipe.end[0]))

    def sampled(self, token_ids: Sequence[int]) -> Reply:
        """The reply that a decoder wrote, as text and tokens."""
        text = self.tokenizer.decode([i for i in token_ids if i not in self.recipe.end], skip_special_tokens=False)
        return Reply((Part("text", text, "assistant"),), "policy", tuple(token_ids))

    def frame(self, sample: Sample) -> Frame | None:
        for part in sample.prompt:
            if part.kind == "image":
                header = self.prompt.medium(part).header()
                return families.frame(self.module.config, self.processor, int(header["width"]), int(header["height"]))
        return None

    def parts(self) -> Mapping[str, Sequence[str]]:
        return families.parts(self.module)

    def after_step(self) -> None:
        return None

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    # Inside.

    def _batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        batch = reply_space(samples, columns, inputs=list(samples))
        return Batch(
            batch.reply_of.to(self.device),
            batch.group_of.to(self.device),
            {k: v.to(self.device) for k, v in batch.columns.items()},
            batch.inputs,
            batch.per_token,
        )

    def _to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: v.to(self.device) for k, v in inputs.items()}

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield

    def _logits(self, hidden: Float[Tensor, "tok dim"]) -> Float[Tensor, "tok vocab"]:
        logits = self.module.get_output_embeddings()(hidden)
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap


class ChatDecoder:
    """Writes replies token by token: prompts are prefilled once, their cache is repeated for the n replies of each."""

    def __init__(self, model: ChatModel, prompts: Sequence[Prompt], n: int) -> None:
        self.model, self.n = model, n
        self._inputs = model._to_device(rows.prefill(prompts, model._filler))
        self._axes = prompts[0].positions.shape[0]
        self._next = torch.tensor([p.after for p in prompts], device=model.device)
        self._cache: Any = None

    def start(self) -> Float[Tensor, "sample vocab"]:
        """Log-prob-ready logits of the first reply token of each sample."""
        with torch.no_grad(), self.model._arithmetic():
            out = self.model.module(**self._inputs, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        self._mask = self._inputs["attention_mask"]
        if self.n > 1:
            self._cache.batch_repeat_interleave(self.n)
            self._mask = self._mask.repeat_interleave(self.n, 0)
            self._next = self._next.repeat_interleave(self.n)
        return out.logits[:, -1]

    def step(self, tokens: Int[Tensor, " live"]) -> Float[Tensor, "live vocab"]:
        """Logits after appending one token to each live reply."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        positions = self._next[:, None] if self._axes == 1 else self._next[None, :, None].expand(self._axes, -1, 1)
        with torch.no_grad(), self.model._arithmetic():
            out = self.model.module(
                input_ids=tokens[:, None],
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache, self._next = out.past_key_values, self._next + 1
        return out.logits[:, -1]

    def keep(self, live: Int[Tensor, " live"]) -> None:
        """Drop all replies but those at the indices `live`."""
        self._cache.batch_select_indices(live)
        self._mask, self._next = self._mask[live], self._next[live]

    def distribution(self, logits: Float[Tensor, "live vocab"], temperature: float) -> Float[Tensor, "live vocab"]:
        """Log-probabilities as the training passes compute them."""
        heat = torch.full((len(logits),), temperature, device=logits.device)
        return processed(logits, heat, self.model.banned)


def _units(samples: Sequence[Sample], unit: str) -> Iterator[list[Sample]]:
    if unit == "batch":
        yield [s for s in samples if s.replies]
        return
    for sample in samples:
        if unit == "group" and sample.replies:
            yield [sample]
        elif unit == "reply":
            for reply in sample.replies:
                yield [_with(sample, reply)]


def _with(sample: Sample, reply: Reply) -> Sample:
    return Sample(sample.uid, sample.prompt, (reply,), sample.truth, sample.meta, sample.columns, sample.frame)


def _scalar(value: Any) -> float:
    assert isinstance(value, int | float), "temperature is one number per reply"
    return float(value)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _without_dropout(module: torch.nn.Module) -> None:
    """Log-probs of the same weights must agree between passes; an adapter's own dropout comes later and stays."""
    for child in module.modules():
        if isinstance(child, torch.nn.Dropout):
            child.p = 0.0
        if isinstance(getattr(child, "attention_dropout", None), float):
            child.attention_dropout = 0.0  # type: ignore[assignment]


def _set_pixels(processor: Any, settings: ModelSettings) -> None:
    image = getattr(processor, "image_processor", None)
    size = getattr(image, "size", None) or {}
    if not {"shortest_edge", "longest_edge"} <= set(size) or not hasattr(image, "merge_size"):
        raise ConfigError(
            f"model.min_pixels and model.max_pixels need a processor with a pixel budget (Qwen-VL); "
            f"that of {settings.name} is {type(image).__name__}: leave them out"
        )
    low = size["shortest_edge"] if settings.min_pixels is None else settings.min_pixels
    high = size["longest_edge"] if settings.max_pixels is None else settings.max_pixels
    image.size = {"shortest_edge": low, "longest_edge": high}
