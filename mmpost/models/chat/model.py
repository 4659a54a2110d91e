"""Any multimodal chat model of transformers: templates, pixels, positions and padding end here."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core.collate import on_device, reply_space
from mmpost.errors import ConfigError
from mmpost.models.chat import families, packing, padding
from mmpost.models.chat.decoding import ChatDecoder, PrefixDecoder
from mmpost.models.chat.feature_cache import EncoderFeatureCache
from mmpost.models.chat.logprobs import Entropy, LanguageHead, StatisticsRequest, token_statistics
from mmpost.models.chat.prefix_check import check_prefix_sharing
from mmpost.models.chat.prompts import EncodedPrompt, PromptEncoder, PromptRecipe
from mmpost.models.loading import device_of, load, quiet
from mmpost.types import Batch, CoordinateFrame, InputPreview, Origin, Outputs, Part, Reply, Sample

WORKERS = 2
"""Threads that read and process what the next batch needs."""


@dataclass(frozen=True)
class BatchSize:
    """How large the replies of some samples are for a model."""

    replies: int = 0
    longest: int = 0
    """Tokens of the longest prompt with its reply."""
    packed: int = 0
    """Tokens where each prompt is there once, and no last token of a reply."""

    def __add__(self, other: BatchSize) -> BatchSize:
        return BatchSize(self.replies + other.replies, max(self.longest, other.longest), self.packed + other.packed)


class ChatModel:
    """A transformers chat VLM as mmpost sees it: prompts and replies in, per-token statistics out."""

    def __init__(
        self,
        module: torch.nn.Module,
        processor: Any,
        settings: ModelSettings = ModelSettings(),
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        self.module: Any = module
        self.processor, self.settings, self.compute = processor, settings, compute
        self.tokenizer = getattr(processor, "tokenizer", processor)
        banned = families.banned_ids(self.module.config, processor)
        self.prompt = PromptEncoder(module, processor, settings, banned, compute.processed_cache_bytes)
        self.reuse = compute.reuse == "auto"
        self.device = device_of(settings.device)
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")
        self.module.to(self.device)
        self.module.eval()
        families.switch_off_dropout(self.module)
        self.feature_cache = EncoderFeatureCache(
            self.module, self.device, self._arithmetic, self.bf16, self.prompt.processors, compute
        )
        self._workers: ThreadPoolExecutor | None = None
        size = self.module.get_output_embeddings().weight.shape[0]
        self.banned = torch.zeros(size, dtype=torch.bool, device=self.device)
        self.banned[[i for i in banned if i < size]] = True
        lead, end = self.prompt.turn()
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
        self._unwritable = self.prompt.strings([*banned, *end])
        filler = self.tokenizer.pad_token_id
        self._filler: int = self.recipe.end[0] if filler is None else filler
        self._after_head = self._find_after_head()
        self.no_prefix_reason = check_prefix_sharing(self) if self.reuse else "compute.reuse=off"
        """Why prompts are computed again for each of their replies; empty where once serves all."""
        self.feature_cache.start_counting()
        self.prompt.media_cache.processed = 0
        if self.reuse and self.no_prefix_reason:
            print(
                f"mmpost: prompts are computed once for each reply, not once for all: {self.no_prefix_reason}",
                file=sys.stderr,
            )

    @classmethod
    def load(cls, folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> ChatModel:
        """From a folder or hub id. Raises ConfigError for what cannot be loaded or trained, and for unfit settings."""
        return cls(*load(folder, settings), settings, compute)

    # What the trainer asks.

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Micro-batches in order, as full as the budgets allow; units of `unit` stay together."""
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
        size = sum((self._size(s) for s in samples), BatchSize())
        return size.replies * size.longest if self.no_prefix_reason else size.packed

    def _size(self, sample: Sample) -> BatchSize:
        prompt, lengths = len(self.prompt(sample).ids), [len(r.token_ids or ()) for r in sample.replies]
        return BatchSize(len(lengths), prompt + max(lengths), prompt + sum(n - 1 for n in lengths if n))

    def _fits(self, size: BatchSize) -> bool:
        tokens = size.replies * size.longest if self.no_prefix_reason else size.packed
        return tokens <= self.compute.max_tokens_per_microbatch and size.replies <= (
            self.compute.max_replies_per_microbatch or size.replies
        )

    def _blocks(self, samples: Sequence[Sample], unit: str) -> Iterator[list[Sample]]:
        """What stays together: units; where prompts are shared, groups too, unless one alone is too large."""
        filled = [s for s in samples if s.replies]
        if unit == "batch":
            yield filled
            return
        for sample in filled:
            if unit == "group" or (not self.no_prefix_reason and self._fits(self._size(sample))):
                yield [sample]
                continue
            piece: tuple[Reply, ...] = ()
            for reply in sample.replies:
                if piece and (self.no_prefix_reason or not self._fits(self._size(_with(sample, (*piece, reply))))):
                    yield [_with(sample, piece)]
                    piece = ()
                piece = (*piece, reply)
            yield [_with(sample, piece)]

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return reply_space(samples, columns)

    def step(self, plan: Sequence[Batch]) -> Any:
        if not (self.reuse and self.feature_cache.trains):
            return nullcontext()
        return self.feature_cache.step([(b, [self.prompt(s) for s in b.inputs if s.replies]) for b in plan])

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """The statistics in `wants` for every reply token of `batch`."""
        samples: Sequence[Sample] = batch.inputs
        # Own dropout is off; what the mode still switches is checkpointing and the dropout of adapters.
        self.module.train(torch.is_grad_enabled() if train is None else train)
        prompts = [self.prompt(s) for s in samples]
        replies = [[torch.tensor(r.token_ids or (), dtype=torch.long) for r in s.replies] for s in samples]
        picked = self._predictors(prompts, replies, batch)
        targets = torch.cat([r for group in replies for r in group]).to(self.device)
        heat = [float(_scalar(r.columns.get("temperature", 1.0))) for s in samples for r in s.replies]
        temperature = torch.tensor(heat, device=self.device)[batch.reply_of]
        kind: Entropy = "gradient" if "entropy" in wants else "value" if "entropy_value" in wants else "none"
        wanted = StatisticsRequest(kind, "sum_p2" in wants)
        with self._arithmetic():
            found = token_statistics(
                picked,
                targets,
                temperature,
                self.head,
                self.banned,
                self.compute.logits_per_chunk,
                wanted,
                closed=self.reuse,
            )
        return Outputs(logp=found.logp, entropy=found.entropy, sum_p2=found.sum_p2)

    def decoder(self, samples: Sequence[Sample], n: int) -> ChatDecoder:
        """A decoder of `n` replies to each sample; each prompt is computed once."""
        self.module.eval()
        return (ChatDecoder if self.no_prefix_reason else PrefixDecoder)(self, [self.prompt(s) for s in samples], n)

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        """A reply as the model would have written it; the names of tokens that it may not write stay plain text."""
        written = self.recipe.lead + self.prompt.plain(text, self._unwritable)
        ids = self.tokenizer(written, add_special_tokens=False).input_ids
        return Reply((Part("text", text, "assistant"),), origin, (*ids, self.recipe.end[0]))

    def decode_reply(self, token_ids: Sequence[int]) -> Reply:
        """The reply that a decoder wrote, as text and tokens."""
        text = self.tokenizer.decode([i for i in token_ids if i not in self.recipe.end], skip_special_tokens=False)
        return Reply((Part("text", text.removeprefix(self.recipe.lead), "assistant"),), "policy", tuple(token_ids))

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; of a character that several tokens share, the last one has it."""
        decode = self.tokenizer.decode
        alone = [decode([i]) for i in ids]
        if "".join(alone) == decode(list(ids)):
            return alone
        # Decoders that look at neighbours (spaces before words, bytes of one character): what each token adds to the
        # few before it.
        found, start = [], 0
        for end in range(1, len(ids) + 1):
            before, now = decode(list(ids[max(0, start - 4) : start])), decode(list(ids[max(0, start - 4) : end]))
            whole = not now.endswith("\ufffd") or end - start > 4
            found.append(now.removeprefix(before) if whole else "")
            start = end if whole else start
        return found

    def validate(self, sample: Sample) -> None:
        self.prompt(sample)

    def preview(self, sample: Sample) -> InputPreview:
        prompt = self.prompt(sample)
        media = sum(i in self.recipe.banned for i in prompt.ids.tolist())
        tensors = {"ids": prompt.ids, "positions": prompt.positions, **prompt.aligned, **prompt.media}
        return InputPreview(
            f"{len(prompt.ids)} tokens, {media} of them for media", self.prompt.text(sample.prompt), tensors
        )

    def cache_key(self, sample: Sample) -> str:
        prompt = [
            (p.role, p.modality, p.value if p.modality == "text" else self.prompt.medium(p).hash) for p in sample.prompt
        ]
        about = (self.recipe.hash, self.bf16, self.settings.attn_implementation, type(self.module).__name__, prompt)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def prefetch(self, samples: Sequence[Sample]) -> None:
        if not self.reuse:
            return
        if self._workers is None:
            self._workers = ThreadPoolExecutor(WORKERS, "read ahead", _alone)
        pixels = self.feature_cache.trains or not self.feature_cache.shares
        for sample in samples:
            self._workers.submit(self.prompt.ahead, sample, pixels)

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        for part in sample.prompt:
            if part.modality == "image":
                header = self.prompt.medium(part).header()
                return families.frame(
                    self.module.config,
                    self.processor,
                    int(header["width"]),
                    int(header["height"]),
                    self.settings.coordinates,
                )
        return None

    def count_escaped_tokens(self, sample: Sample) -> int:
        return self.prompt.escapes(sample)

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        return families.parameter_groups(self.module)

    def after_step(self) -> None:
        self.feature_cache.forget()

    def save(self, folder: Path) -> None:
        with quiet():
            self.module.save_pretrained(folder)
            self.processor.save_pretrained(folder)

    # Inside.

    def _batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return on_device(reply_space(samples, columns, inputs=list(samples)), self.device)

    def _to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A layout, in place of a mask, is read by the host.
        return {k: v if k == "attention_mask" and v.dim() == 4 else v.to(self.device) for k, v in inputs.items()}

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield

    def _hidden(self, inputs: Mapping[str, Any], **more: Any) -> Float[Tensor, "row len dim"]:
        with self._arithmetic():
            return self.module.model(**self._to_device(inputs), **({"use_cache": False} | more)).last_hidden_state

    def _predictors(
        self, prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Tensor]], batch: Batch | None = None
    ) -> Float[Tensor, "tok dim"]:
        """The hidden state that predicts each reply token: that of the token before it."""
        if not self.no_prefix_reason:
            columns = packing.predictor_indices(prompts, replies)
            hidden = self._hidden(packing.packed_inputs(prompts, replies), **self.feature_cache.inputs(prompts, batch))
            return hidden[0].index_select(0, columns.to(self.device))
        pairs = [(p, r) for p, group in zip(prompts, replies, strict=True) for r in group]
        each = [p for p, _ in pairs]
        inputs = padding.training(each, [r for _, r in pairs], self._filler)
        hidden = self._hidden(inputs, **self.feature_cache.inputs(each, batch))
        width = hidden.shape[1]
        index = [i * width + len(p.ids) - 1 + torch.arange(len(r)) for i, (p, r) in enumerate(pairs)]
        return hidden.reshape(-1, hidden.shape[-1])[torch.cat(index).to(self.device)]

    @property
    def head(self) -> LanguageHead:
        """From hidden states to logits."""
        return LanguageHead(self.module.get_output_embeddings(), self._after_head)

    def _find_after_head(self) -> families.AfterHead:
        """What the model does to its head's output; found on a short text, where the whole model gives the answer.

        Raises ConfigError where no known operation, at the positions that mmpost hands over, gives the model's logits.
        """
        prompt = self.prompt(Sample("probe", (Part("text", "one two three"),)))
        inputs = self._to_device(padding.training([prompt], [torch.empty(0, dtype=torch.long)], self._filler))
        bare = {k: v for k, v in inputs.items() if k != "position_ids"}
        with torch.no_grad(), self._arithmetic():
            wanted = self.module(**bare, use_cache=False).logits.float()
            raw = self.module.get_output_embeddings()(self._hidden(inputs))
            candidates = families.after_head(self.module.config)
            errors = [float((f(raw).float() - wanted).abs().max()) for f in candidates]
        best = min(range(len(errors)), key=errors.__getitem__)
        # As much as arithmetic in 16 bits may differ between two calls.
        if not errors[best] <= 0.05 * float(wanted.abs().max()):
            raise ConfigError(
                f"model={self.settings.name}: wanted a model whose logits are its head over its last hidden states, "
                f"found {type(self.module).__name__}, which differs by {errors[best]:.2g}; choose another family"
            )
        return candidates[best]


def _with(sample: Sample, replies: tuple[Reply, ...]) -> Sample:
    return Sample(sample.uid, sample.prompt, replies, sample.truth, sample.meta, sample.columns, sample.frame)


def _alone() -> None:
    """A thread that computes by itself: helpers of its own would wait, spinning, on the cores that the step needs."""
    torch.get_num_threads()  # what torch sets at a thread's first use must not come later
    threadpool_limits(1, "openmp")


def _scalar(value: Any) -> float:
    assert isinstance(value, int | float), "temperature is one number per reply"
    return float(value)
