"""Models without language: an encoder for each kind of medium, embeddings that can be compared, classes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmpost.config import registry
from mmpost.config.run_config import decode
from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core.collate import on_device, reply_space
from mmpost.data.media.media import media
from mmpost.errors import ConfigError, DataError
from mmpost.models.embedding.encoders import Encoder
from mmpost.models.embedding.spec import SPEC_FILE, EmbeddingSpec as EmbeddingSpec, HeadSettings, read_spec
from mmpost.models.loading import device_of
from mmpost.types import Batch, CoordinateFrame, InputPreview, Origin, Outputs, Part, Reply, Sample

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """All that decides what the encoders read."""

    encoders: tuple[tuple[str, str, str], ...]
    """Kind, encoder, and the options with which media are opened."""
    end: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class Module(torch.nn.Module):
    """Encoders, projections, scales and head: all that has weights."""

    def __init__(self, settings: EmbeddingSpec, folder: Path | None = None) -> None:
        super().__init__()
        encoders = {kind: encoder(kind, fields, folder) for kind, fields in settings.encoders.items()}
        self.towers = torch.nn.ModuleDict(encoders)
        self.projections = torch.nn.ModuleDict(
            {kind: torch.nn.Linear(tower.size, settings.dim) for kind, tower in encoders.items()}
        )
        self.log_scale, self.bias = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        pairs = [f"{a}-{b}" for a, b in itertools.combinations(encoders, 2)]
        for name in ["all"] if settings.scale.shared and pairs else pairs:
            self.log_scale[name] = torch.nn.Parameter(torch.tensor(settings.scale.init))
            if settings.scale.bias is not None:
                self.bias[name] = torch.nn.Parameter(torch.tensor(settings.scale.bias))
        self.head: torch.nn.Linear | None = None
        self.register_buffer("fitted", torch.tensor(False))
        if settings.head is not None:
            self.make_head(settings.head, settings.dim)

    def make_head(self, head: HeadSettings, dim: int) -> None:
        """A fresh head in the place of any other."""
        unknown = [kind for kind in head.modalities if kind not in self.towers]
        if unknown or (head.pooling == "features" and len(head.modalities) != 1):
            raise ConfigError(
                f"head: wanted {'one' if head.pooling == 'features' else 'some'} of the kinds {list(self.towers)} for "
                f"how={head.pooling}, found {list(head.modalities)}"
            )
        size = dim * len(head.modalities) if head.pooling == "concat" else dim
        if head.pooling == "features":
            size = self.projections[head.modalities[0]].in_features
        self.head = torch.nn.Linear(size, head.classes).to(self.fitted.device)  # type: ignore[arg-type, call-overload]


def encoder(kind: str, fields: Mapping[str, Any], folder: Path | None) -> Encoder:
    """The encoder that a description names; `folder` is that of a saved model."""
    name = str(fields.get("name", ""))
    if folder is not None and registry.is_file(name):
        raise ConfigError(
            f"{folder}: its tower of {kind} is the file {name}, and no file is run because a folder names it; install "
            "the encoder as a package and name it by a dotted path"
        )
    made = registry.exported(registry.module(name, "mmpost.models.embedding.encoders"), Encoder)
    own = decode(made.Fields, {k: v for k, v in fields.items() if k != "name"}, f"towers.{kind}.")
    return made(own, kind, None if folder is None else folder / "towers" / kind)


class Embedder:
    """A model of towers as mmpost sees it: samples in, embeddings by kind and class logits out; no replies."""

    def __init__(
        self,
        module: Module,
        described: EmbeddingSpec,
        settings: ModelSettings = ModelSettings(),
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        if settings.gradient_checkpointing:
            raise ConfigError(
                "model.gradient_checkpointing: a model of towers has none; lower "
                "compute.max_tokens_per_microbatch, which costs a "
                "second forward but never changes the loss"
            )
        self.module: Any = module
        self.spec, self.settings, self.compute = described, settings, compute
        self.device = device_of(settings.device)
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")
        self.module.to(self.device)
        self.module.eval()
        self.recipe = Recipe(
            tuple(
                (
                    kind,
                    str(described.encoders[kind]["name"]),
                    json.dumps(dict(self._tower(kind).options), sort_keys=True),
                )
                for kind in described.encoders
            )
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The kinds of media that it embeds."""
        return tuple(self.spec.encoders)

    @property
    def num_classes(self) -> int:
        """How many classes its head tells apart; 0: it has none."""
        return 0 if self.spec.head is None else self.spec.head.classes

    # What the trainer asks.

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Micro-batches of whole samples, in order, as full as the budgets of `compute` allow."""
        most = self.compute.max_replies_per_microbatch or len(samples)
        pieces: list[list[Sample]] = []
        room = 0
        for sample in samples:
            cost = self.num_tokens([sample])
            whole = unit == "batch" and pieces
            if not whole and (not pieces or cost > room or len(pieces[-1]) >= most):
                pieces.append([])
                room = self.compute.max_tokens_per_microbatch
            pieces[-1].append(sample)
            room -= cost
        return [on_device(reply_space(piece, columns, inputs=piece), self.device) for piece in pieces]

    def num_tokens(self, samples: Sequence[Sample]) -> int:
        """Positions that the encoders work on for these samples."""
        return sum(self._tower(p.modality).cost for s in samples for p in s.prompt if p.modality in self.modalities)

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return reply_space(samples, columns)

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        return nullcontext()

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """Embeddings (normalised, zeros where a kind is missing) and, where wanted, the head's logits; fp32."""
        if not set(wants) <= {"embeddings", "classes"}:
            raise ConfigError(
                f"the objective wants {sorted(wants)} of the model, which gives embeddings and classes: it writes no "
                "replies. Take a chat model, or another objective"
            )
        self._set_mode(torch.is_grad_enabled() if train is None else train)
        samples: Sequence[Sample] = batch.inputs
        head = self.spec.head if "classes" in wants else None
        if "classes" in wants and head is None:
            raise ConfigError("the objective wants classes, and the model has no head: add one by the edit AddHead")
        kinds = self.modalities if "embeddings" in wants else head.modalities if head else ()
        features = {kind: self._features(kind, samples) for kind in kinds}
        plain = head is not None and head.pooling == "features" and "embeddings" not in wants
        made = {} if plain else {kind: self._embedded(kind, *features[kind]) for kind in kinds}
        return Outputs(
            embeddings=made if "embeddings" in wants else {},
            classes=None if head is None else self._classes(head, features, made, samples),
            aux=self._scalars() if "embeddings" in wants else {},
        )

    def validate(self, sample: Sample) -> None:
        """Open what the encoders read; raises DataError where there is nothing for them, or twice the same kind."""
        found = [p.modality for p in sample.prompt if p.modality in self.modalities]
        if not found or len(found) > len(set(found)):
            raise DataError(
                f"sample {sample.uid!r}: wanted one part of some of the kinds {list(self.modalities)}, found "
                f"{[p.modality for p in sample.prompt]}; drop it, or give the model towers for what it has"
            )
        for part in sample.prompt:
            if part.modality in self.modalities:
                self._tower(part.modality).collate([self._value(part)])

    def preview(self, sample: Sample) -> InputPreview:
        self.validate(sample)
        read = {
            p.modality: self._tower(p.modality).collate([self._value(p)])
            for p in sample.prompt
            if p.modality in self.modalities
        }
        tensors = {f"{kind} {name}": v[0] for kind, inputs in read.items() for name, v in inputs.items()}
        return InputPreview(f"{self.num_tokens([sample])} positions of {len(read)} encoders", "", tensors)

    def cache_key(self, sample: Sample) -> str:
        content = [
            (p.modality, p.value if p.modality == "text" else media(p.value, p.modality).hash) for p in sample.prompt
        ]
        return hashlib.sha256(repr((self.recipe.hash, self.bf16, content)).encode()).hexdigest()

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Nothing: transforms may still change how media are opened."""

    def coordinate_frame(self, sample: Sample) -> CoordinateFrame | None:
        return None

    def count_escaped_tokens(self, sample: Sample) -> int:
        return 0

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        found = {kind: [f"towers.{kind}"] for kind in self.modalities}
        found |= {"projector": ["projections"], "scale": ["log_scale", "bias"]}
        return found | ({"head": ["head"]} if self.module.head is not None else {})

    @torch.no_grad()
    def after_step(self) -> None:
        scale = self.spec.scale
        if scale.clamp == "after_step":
            for parameter in self.module.log_scale.values():
                parameter.clamp_(scale.low, scale.high)

    def save(self, folder: Path) -> None:
        """Weights, the description, and what encoders need besides; `open_model` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        towers = dict(self.spec.encoders)
        for kind in self.modalities:
            own = folder / "towers" / kind
            changed = self._tower(kind).save(own)
            if changed is not None:
                towers[kind] = {"name": towers[kind]["name"], **changed.model_dump(mode="json")}
        said = {**self.spec.model_dump(mode="json"), "encoders": towers}
        (folder / SPEC_FILE).write_text(json.dumps({"model": "embedding", **said}, indent=1), encoding="utf-8")
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in self.module.state_dict().items()}, folder / WEIGHTS
        )

    # What edits ask.

    def fit_scales(self, samples: Sequence[Sample]) -> None:
        """Take the scales of numbers from these samples, unless that has been done."""
        if bool(self.module.fitted):
            return
        for kind in self.modalities:
            values = [self._value(p) for s in samples for p in s.prompt if p.modality == kind]
            if values:
                with torch.no_grad():
                    self._tower(kind).fit(values)
        self.module.fitted.fill_(True)

    def add_head(self, classes: int, kinds: tuple[str, ...], how: Literal["features", "average", "concat"]) -> None:
        """A fresh classifier; one that is just so already stays, with its weights."""
        head = HeadSettings(classes=classes, modalities=kinds, pooling=how)
        if self.spec.head != head:
            self.module.make_head(head, self.spec.dim)
            self.spec = self.spec.model_copy(update={"head": head})

    # What only models that write can do.

    def encode_reply(self, text: str, origin: Origin) -> Reply:
        self._refuse()

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            f"model={self.settings.name}: wanted a model that writes replies, found one that embeds "
            f"{', '.join(self.modalities)}; take a chat model, or a stage without replies"
        )

    # Inside.

    def _tower(self, kind: str) -> Encoder:
        found = self.module.towers[kind]
        assert isinstance(found, Encoder)
        return found

    def _set_mode(self, train: bool) -> None:
        self.module.train(train)
        for child in self.module.modules():
            # Statistics of a micro-batch would make its samples depend on one another.
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                child.eval()

    def _value(self, part: Part) -> Any:
        if part.modality == "text":
            return part.value
        return media(part.value, part.modality).open(**self._tower(part.modality).options)

    def _features(self, kind: str, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Vectors [sample, feature], zeros where the kind is missing, and which samples have it."""
        values: dict[int, Any] = {}
        for i, sample in enumerate(samples):
            for part in sample.prompt:
                if part.modality == kind and i in values:
                    raise DataError(f"sample {sample.uid!r}: wanted one part of the kind {kind}, found several")
                if part.modality == kind:
                    values[i] = self._value(part)
        there = torch.tensor([i in values for i in range(len(samples))], device=self.device)
        if not values:
            return torch.zeros(len(samples), self._tower(kind).size, device=self.device), there
        collated = self._collated(kind, [samples[i] for i in values], list(values.values()))
        inputs = {k: v.to(self.device) for k, v in collated.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found = self._tower(kind)(**inputs).float()
        if bool(there.all()):
            return found, there
        rows = torch.tensor(sorted(values), device=self.device)
        return found.new_zeros(len(samples), found.shape[1]).index_copy(0, rows, found), there

    def _collated(self, kind: str, samples: Sequence[Sample], values: Sequence[Any]) -> dict[str, Tensor]:
        """Inputs of the encoder; raises DataError naming the sample whose medium it cannot take."""
        tower = self._tower(kind)
        try:
            return tower.collate(values)
        except DataError:
            for sample, value in zip(samples, values, strict=True):
                try:
                    tower.collate([value])
                except DataError as e:
                    raise DataError(f"sample {sample.uid!r}: {e}") from e
            raise

    def _embedded(self, kind: str, features: Tensor, there: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found = self.module.projections[kind](features).float()
        return torch.nn.functional.normalize(found, dim=-1) * there[:, None]

    def _classes(
        self,
        head: HeadSettings,
        features: Mapping[str, tuple[Tensor, Tensor]],
        made: Mapping[str, Tensor],
        samples: Sequence[Sample],
    ) -> Tensor:
        assert self.module.head is not None
        if head.pooling == "features":
            x = features[head.modalities[0]][0]
        elif head.pooling == "concat":
            x = torch.cat([made[kind] for kind in head.modalities], dim=1)
        else:
            count = torch.stack([features[kind][1] for kind in head.modalities]).sum(0).clamp(min=1)
            x = torch.stack([made[kind] for kind in head.modalities]).sum(0) / count[:, None]
        return self.module.head(x)

    def _scalars(self) -> dict[str, Tensor]:
        scale = self.spec.scale
        found = {}
        for name, value in self.module.log_scale.items():
            out = value
            if scale.clamp == "forward":
                # At ln 100, where AstroM3 starts, rounding must not block the gradient: the bound itself is inside.
                clamped = value.detach().clamp(scale.low, scale.high)
                out = torch.where(value.detach() == clamped, value, clamped)
            found["log_scale" if name == "all" else f"log_scale/{name}"] = out
        for name, value in self.module.bias.items():
            found["bias" if name == "all" else f"bias/{name}"] = value
        return found


def open_model(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> Embedder:
    """From a folder that `Embedder.save` wrote. Raises ConfigError where it does not fit its description."""
    about = read_spec(folder) or {}
    described = decode(EmbeddingSpec, {k: v for k, v in about.items() if k != "model"}, f"{folder}/{SPEC_FILE}: ")
    with torch.random.fork_rng(devices=[]):
        module = Module(described, Path(folder))
    try:
        module.load_state_dict(load_file(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as e:
        raise ConfigError(
            f"model={settings.name}: wanted the weights that {folder}/{SPEC_FILE} describes, found others or none "
            f"({e}); copy the folder again"
        ) from e
    return Embedder(module, described, settings, compute)


def write_described(folder: Path, about: Mapping[str, Any], seed: int) -> None:
    """Write the model that a .yaml file describes; raises ConfigError for keys and values that it cannot have."""
    write_towers(folder, decode(EmbeddingSpec, about), seed)


def write_towers(folder: Path | str, described: EmbeddingSpec, seed: int = 0) -> None:
    """Write a model as described into `folder`: fresh weights but where an encoder brings its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Module(described)
    Embedder(module, described, ModelSettings(device="cpu")).save(Path(folder))
