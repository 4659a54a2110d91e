"""`ChatModel`: any multimodal chat model of transformers behind the interface that training and rollouts use.

Chat templates, processors, position ids, padding and packing do not show outside of this package.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core.columns import collate, on_device
from mmpost.errors import ConfigError
from mmpost.models.chat import families, packing, padding
from mmpost.models.chat.attention import attention_to_media
from mmpost.models.chat.backbone import Backbone, ChatDecoder, PrefixDecoder
from mmpost.models.chat.logprobs import Entropy, StatisticsRequest, token_statistics
from mmpost.models.chat.prefix_check import check_prefix_sharing
from mmpost.models.chat.prompts import EncodedPrompt, PromptEncoder, PromptRecipe
from mmpost.models.loading import device_of, load, quiet
from mmpost.types import Batch, CoordinateFrame, InputPreview, Origin, Outputs, Part, Reply, Sample

PREFETCH_THREADS = 2


@dataclass(frozen=True)
class BatchSize:
    """The size of one forward over all replies of some samples, for both ways to lay them out."""

    replies: int = 0
    longest: int = 0
    """Tokens of the longest prompt with its reply: the width of padded rows."""
    packed: int = 0
    """Tokens of a packed stream: each prompt once, each reply without its last token."""

    def __add__(self, other: BatchSize) -> BatchSize:
        return BatchSize(self.replies + other.replies, max(self.longest, other.longest), self.packed + other.packed)


class ChatModel:
    """A chat VLM of transformers: prompts and replies in, per-token statistics out. Implements `GenerativeModel`."""

    def __init__(
        self,
        module: torch.nn.Module,
        processor: Any,
        settings: ModelSettings = ModelSettings(),
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        """Takes over a loaded `module` and its `processor`, and tries both on small probes (`_self_check`).

        Raises ConfigError for a model without chat template or end-of-turn token, for special tokens without an
        embedding, for settings that it does not support, and where its logits are not its head over its last hidden
        states.
        """
        self.processor, self.settings, self.compute = processor, settings, compute
        self.tokenizer = getattr(processor, "tokenizer", processor)
        banned = families.banned_ids(module.config, processor)
        self.prompt = PromptEncoder(module, processor, settings, banned, compute.processed_cache_bytes)
        self.reuse = compute.reuse == "auto"
        self.device = device_of(settings.device)
        module.eval()
        families.switch_off_dropout(module)
        lead, end = self.prompt.reply_delimiters()
        filler_id = self.tokenizer.pad_token_id
        self.backbone = Backbone(
            module,
            self.device,
            bf16=settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda"),
            filler_id=end[0] if filler_id is None else filler_id,
            banned_ids=banned,
            processors=self.prompt.processors,
            compute=compute,
        )
        # A special token that the vocabulary lacks gets an id behind the last one when the tokenizer is loaded.
        special = zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True)
        if beyond := [token for token, i in special if i >= len(self.backbone.banned)]:
            raise ConfigError(
                f"model={settings.name}: wanted special tokens among the {len(self.backbone.banned)} of the model's "
                f"embeddings, found {', '.join(token[:60] for token in beyond)}: correct tokenizer_config.json, or "
                "copy it again"
            )
        self.feature_cache = self.backbone.feature_cache
        self._placeholders = families.placeholder_ids(module.config, processor)
        self.recipe = PromptRecipe(
            template=self.prompt.template,
            system=settings.system,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            video=(
                *(settings.fps, settings.min_frames, settings.max_frames),
                *(settings.video_min_pixels, settings.video_max_pixels, settings.video_total_pixels),
            ),
            positions=self.prompt.positions.name,
            banned=tuple(banned),
            end=tuple(end),
            lead=lead,
        )
        self._unwritable = self.prompt.token_strings([*banned, *end])
        self._prefetchers: ThreadPoolExecutor | None = None
        self.no_prefix_reason = self._self_check()
        """Why each reply recomputes its prompt; empty where the replies to a prompt share one computation of it."""

    @classmethod
    def load(cls, folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> ChatModel:
        """From a folder or hub id. Raises ConfigError for what cannot be loaded or trained, and for unfit settings."""
        return cls(*load(folder, settings), settings, compute)

    def _self_check(self) -> str:
        """Forward passes over small probes, so that an unsupported family fails here and not in the middle of a run.

        Detects what the family does after its head, and switches to prefix sharing where the model computes the same
        that way; returns why it does not.
        """
        probe = self.prompt(Sample("probe", (Part("text", "one two three"),)))
        self.backbone.detect_after_head(probe, self.settings.name)
        reason = check_prefix_sharing(self.backbone, self.prompt) if self.reuse else "compute.reuse=off"
        # The counters tell what a run computes; the probes are not part of it.
        self.feature_cache.reset_counters()
        self.prompt.media_cache.num_processed = 0
        if self.reuse and reason:
            print(f"mmpost: each reply recomputes its prompt, since {reason}", file=sys.stderr)
        return reason

    @property
    def module(self) -> Any:
        """The transformers module, language head included."""
        return self.backbone.module

    @module.setter
    def module(self, module: torch.nn.Module) -> None:
        self.backbone.module = module

    # What the trainer calls.

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Micro-batches in the order of `samples`, as full as the budgets of `compute` allow.

        What `unit` names ("reply", "group", "batch") is never split, even where it exceeds a budget.
        """
        batches, current, size = [], [], BatchSize()
        for block in self._blocks(samples, unit):
            more = sum((self._size(s) for s in block), BatchSize())
            if current and not self._fits(size + more):
                batches.append(self._batch(current, columns))
                current, size = [], BatchSize()
            current, size = [*current, *block], size + more
        return [*batches, self._batch(current, columns)] if current else batches

    def num_tokens(self, samples: Sequence[Sample]) -> int:
        """Tokens of one forward over the replies of `samples`, padding included."""
        return self._num_tokens(sum((self._size(s) for s in samples), BatchSize()))

    def _num_tokens(self, size: BatchSize) -> int:
        return size.replies * size.longest if self.no_prefix_reason else size.packed

    def _size(self, sample: Sample) -> BatchSize:
        prompt, lengths = len(self.prompt(sample).ids), [len(r.token_ids or ()) for r in sample.replies]
        return BatchSize(len(lengths), prompt + max(lengths), prompt + sum(n - 1 for n in lengths if n))

    def _fits(self, size: BatchSize) -> bool:
        max_replies = self.compute.max_replies_per_microbatch or size.replies
        return self._num_tokens(size) <= self.compute.max_tokens_per_microbatch and size.replies <= max_replies

    def _blocks(self, samples: Sequence[Sample], unit: str) -> Iterator[list[Sample]]:
        """Indivisible pieces of a plan. With shared prompts a group stays together, too, unless it exceeds a budget."""
        with_replies = [s for s in samples if s.replies]
        if unit == "batch":
            yield with_replies
            return
        for sample in with_replies:
            if unit == "group" or (not self.no_prefix_reason and self._fits(self._size(sample))):
                yield [sample]
                continue
            piece: tuple[Reply, ...] = ()
            for reply in sample.replies:
                # Replies that share a prompt fill a piece to the budget; without sharing each is a block by itself.
                if piece and (
                    self.no_prefix_reason or not self._fits(self._size(replace(sample, replies=(*piece, reply))))
                ):
                    yield [replace(sample, replies=piece)]
                    piece = ()
                piece = (*piece, reply)
            yield [replace(sample, replies=piece)]

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return collate(samples, columns)

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        if not (self.reuse and self.feature_cache.trainable):
            return nullcontext()
        return self.feature_cache.step([(b, [self.prompt(s) for s in b.inputs if s.replies]) for b in plan])

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """Statistics of every reply token of `batch`: "logp", and those of "entropy", "entropy_value" and "sum_p2" that
        are in `wants`. `train`: the module's mode; None takes training mode where gradients are enabled.
        """
        samples: Sequence[Sample] = batch.inputs
        # The model's own dropout is off; the mode decides on gradient checkpointing and the dropout of adapters.
        self.module.train(torch.is_grad_enabled() if train is None else train)
        prompts = [self.prompt(s) for s in samples]
        replies = _reply_ids(samples)
        hidden = self._predictor_states(prompts, replies, batch)
        targets = torch.cat([r for group in replies for r in group]).to(self.device)
        temperatures = [_temperature(r) for s in samples for r in s.replies]
        entropy: Entropy = "gradient" if "entropy" in wants else "value" if "entropy_value" in wants else "none"
        with self.backbone.autocast():
            statistics = token_statistics(
                hidden,
                targets,
                torch.tensor(temperatures, device=self.device)[batch.reply_of],
                self.backbone.head,
                self.backbone.banned,
                self.compute.logits_per_chunk,
                StatisticsRequest(entropy, "sum_p2" in wants),
                closed_form=self.reuse,
            )
        return Outputs(logp=statistics.logp, entropy=statistics.entropy, sum_p2=statistics.sum_p2)

    def _predictor_states(
        self, prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Tensor]], batch: Batch
    ) -> Float[Tensor, "tok dim"]:
        """The hidden state that predicts each reply token: that of the token before it."""
        if not self.no_prefix_reason:
            columns = packing.predictor_indices(prompts, replies)
            media = self.backbone.media_inputs(prompts, batch)
            hidden = self.backbone.hidden_states(packing.packed_inputs(prompts, replies), **media)
            return hidden[0].index_select(0, columns.to(self.device))
        rows = [(p, r) for p, group in zip(prompts, replies, strict=True) for r in group]
        row_prompts = [p for p, _ in rows]
        inputs = padding.training(row_prompts, [r for _, r in rows], self.backbone.filler_id)
        hidden = self.backbone.hidden_states(inputs, **self.backbone.media_inputs(row_prompts, batch))
        width = hidden.shape[1]
        index = [i * width + len(p.ids) - 1 + torch.arange(len(r)) for i, (p, r) in enumerate(rows)]
        return hidden.reshape(-1, hidden.shape[-1])[torch.cat(index).to(self.device)]

    def decoder(self, samples: Sequence[Sample], n: int) -> ChatDecoder:
        """A decoder of `n` replies to each sample; each prompt is computed once."""
        self.module.eval()
        decoder = ChatDecoder if self.no_prefix_reason else PrefixDecoder
        return decoder(self.backbone, [self.prompt(s) for s in samples], n)

    def attention(self, samples: Sequence[Sample], layers: float) -> list[list[Float[Tensor, "tok media"]]]:
        prompts = [self.prompt(s) for s in samples]
        return attention_to_media(self.backbone, prompts, _reply_ids(samples), self._placeholders, layers)

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        """A reply with the tokens that the model would have written, end of turn included.

        Special tokens that it may not write stay plain text where `text` spells them.
        """
        written = self.recipe.lead + self.prompt.escape(text, self._unwritable)
        ids = self.tokenizer(written, add_special_tokens=False).input_ids
        return Reply((Part("text", text, "assistant"),), origin, (*ids, self.recipe.end[0]))

    def decode_reply(self, token_ids: Sequence[int]) -> Reply:
        """The reply with these sampled tokens; its text leaves out the end of the turn and leading white space."""
        text = self.tokenizer.decode([i for i in token_ids if i not in self.recipe.end], skip_special_tokens=False)
        return Reply((Part("text", text.removeprefix(self.recipe.lead), "assistant"),), "policy", tuple(token_ids))

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. Of a character that spans several tokens, the last one gets it."""
        decode = self.tokenizer.decode
        strings = [decode([i]) for i in ids]
        if "".join(strings) == decode(list(ids)):
            return strings
        # The decoder looks at neighbors (spaces before words, bytes of one character), so that single tokens do not add
        # up. A token's text is then what it adds to the few before it; "\ufffd" marks an incomplete character.
        strings, start = [], 0
        for end in range(1, len(ids) + 1):
            context = max(0, start - 4)
            before, now = decode(list(ids[context:start])), decode(list(ids[context:end]))
            complete = not now.endswith("\ufffd") or end - start > 4
            strings.append(now.removeprefix(before) if complete else "")
            start = end if complete else start
        return strings

    def validate(self, sample: Sample) -> None:
        self.prompt(sample)

    def preview(self, sample: Sample) -> InputPreview:
        prompt = self.prompt(sample)
        num_media = sum(i in self.recipe.banned for i in prompt.ids.tolist())
        return InputPreview(
            summary=f"{len(prompt.ids)} tokens, {num_media} of them for media",
            text=self.prompt.text(sample.prompt),
            tensors={"ids": prompt.ids, "positions": prompt.positions, **prompt.aligned, **prompt.media},
        )

    def cache_key(self, sample: Sample) -> str:
        prompt = [
            (p.role, p.modality, p.value if p.modality == "text" else self.prompt.medium(p).hash) for p in sample.prompt
        ]
        arithmetic = (self.backbone.bf16, self.settings.attn_implementation, type(self.module).__name__)
        return hashlib.sha256(repr((self.recipe.hash, *arithmetic, prompt)).encode()).hexdigest()

    def prefetch(self, samples: Sequence[Sample]) -> None:
        if not self.reuse:
            return
        if self._prefetchers is None:
            self._prefetchers = ThreadPoolExecutor(PREFETCH_THREADS, "prefetch", _use_one_core)
        # Where a prompt is cached and its features are frozen, no pass reads the processed media again.
        always = self.feature_cache.trainable or not self.feature_cache.enabled
        for sample in samples:
            self._prefetchers.submit(self.prompt.prefetch, sample, always)

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        return self.prompt.coordinate_frame(sample, self.module.config)

    def count_escaped_tokens(self, sample: Sample) -> int:
        return self.prompt.count_escaped_tokens(sample)

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        return families.parameter_groups(self.module)

    def after_step(self) -> None:
        self.feature_cache.after_step()

    def save(self, folder: Path) -> None:
        for adapter in getattr(self.module, "peft_config", {}).values():
            if isinstance(adapter.target_modules, set):  # which every process would write in another order
                adapter.target_modules = sorted(adapter.target_modules)
        with quiet():
            self.module.save_pretrained(folder)
            self.processor.save_pretrained(folder)

    def _batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return on_device(collate(samples, columns, inputs=list(samples)), self.device)


def _use_one_core() -> None:
    """Keeps a prefetching thread from starting OpenMP helpers, which would spin on the cores that training needs."""
    torch.get_num_threads()  # torch sets its thread count on a thread's first use, which would undo the limit
    threadpool_limits(1, "openmp")


def _reply_ids(samples: Sequence[Sample]) -> list[list[Int[Tensor, " _"]]]:
    return [[torch.tensor(r.token_ids or (), dtype=torch.long) for r in s.replies] for s in samples]


def _temperature(reply: Reply) -> float:
    temperature = reply.columns.get("temperature", 1.0)
    assert isinstance(temperature, int | float), "temperature is one number per reply"
    return float(temperature)
