"""Encoder features of media, computed once per distinct medium however many rows and passes read it.

This works for every modality whose encoder output the model's forward accepts in place of its inputs.

Frozen encoder: features are cached by content, in memory and, if set, on disk. Trained encoder: each medium of an
optimizer step is encoded once with a graph. Micro-batches read detached copies of the features, which collect their
gradients, and one backward pass through the encoder follows when the last micro-batch has added its own.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmpost.config.settings import ComputeSettings
from mmpost.core.samples import at_least_fp32
from mmpost.data.media.cache import Cache
from mmpost.errors import ConfigError, DataError
from mmpost.models.chat import families, padding
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.media.processed_cache import MediaInput, merge_outputs
from mmpost.models.media.processors import MediaProcessor

TOLERANCE = 0.02
"""Largest difference of hidden states with and without cached features, relative to the largest hidden state."""

Feature = tuple[Tensor, ...]
"""What the language model reads of one medium: its token embeddings, and those added in later layers (deep stack)."""


@dataclass
class MediaEncoder:
    """A model's encoder of one modality, and the form of its output, which its first call shows."""

    function: Callable[..., Any]
    listed: bool = True
    """Whether the output is a list with one feature per medium, instead of one tensor for all."""
    output: Callable[..., Any] = dict


@dataclass
class PendingFeature:
    """A feature of the current optimizer step that has not been through the backward pass yet."""

    out: Feature
    """The encoder's output, with graph."""
    leaves: Feature
    """Detached copies that micro-batches read and accumulate gradients on; fp32, since many small ones add up."""
    last: int
    """Index of the last micro-batch that reads it."""


