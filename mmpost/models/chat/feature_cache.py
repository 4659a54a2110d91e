"""Features of media once per distinct picture, however many rows and passes ask for them.

A picture is an image, a video or a sound: whatever has an encoder whose output the model's forward takes.

Frozen: kept by content, in memory and perhaps on disk. Trained: one forward with graph for each picture of a step;
micro-batches get detached copies, and one backward follows when the last of them has given its gradient.
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
from mmpost.core.numerics import at_least_fp32
from mmpost.data.media.cache import Cache
from mmpost.errors import ConfigError, DataError
from mmpost.models.chat import families, padding
from mmpost.models.chat.prompts import EncodedPrompt
from mmpost.models.media.processed_cache import MediaInput, merged
from mmpost.models.media.processors import MediaProcessor

CLOSE = 0.02
"""Largest difference of hidden states, as a share of the largest, at which two ways are the same."""

Feature = tuple[Tensor, ...]
"""What the language model reads of one picture: its tokens, and those that later layers add (deep stack)."""


@dataclass
class Encoder:
    """What turns one kind of media into features, and what is known of its outputs."""

    function: Callable[..., Any]
    listed: bool = True
    """One feature for each medium, instead of all in one tensor."""
    output: Callable[..., Any] = dict


@dataclass
class _Live:
    """A picture of the optimiser step at hand."""

    out: Feature
    """With graph."""
    leaves: Feature
    """What micro-batches read, and leave their gradients on; fp32, so that many small ones add up."""
    last: int
    """The last micro-batch that reads it."""


class EncoderFeatureCache:
    """Gives prompts their media: as features where the family takes them so, else as pixels (the plain path)."""

    def __init__(
        self,
        module: Any,
        device: torch.device,
        arithmetic: Callable[[], AbstractContextManager[None]],
        bf16: bool,
        intakes: Mapping[str, MediaProcessor],
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        self.module, self.device, self.arithmetic, self.bf16 = module, device, arithmetic, bf16
        self._encoders: dict[str, Encoder] = {}
        if compute.reuse == "auto":
            for kind in intakes:
                function = getattr(module.model, intakes[kind].features, None)
                if callable(function):
                    self._encoders[kind] = Encoder(function)
        self.calls = self.pictures = 0
        """Runs of the tower so far, and pictures in them; those of the check at the start are not counted."""
        self.folder = Path(compute.feature_cache_dir) if compute.feature_cache_dir else None
        self._cache = Cache(compute.feature_cache_bytes)
        self._weights: tuple[object, ...] = ()
        self._disk_name = ""
        self._checked: set[tuple[str, bool]] = set()
        # Parts that have nothing to do with pictures; what is unknown counts as the tower's.
        known = families.parameter_groups(module)
        self._others = tuple(p + "." for part in ("language", "head") for p in known.get(part, ()))
        self._plan: dict[int, int] = {}
        self._last: dict[str, int] = {}
        self._live: dict[str, _Live] = {}

    def inputs(self, prompts: Sequence[EncodedPrompt], batch: object = None) -> dict[str, Any]:
        """What the model is given besides tokens for the media of `prompts`, one row each, in their order.

        `batch`: the micro-batch that they belong to; with a graph, one of the plan of `step`, whose backward must run
        before the next one is asked for.
        """
        pictures = [picture for prompt in prompts for picture in prompt.media_inputs]
        if not pictures:
            return {}
        self._check(prompts)
        if not {p.modality for p in pictures} <= self._encoders.keys():
            return {k: v.to(self.device) for k, v in padding.media(prompts).items()}
        graph = self.trains and torch.is_grad_enabled()
        if self.trains and not graph and batch is None:
            # A rollout asks once for each prompt: together is faster, and nothing is worth keeping.
            distinct = _distinct(pictures)
            found = dict(zip([p.key for p in distinct], self._run_all(distinct), strict=True))
        elif not graph:
            self._refuse_dropout()
            found = {p.key: self._fixed(p) for p in _distinct(pictures)}
        elif (place := self._plan.get(id(batch))) is None:
            found = {p.key: self._run(p) for p in _distinct(pictures)}
        else:
            return self._outputs(pictures, self._leaves(pictures, place))
        return self._outputs(pictures, [tuple(t.to(self.device) for t in found[p.key]) for p in pictures])

    def _refuse_dropout(self) -> None:
        """Raises ConfigError where a pass without gradient should draw the dropout that one with a gradient will."""
        if not (self.trains and self.module.training):
            return
        for name, module in self.module.named_modules():
            if isinstance(module, torch.nn.Dropout) and module.p > 0 and not name.startswith(self._others):
                raise ConfigError(
                    "an objective of the whole batch computes each micro-batch twice and wants the same dropout in "
                    f"both, found {name}, whose pictures are computed once: set model.lora.dropout=0, leave vision out "
                    "of model.lora.parts, or compute.reuse=off"
                )

    @property
    def shares(self) -> bool:
        """Whether features of any kind of medium are computed once."""
        return bool(self._encoders)

    @contextmanager
    def step(self, plan: Sequence[tuple[object, Sequence[EncodedPrompt]]]) -> Iterator[None]:
        """Surrounds the micro-batches of one optimiser step, given with their prompts."""
        self._plan = {id(batch): place for place, (batch, _) in enumerate(plan)}
        self._last = {
            p.key: i for i, (_, prompts) in enumerate(plan) for prompt in prompts for p in prompt.media_inputs
        }
        try:
            yield
            self._backward(len(plan))
        finally:
            self._plan, self._last, self._live = {}, {}, {}

    @property
    def trains(self) -> bool:
        """Whether any weight that features may depend on is trained."""
        return any(p.requires_grad for _, p in self._parameters())

    def start_counting(self) -> None:
        """From nought."""
        self.calls = self.pictures = 0

    def forget(self) -> None:
        """The weights may have moved."""
        if self.trains:
            self._cache.clear()

    # Features that stay as they are.

    def _fixed(self, picture: MediaInput) -> Feature:
        """Without graph, a function of the picture and the weights alone; kept as long as the weights stay."""
        # In-place changes count up the version; what replaces a tensor has another place.
        weights = tuple((p.data_ptr(), p._version) for _, p in self._parameters())
        if weights != self._weights:
            self._cache.clear()
            self._weights, self._disk_name = weights, ""
        return self._cache.get(picture.key, lambda: self._read(picture), lambda f: sum(t.nbytes for t in f))

    def _read(self, picture: MediaInput) -> Feature:
        file = None
        if self.folder is not None and not self.trains:
            file = self.folder / f"{self._named(picture)}.safetensors"
            if file.exists():
                return _load(file)
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                feature = tuple(t.cpu() for t in self._run(picture))
        finally:
            self.module.train(training)
        if file is not None:
            try:
                _save(file, feature)
            except OSError as e:
                print(
                    f"compute.feature_cache_dir: {file.parent} cannot be written ({e}); going on without",
                    file=sys.stderr,
                )
                self.folder = None
        return feature

    def _named(self, picture: MediaInput) -> str:
        """Hash of all that a feature depends on: picture, weights, arithmetic and libraries."""
        if not self._disk_name:
            found = hashlib.sha256(f"{type(self.module).__name__} {self.module.config.to_json_string()}".encode())
            versions = [metadata.version(name) for name in ("torch", "transformers")]
            found.update(f"{versions} {self.device.type} {self.bf16} {self._attention()}".encode())
            for name, p in self._parameters():
                found.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
                found.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            self._disk_name = found.hexdigest()
        return hashlib.sha256(f"{self._disk_name} {picture.key}".encode()).hexdigest()

    def _attention(self) -> str:
        return str(getattr(self.module.config, "_attn_implementation", ""))

    # Features with a gradient.

    def _leaves(self, pictures: Sequence[MediaInput], place: int) -> list[Feature]:
        self._backward(place)
        new = [p for p in _distinct(pictures) if p.key not in self._live]
        # What may share a graph goes backward together.
        last = max((self._last[p.key] for p in new), default=place)
        for picture, out in zip(new, self._run_all(new), strict=True):
            leaves = tuple(at_least_fp32(t.detach()).requires_grad_() for t in out)
            self._live[picture.key] = _Live(out, leaves, last)
        live = [self._live[p.key] for p in pictures]
        return [tuple(leaf.to(t.dtype) for leaf, t in zip(one.leaves, one.out, strict=True)) for one in live]

    def _backward(self, place: int) -> None:
        """Through the tower, for the pictures that no micro-batch from `place` on reads."""
        done = {key: one for key, one in self._live.items() if one.last < place}
        pairs = [pair for one in done.values() for pair in zip(one.out, one.leaves, strict=True)]
        roots = [(t, leaf.grad.to(t.dtype)) for t, leaf in pairs if leaf.grad is not None and t.requires_grad]
        for key in done:
            del self._live[key]
        if roots:
            torch.autograd.backward([t for t, _ in roots], [g for _, g in roots])

    # The family's own code.

    def _run(self, picture: MediaInput) -> Feature:
        self.calls, self.pictures = self.calls + 1, self.pictures + 1
        return self._feature(picture)

    def _run_all(self, pictures: Sequence[MediaInput]) -> list[Feature]:
        """In one call for each kind whose encoder tells the pictures apart afterwards, else in one each."""
        found: dict[str, Feature] = {}
        for kind in dict.fromkeys(p.modality for p in pictures):
            mine = [p for p in pictures if p.modality == kind]
            media = _together(mine) if self._encoders[kind].listed else None
            if media is None:
                found |= {p.key: self._run(p) for p in mine}
            else:
                self.calls, self.pictures = self.calls + 1, self.pictures + len(mine)
                found |= dict(zip((p.key for p in mine), self._encode(kind, media), strict=True))
        return [found[p.key] for p in pictures]

    def _feature(self, picture: MediaInput) -> Feature:
        """Of one picture, whatever it consists of."""
        found = self._encode(picture.modality, picture.load())
        return found[0] if len(found) == 1 else tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _encode(self, kind: str, media: Mapping[str, Tensor]) -> list[Feature]:
        """As many features as the family tells apart."""
        encoder = self._encoders[kind]
        takes = inspect.signature(encoder.function).parameters
        with self.arithmetic():
            out = encoder.function(**{k: v.to(self.device) for k, v in media.items() if k in takes}, return_dict=True)
        tokens, levels = out.pooler_output, out.get("deepstack_features") or ()
        encoder.listed, encoder.output = not isinstance(tokens, Tensor), type(out)
        return list(zip(tokens, *levels, strict=True)) if encoder.listed else [(tokens, *levels)]

    def _outputs(self, pictures: Sequence[MediaInput], features: Sequence[Feature]) -> dict[str, Any]:
        """As the encoders' own outputs, which forwards of transformers take instead of pixels."""
        outputs = {}
        for kind in dict.fromkeys(p.modality for p in pictures):
            encoder = self._encoders[kind]
            mine = [f for p, f in zip(pictures, features, strict=True) if p.modality == kind]
            tokens = [f[0] for f in mine]
            fields: dict[str, Any] = {"pooler_output": tokens if encoder.listed else torch.cat(tokens)}
            levels = [list(level) for level in zip(*(f[1:] for f in mine), strict=True)]
            if levels:
                fields["deepstack_features"] = levels
            outputs[kind] = encoder.output(**fields)
        return {"mm_encoder_outputs": outputs}

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for name, p in self.module.named_parameters():
            if not name.startswith(self._others):
                yield name, p

    # Whether the family takes features at all.

    def _check(self, prompts: Sequence[EncodedPrompt]) -> None:
        """On the first prompt with one picture of a kind, and with several: the same hidden states both ways."""
        for prompt in prompts:
            kinds = dict.fromkeys(p.modality for p in prompt.media_inputs)
            case = (",".join(kinds), len(prompt.media_inputs) > len(kinds))
            if not kinds or not kinds.keys() <= self._encoders.keys() or case in self._checked:
                continue
            self._checked.add(case)
            reason = self._fault(prompt)
            if reason:
                self._encoders = {k: e for k, e in self._encoders.items() if k not in kinds}
                name = type(self.module).__name__
                print(f"{name}: each row encodes its {', '.join(kinds)} anew, since {reason}", file=sys.stderr)

    def _fault(self, prompt: EncodedPrompt) -> str:
        """Why features cannot be kept for this model; empty where they can."""
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad(), self.arithmetic():
                text = {k: v.to(self.device) for k, v in padding.prefill([prompt], 0).items()}
                media = {k: v.to(self.device) for k, v in prompt.media.items()}
                wanted = self.module.model(**text, **media, use_cache=False).last_hidden_state.float()
                given = self._outputs(prompt.media_inputs, [self._feature(p) for p in prompt.media_inputs])
                found = self.module.model(**text, **given, use_cache=False).last_hidden_state.float()
            if not float((found - wanted).abs().max()) <= CLOSE * float(wanted.abs().max()):
                return "features handed over give other hidden states"
            return "its features depend on the language model" if self._reaches_others(prompt.media_inputs[0]) else ""
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as e:
            return f"it does not take features: {type(e).__name__}: {str(e)[:200]}"
        finally:
            self.module.train(training)

    def _reaches_others(self, picture: MediaInput) -> bool:
        """Whether a weight that is not the tower's has a part in features."""
        own = {id(p) for _, p in self._parameters()}
        others = [p for p in self.module.parameters() if id(p) not in own and p.is_floating_point()]
        before = [p.requires_grad for p in others]
        try:
            for p in others:
                p.requires_grad_(True)
            with torch.enable_grad():
                out = self._feature(picture)[0]
                if not (out.requires_grad and others):
                    return False
                return any(g is not None for g in torch.autograd.grad(out.sum(), others, allow_unused=True))
        finally:
            for p, trained in zip(others, before, strict=True):
                p.requires_grad_(trained)


def _distinct(pictures: Sequence[MediaInput]) -> list[MediaInput]:
    return list({p.key: p for p in pictures}.values())


def _together(pictures: Sequence[MediaInput]) -> dict[str, Tensor] | None:
    """The tensors of several pictures of one medium each; None where they do not go together."""
    if len(pictures) < 2 or any(p.media != 1 for p in pictures):
        return None
    try:
        return merged([p.load() for p in pictures])
    except ValueError:
        return None


def _load(file: Path) -> Feature:
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as e:
        raise DataError(f"{file}: wanted kept features, found a file that cannot be read ({e}); delete it") from e
    return tuple(found[str(i)] for i in range(len(found)))


def _save(file: Path, feature: Feature) -> None:
    """Written aside and renamed: other runs may read and write the same folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    save_file({str(i): t.contiguous() for i, t in enumerate(feature)}, aside)
    aside.replace(file)
