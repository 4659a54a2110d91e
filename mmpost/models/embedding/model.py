"""`Embedder`: a model without language, with embeddings by modality that can be compared, and class logits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmpost.config.run_config import decode
from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core.columns import collate, on_device
from mmpost.core.models import Pooling
from mmpost.data.media.media import media
from mmpost.errors import ConfigError, DataError
from mmpost.models.embedding.module import EmbeddingModule
from mmpost.models.embedding.spec import SPEC_FILE, EmbeddingSpec, HeadSettings, read_spec
from mmpost.models.loading import device_of, require_finite, shortened
from mmpost.types import Batch, InputPreview, Outputs, Part, Sample

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class EncoderRecipe:
    """All that decides what the encoders read."""

    encoders: tuple[tuple[str, str, str], ...]
    """Modality, name of the encoder, and as JSON the options with which media are opened."""
    end: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Features:
    """The output of one modality's encoder for some samples."""

    vectors: Float[Tensor, "sample feature"]
    """fp32; zeros for samples without this modality."""
    present: Bool[Tensor, " sample"]
    """Which samples have this modality."""


class Embedder:
    """One encoder per modality: samples in, embeddings by modality and class logits out; no replies."""

    def __init__(
        self,
        module: EmbeddingModule,
        spec: EmbeddingSpec,
        settings: ModelSettings = ModelSettings(),
        compute: ComputeSettings = ComputeSettings(),
    ) -> None:
        """Raises ConfigError for gradient checkpointing, which encoders do not have."""
        if settings.gradient_checkpointing:
            raise ConfigError(
                "model.gradient_checkpointing: an embedding model has none; lower "
                "compute.max_tokens_per_microbatch instead, which costs a second forward but never changes the loss"
            )
        self.module: Any = module
        self.spec, self.settings, self.compute = spec, settings, compute
        self.device = device_of(settings.device)
        self.bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")
        self.module.to(self.device)
        self.module.eval()
        self.recipe = EncoderRecipe(
            tuple(
                (modality, str(fields["name"]), json.dumps(dict(module.encoder(modality).options), sort_keys=True))
                for modality, fields in spec.encoders.items()
            )
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it embeds."""
        return tuple(self.spec.encoders)

    @property
    def num_classes(self) -> int:
        """Classes of its head; 0 without head."""
        return 0 if self.spec.head is None else self.spec.head.classes

    # What the trainer calls.

    def plan(self, samples: Sequence[Sample], columns: Collection[str], unit: str) -> list[Batch]:
        """Micro-batches of complete samples, in order, as full as the budgets of `compute` allow."""
        max_samples = self.compute.max_replies_per_microbatch or len(samples)
        pieces: list[list[Sample]] = []
        room = 0
        for sample in samples:
            cost = self.num_tokens([sample])
            undivided = unit == "batch" and pieces
            if not undivided and (not pieces or cost > room or len(pieces[-1]) >= max_samples):
                pieces.append([])
                room = self.compute.max_tokens_per_microbatch
            pieces[-1].append(sample)
            room -= cost
        return [on_device(collate(piece, columns, inputs=piece), self.device) for piece in pieces]

    def num_tokens(self, samples: Sequence[Sample]) -> int:
        """Positions that the encoders compute for these samples."""
        return sum(self._encoder(p.modality).cost for s in samples for p in s.prompt if p.modality in self.modalities)

    def counts_batch(self, samples: Sequence[Sample], columns: Collection[str]) -> Batch:
        return collate(samples, columns)

    def step(self, plan: Sequence[Batch]) -> AbstractContextManager[None]:
        return nullcontext()

    def __call__(self, batch: Batch, wants: Collection[str], train: bool | None = None) -> Outputs:
        """What `wants` names, in fp32: "embeddings" (normalized; zeros for a missing modality), "classes" (logits).

        Raises ConfigError for anything else in `wants`, and for "classes" without head.
        """
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
        modalities = self.modalities if "embeddings" in wants else head.modalities if head else ()
        features = {modality: self._features(modality, samples) for modality in modalities}
        needs_embeddings = "embeddings" in wants or (head is not None and head.pooling != "features")
        embeddings = {m: self._embed(m, features[m]) for m in modalities} if needs_embeddings else {}
        return Outputs(
            embeddings=embeddings if "embeddings" in wants else {},
            classes=None if head is None else self._classify(head, features, embeddings),
            aux=self.module.scalars(self.spec.scale) if "embeddings" in wants else {},
        )

    def validate(self, sample: Sample) -> None:
        """Open what the encoders read; raises DataError where there is nothing, or two parts of one modality."""
        embedded = [p.modality for p in sample.prompt if p.modality in self.modalities]
        if not embedded or len(embedded) > len(set(embedded)):
            raise DataError(
                f"{sample.label}: wanted one part of some of the modalities {list(self.modalities)}, found "
                f"{[p.modality for p in sample.prompt]}; drop it, or give the model encoders for what it has"
            )
        self._collate_parts(sample)

    def preview(self, sample: Sample) -> InputPreview:
        self.validate(sample)
        inputs = self._collate_parts(sample)
        tensors = {f"{modality} {name}": v[0] for modality, of in inputs.items() for name, v in of.items()}
        return InputPreview(f"{self.num_tokens([sample])} positions of {len(inputs)} encoders", "", tensors)

    def cache_key(self, sample: Sample) -> str:
        content = [
            (p.modality, p.value if p.modality == "text" else media(p.value, p.modality).hash) for p in sample.prompt
        ]
        return hashlib.sha256(repr((self.recipe.hash, self.bf16, content)).encode()).hexdigest()

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Does nothing: transforms may still change how media are opened."""

    def parameter_groups(self) -> Mapping[str, Sequence[str]]:
        groups = {modality: [f"towers.{modality}"] for modality in self.modalities}
        groups |= {"projector": ["projections"], "scale": ["log_scale", "bias"]}
        return groups | ({"head": ["head"]} if self.module.head is not None else {})

    @torch.no_grad()
    def after_step(self) -> None:
        scale = self.spec.scale
        if scale.clamp == "after_step":
            for parameter in self.module.log_scale.values():
                parameter.clamp_(scale.low, scale.high)

    def save(self, folder: Path) -> None:
        """Write weights, the spec, and what encoders need besides; `open_model` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        encoders = dict(self.spec.encoders)
        for modality in self.modalities:
            changed = self._encoder(modality).save(folder / "towers" / modality)
            if changed is not None:
                encoders[modality] = {"name": encoders[modality]["name"], **changed.model_dump(mode="json")}
        spec = {"model": "embedding", **self.spec.model_dump(mode="json"), "encoders": encoders}
        (folder / SPEC_FILE).write_text(json.dumps(spec, indent=1), encoding="utf-8")
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in self.module.state_dict().items()}, folder / WEIGHTS
        )

    # What edits call.

    def fit_scales(self, samples: Sequence[Sample]) -> None:
        """Fit the encoders' standardization (means, standard deviations) to these samples; the first call only."""
        if bool(self.module.fitted):
            return
        for modality in self.modalities:
            values = [self._open(p) for s in samples for p in s.prompt if p.modality == modality]
            if values:
                with torch.no_grad():
                    self._encoder(modality).fit(values)
        self.module.fitted.fill_(True)

    def add_head(self, classes: int, modalities: tuple[str, ...], pooling: Pooling) -> None:
        """Add a linear classifier with fresh weights; no-op if an identical head exists."""
        head = HeadSettings(classes=classes, modalities=modalities, pooling=pooling)
        if self.spec.head != head:
            self.module.make_head(head, self.spec.dim)
            self.spec = self.spec.model_copy(update={"head": head})

    def _encoder(self, modality: str) -> Any:
        return self.module.encoder(modality)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _set_mode(self, train: bool) -> None:
        self.module.train(train)
        for child in self.module.modules():
            # Statistics of a micro-batch would make its samples depend on one another.
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                child.eval()

    def _open(self, part: Part) -> Any:
        if part.modality == "text":
            return part.value
        return media(part.value, part.modality).open(**self._encoder(part.modality).options)

    def _collate_parts(self, sample: Sample) -> dict[str, dict[str, Tensor]]:
        """Encoder inputs of one sample by modality."""
        parts = [p for p in sample.prompt if p.modality in self.modalities]
        return {p.modality: self._encoder(p.modality).collate([self._open(p)]) for p in parts}

    def _features(self, modality: str, samples: Sequence[Sample]) -> Features:
        values: dict[int, Any] = {}
        for i, sample in enumerate(samples):
            for part in sample.prompt:
                if part.modality == modality and i in values:
                    raise DataError(f"{sample.label}: wanted one part of modality {modality}, found several")
                if part.modality == modality:
                    values[i] = self._open(part)
        encoder = self._encoder(modality)
        present = torch.tensor([i in values for i in range(len(samples))], device=self.device)
        if not values:
            return Features(torch.zeros(len(samples), encoder.size, device=self.device), present)
        collated = self._collate(modality, [samples[i] for i in values], list(values.values()))
        inputs = {k: v.to(self.device) for k, v in collated.items()}
        with self._autocast():
            vectors = encoder(**inputs).float()
        if bool(present.all()):
            return Features(vectors, present)
        rows = torch.tensor(sorted(values), device=self.device)
        return Features(vectors.new_zeros(len(samples), vectors.shape[1]).index_copy(0, rows, vectors), present)

    def _collate(self, modality: str, samples: Sequence[Sample], values: Sequence[Any]) -> dict[str, Tensor]:
        """Inputs of the encoder; raises DataError naming the sample whose medium it cannot take."""
        encoder = self._encoder(modality)
        try:
            return encoder.collate(values)
        except DataError:
            for sample, value in zip(samples, values, strict=True):
                try:
                    encoder.collate([value])
                except DataError as e:
                    raise DataError(f"{sample.label}: {e}") from e
            raise

    def _embed(self, modality: str, features: Features) -> Float[Tensor, "sample dim"]:
        with self._autocast():
            projected = self.module.projections[modality](features.vectors).float()
        return torch.nn.functional.normalize(projected, dim=-1) * features.present[:, None]

    def _classify(
        self, head: HeadSettings, features: Mapping[str, Features], embeddings: Mapping[str, Tensor]
    ) -> Float[Tensor, "sample class"]:
        assert self.module.head is not None
        if head.pooling == "features":
            x = features[head.modalities[0]].vectors
        elif head.pooling == "concat":
            x = torch.cat([embeddings[modality] for modality in head.modalities], dim=1)
        else:
            count = torch.stack([features[modality].present for modality in head.modalities]).sum(0).clamp(min=1)
            x = torch.stack([embeddings[modality] for modality in head.modalities]).sum(0) / count[:, None]
        return self.module.head(x)


def open_model(folder: str, settings: ModelSettings, compute: ComputeSettings = ComputeSettings()) -> Embedder:
    """From a folder that `Embedder.save` wrote. Raises ConfigError where its weights do not fit its spec."""
    fields = {k: v for k, v in (read_spec(folder) or {}).items() if k != "model"}
    spec = decode(EmbeddingSpec, fields, f"{folder}/{SPEC_FILE}: ")
    # Fresh weights, soon to be overwritten, must not advance the caller's random state.
    with torch.random.fork_rng(devices=[]):
        module = EmbeddingModule(spec, Path(folder))
    try:
        module.load_state_dict(load_file(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as e:
        raise ConfigError(
            f"model={settings.name}: wanted the weights that {folder}/{SPEC_FILE} describes, found others or none "
            f"({shortened(e)}); copy the folder again"
        ) from e
    require_finite(f"model={settings.name}", dict(module.named_parameters()))
    return Embedder(module, spec, settings, compute)


def write_from_spec(folder: Path, fields: Mapping[str, Any], seed: int) -> None:
    """Write the model that a .yaml file specifies; raises ConfigError for unknown keys and unfit values."""
    write_model(folder, decode(EmbeddingSpec, fields), seed)


def write_model(folder: Path | str, spec: EmbeddingSpec, seed: int = 0) -> None:
    """Write a new model into `folder`: random weights, but for encoders that bring their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = EmbeddingModule(spec)
    Embedder(module, spec, ModelSettings(device="cpu")).save(Path(folder))