class EncoderFeatureCache:
    """Provides the media inputs of prompts: features where the family accepts them, else processed media."""

    def __init__(
        self,
        module: Any,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
        bf16: bool,
        processors: Mapping[str, MediaProcessor],
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        self.module, self.device, self.autocast, self.bf16 = module, device, autocast, bf16
        self._encoders: dict[str, MediaEncoder] = {}
        if compute.reuse == "auto":
            for modality, processor in processors.items():
                function = getattr(module.model, processor.feature_method, None)
                if callable(function):
                    self._encoders[modality] = MediaEncoder(function)
        self.num_calls = self.num_encoded = 0
        """Encoder calls so far, and the media encoded in them."""
        self.folder = Path(compute.feature_cache_dir) if compute.feature_cache_dir else None
        self._cache = Cache(compute.feature_cache_bytes)
        self._weights: tuple[object, ...] = ()
        self._weights_hash = ""
        self._checked: set[tuple[str, bool]] = set()
        # Parameters that features do not depend on. Unknown ones count as the encoder's, which is the safe side.
        groups = families.parameter_groups(module)
        self._other_prefixes = tuple(p + "." for part in ("language", "head") for p in groups.get(part, ()))
        self._plan: dict[int, int] = {}
        self._last: dict[str, int] = {}
        self._pending: dict[str, PendingFeature] = {}

    def reset_counters(self) -> None:
        """Start counting calls and media from 0."""
        self.num_calls = self.num_encoded = 0

    @property
    def enabled(self) -> bool:
        """Whether features of any modality are computed once."""
        return bool(self._encoders)

    @property
    def trainable(self) -> bool:
        """Whether any weight that features may depend on is trained."""
        return any(p.requires_grad for _, p in self._parameters())

    def inputs(self, prompts: Sequence[EncodedPrompt], batch: object = None) -> dict[str, Any]:
        """What the model takes besides tokens for the media of `prompts`, one row each, in their order.

        `batch`: the micro-batch of these prompts, if any. With a graph it must be one of the plan of `step`, and its
        backward pass must run before the inputs of the next one are requested.
        """
        media = [medium for prompt in prompts for medium in prompt.media_inputs]
        if not media:
            return {}
        self._check(prompts)
        if not {m.modality for m in media} <= self._encoders.keys():
            return {k: v.to(self.device) for k, v in padding.media(prompts).items()}
        with_graph = self.trainable and torch.is_grad_enabled()
        if self.trainable and not with_graph and batch is None:
            # A rollout needs each prompt once, and the weights change before the next: one call, and nothing cached.
            distinct = _distinct(media)
            features = dict(zip([m.key for m in distinct], self._encode_all(distinct), strict=True))
        elif not with_graph:
            self._refuse_dropout()
            features = {m.key: self._cached_feature(m) for m in _distinct(media)}
        elif (index := self._plan.get(id(batch))) is None:
            features = {m.key: self._encode_one(m) for m in _distinct(media)}
        else:
            return self._as_outputs(media, self._leaves(media, index))
        return self._as_outputs(media, [tuple(t.to(self.device) for t in features[m.key]) for m in media])

    def _refuse_dropout(self) -> None:
        """Raises ConfigError for dropout in a pass without gradient whose counterpart with gradient comes later.

        Such are the two passes of a whole-batch objective (GradCache): they must have the same dropout, which features
        from different computations do not.
        """
        if not (self.trainable and self.module.training):
            return
        for name, module in self.module.named_modules():
            if isinstance(module, torch.nn.Dropout) and module.p > 0 and not name.startswith(self._other_prefixes):
                raise ConfigError(
                    "an objective over the whole batch computes each micro-batch twice and wants the same dropout in "
                    f"both, found {name} in the encoder, whose features are reused: set model.lora.dropout=0, leave "
                    "vision out of model.lora.target_groups, or set compute.reuse=off"
                )

    @contextmanager
    def step(self, plan: Sequence[tuple[object, Sequence[EncodedPrompt]]]) -> Iterator[None]:
        """Surrounds the micro-batches of one optimizer step, given with their prompts."""
        self._plan = {id(batch): i for i, (batch, _) in enumerate(plan)}
        self._last = {
            m.key: i for i, (_, prompts) in enumerate(plan) for prompt in prompts for m in prompt.media_inputs
        }
        try:
            yield
            self._backward(len(plan))
        finally:
            self._plan, self._last, self._pending = {}, {}, {}

    def after_step(self) -> None:
        """Drop what the optimizer step has outdated."""
        if self.trainable:
            self._cache.clear()

    # Features without graph.

    def _cached_feature(self, medium: MediaInput) -> Feature:
        """A function of the medium and the encoder's weights alone; cached until these change."""
        # In-place updates increment a parameter's version; replacing its tensor changes the address.
        weights = tuple((p.data_ptr(), p._version) for _, p in self._parameters())
        if weights != self._weights:
            self._cache.clear()
            self._weights, self._weights_hash = weights, ""
        return self._cache.get(medium.key, lambda: self._load_or_encode(medium), lambda f: sum(t.nbytes for t in f))

    def _load_or_encode(self, medium: MediaInput) -> Feature:
        file = None
        if self.folder is not None and not self.trainable:
            file = self.folder / f"{self._file_stem(medium)}.safetensors"
            if file.exists():
                return _load(file)
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                feature = tuple(t.cpu() for t in self._encode_one(medium))
        finally:
            self.module.train(training)
        if file is not None:
            try:
                _save(file, feature)
            except OSError as e:
                print(
                    f"compute.feature_cache_dir: {file.parent} cannot be written ({e}); continuing without it",
                    file=sys.stderr,
                )
                self.folder = None
        return feature

    def _file_stem(self, medium: MediaInput) -> str:
        """Hash of all that a feature depends on: medium, weights, configuration, arithmetic and library versions."""
        if not self._weights_hash:
            sha = hashlib.sha256(f"{type(self.module).__name__} {self.module.config.to_json_string()}".encode())
            versions = [metadata.version(name) for name in ("torch", "transformers")]
            attention = getattr(self.module.config, "_attn_implementation", "")
            sha.update(f"{versions} {self.device.type} {self.bf16} {attention}".encode())
            for name, p in self._parameters():
                sha.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
                sha.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            self._weights_hash = sha.hexdigest()
        return hashlib.sha256(f"{self._weights_hash} {medium.key}".encode()).hexdigest()

    # Features with graph.

    def _leaves(self, media: Sequence[MediaInput], index: int) -> list[Feature]:
        """What micro-batch `index` reads of its media; encodes those that no earlier one has read."""
        self._backward(index)
        new = [m for m in _distinct(media) if m.key not in self._pending]
        # Media encoded in one call share a graph, which a backward pass frees: all of them wait for the last reader.
        last = max((self._last[m.key] for m in new), default=index)
        for medium, out in zip(new, self._encode_all(new), strict=True):
            leaves = tuple(at_least_fp32(t.detach()).requires_grad_() for t in out)
            self._pending[medium.key] = PendingFeature(out, leaves, last)
        pending = [self._pending[m.key] for m in media]
        return [tuple(leaf.to(t.dtype) for leaf, t in zip(f.leaves, f.out, strict=True)) for f in pending]

    def _backward(self, index: int) -> None:
        """Backward pass through the encoder for the features that no micro-batch from `index` on reads."""
        finished = {key: feature for key, feature in self._pending.items() if feature.last < index}
        pairs = [pair for feature in finished.values() for pair in zip(feature.out, feature.leaves, strict=True)]
        # A single backward call for all roots, since those of one encoder call share a graph.
        roots = [(t, leaf.grad.to(t.dtype)) for t, leaf in pairs if leaf.grad is not None and t.requires_grad]
        for key in finished:
            del self._pending[key]
        if roots:
            torch.autograd.backward([t for t, _ in roots], [g for _, g in roots])

    # The encoder itself.

    def _encode_one(self, medium: MediaInput) -> Feature:
        self.num_calls, self.num_encoded = self.num_calls + 1, self.num_encoded + 1
        return self._feature(medium)

    def _encode_all(self, media: Sequence[MediaInput]) -> list[Feature]:
        """In one call per modality where the encoder's output separates the media again, else in one call each."""
        features: dict[str, Feature] = {}
        for modality in dict.fromkeys(m.modality for m in media):
            of_modality = [m for m in media if m.modality == modality]
            inputs = _merge(of_modality) if self._encoders[modality].listed else None
            if inputs is None:
                features |= {m.key: self._encode_one(m) for m in of_modality}
            else:
                self.num_calls, self.num_encoded = self.num_calls + 1, self.num_encoded + len(of_modality)
                features |= dict(zip((m.key for m in of_modality), self._encode(modality, inputs), strict=True))
        return [features[m.key] for m in media]

    def _feature(self, medium: MediaInput) -> Feature:
        parts = self._encode(medium.modality, medium.load())
        return parts[0] if len(parts) == 1 else tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def _encode(self, modality: str, inputs: Mapping[str, Tensor]) -> list[Feature]:
        """One call of the encoder; as many features as its output separates."""
        encoder = self._encoders[modality]
        accepted = inspect.signature(encoder.function).parameters
        arguments = {k: v.to(self.device) for k, v in inputs.items() if k in accepted}
        with self.autocast():
            out = encoder.function(**arguments, return_dict=True)
        tokens, levels = out.pooler_output, out.get("deepstack_features") or ()
        encoder.listed, encoder.output = not isinstance(tokens, Tensor), type(out)
        return list(zip(tokens, *levels, strict=True)) if encoder.listed else [(tokens, *levels)]

    def _as_outputs(self, media: Sequence[MediaInput], features: Sequence[Feature]) -> dict[str, Any]:
        """Features in the form of encoder outputs, which forwards of transformers accept in place of media inputs."""
        outputs = {}
        for modality in dict.fromkeys(m.modality for m in media):
            encoder = self._encoders[modality]
            of_modality = [f for m, f in zip(media, features, strict=True) if m.modality == modality]
            tokens = [f[0] for f in of_modality]
            fields: dict[str, Any] = {"pooler_output": tokens if encoder.listed else torch.cat(tokens)}
            levels = [list(level) for level in zip(*(f[1:] for f in of_modality), strict=True)]
            if levels:
                fields["deepstack_features"] = levels
            outputs[modality] = encoder.output(**fields)
        return {"mm_encoder_outputs": outputs}

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters that features may depend on."""
        for name, p in self.module.named_parameters():
            if not name.startswith(self._other_prefixes):
                yield name, p

    # Whether the family accepts features at all.

    def _check(self, prompts: Sequence[EncodedPrompt]) -> None:
        """Compare hidden states with features and without, for the first prompt with one medium and with several.

        A modality that fails is from then on encoded by each forward, as in transformers.
        """
        for prompt in prompts:
            modalities = dict.fromkeys(m.modality for m in prompt.media_inputs)
            case = (",".join(modalities), len(prompt.media_inputs) > len(modalities))
            if not modalities or not modalities.keys() <= self._encoders.keys() or case in self._checked:
                continue
            self._checked.add(case)
            reason = self._reason_unsupported(prompt)
            if reason:
                self._encoders = {k: e for k, e in self._encoders.items() if k not in modalities}
                name = type(self.module).__name__
                print(f"{name}: each row encodes its {', '.join(modalities)} anew, since {reason}", file=sys.stderr)

    def _reason_unsupported(self, prompt: EncodedPrompt) -> str:
        """Why this model's features cannot be reused; empty where they can."""
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad(), self.autocast():
                text = {k: v.to(self.device) for k, v in padding.prefill([prompt], 0).items()}
                media = {k: v.to(self.device) for k, v in prompt.media.items()}
                expected = self.module.model(**text, **media, use_cache=False).last_hidden_state.float()
                outputs = self._as_outputs(prompt.media_inputs, [self._feature(m) for m in prompt.media_inputs])
                actual = self.module.model(**text, **outputs, use_cache=False).last_hidden_state.float()
            if not float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max()):
                return "its hidden states differ when it is given features"
            return (
                "its features depend on the language model" if self._depends_on_others(prompt.media_inputs[0]) else ""
            )
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as e:
            return f"it does not accept features: {type(e).__name__}: {str(e)[:200]}"
        finally:
            self.module.train(training)

    def _depends_on_others(self, medium: MediaInput) -> bool:
        """Whether features have a gradient on parameters outside of `_parameters`, and so change with them."""
        encoder_ids = {id(p) for _, p in self._parameters()}
        others = [p for p in self.module.parameters() if id(p) not in encoder_ids and p.is_floating_point()]
        before = [p.requires_grad for p in others]
        try:
            for p in others:
                p.requires_grad_(True)
            with torch.enable_grad():
                out = self._feature(medium)[0]
                if not (out.requires_grad and others):
                    return False
                return any(g is not None for g in torch.autograd.grad(out.sum(), others, allow_unused=True))
        finally:
            for p, requires_grad in zip(others, before, strict=True):
                p.requires_grad_(requires_grad)


def _distinct(media: Sequence[MediaInput]) -> list[MediaInput]:
    return list({m.key: m for m in media}.values())


def _merge(media: Sequence[MediaInput]) -> dict[str, Tensor] | None:
    """The inputs of several single media in one; None where they do not concatenate."""
    if len(media) < 2 or any(m.num_media != 1 for m in media):
        return None
    try:
        return merge_outputs([m.load() for m in media])
    except ValueError:
        return None


def _load(file: Path) -> Feature:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as e:
        raise DataError(f"{file}: wanted cached features, found a file that cannot be read ({e}); delete it") from e
    return tuple(tensors[str(i)] for i in range(len(tensors)))


def _save(file: Path, feature: Feature) -> None:
    """Atomic, by a rename: other runs may read and write the same folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    save_file({str(i): t.contiguous() for i, t in enumerate(feature)}, temporary)
    temporary.replace(file)
