"""Encoders of transformers and open_clip in embedding models; a saved model loads without their source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mmpost.config.settings import ModelSettings
from mmpost.data.media.media import media
from mmpost.errors import ConfigError
from mmpost.models.embedding.model import Embedder
from mmpost.models.opening import open_model
from mmpost.rollout.local import LocalRollout
from mmpost.runs import base_models
from mmpost.training.context import TrainingContext
from mmpost.types import Part, Sample

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_vit(folder: Path) -> str:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    small: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**small, image_size=32, patch_size=16)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def write_bert(folder: Path) -> str:
    from transformers import BertConfig, BertModel

    from mmpost.models.builtin.qwen_vl import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    small: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(3)]
    captions = ["a red circle", "two squares left of a star", "nothing"]
    return [
        Sample(str(i), (Part("image", media(x, "image")), Part("text", w)))
        for i, (x, w) in enumerate(zip(images, captions, strict=True))
    ]


def build_embedder(fields: dict[str, Any], tmp_path: Path) -> tuple[Embedder, str]:
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump({"model": "embedding", "dim": 8, **fields}))
    folder = base_models.resolve(str(file), 0)
    assert base_models.resolve(str(file), 0) == folder
    model = open_model(folder, ModelSettings(name=folder, device="cpu"))
    assert isinstance(model, Embedder)
    return model, folder


def check_embedder(model: Embedder, folder: str, tmp_path: Path) -> None:
    """Batched equals single, reloaded equals saved, and every encoder gets gradients."""
    inputs = samples()
    embeddings = TrainingContext(model, LocalRollout(model), 0).embed(inputs)
    for sample, batched in zip(inputs, embeddings, strict=True):
        for modality, vector in TrainingContext(model, LocalRollout(model), 0).embed([sample])[0].items():
            torch.testing.assert_close(vector, batched[modality], atol=1e-5, rtol=1e-4)
    model.save(tmp_path / "copy")
    copy = open_model(str(tmp_path / "copy"), ModelSettings(name="copy", device="cpu"))
    for a, b in zip(TrainingContext(copy, LocalRollout(copy), 0).embed(inputs), embeddings, strict=True):
        assert all(torch.equal(a[modality], b[modality]) for modality in b)
    batch = model.plan(inputs, frozenset(), "batch")[0]
    torch.stack([v.sum() for v in model(batch, {"embeddings"}).embeddings.values()]).sum().backward()
    for modality in model.modalities:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.module.towers[modality].parameters()), (
            modality
        )


def test_encoders_of_transformers(tmp_path: Path) -> None:
    sources = {"image": write_vit(tmp_path / "vit"), "text": write_bert(tmp_path / "bert")}
    model, folder = build_embedder(
        {"encoders": {k: {"name": "hub", "source": v} for k, v in sources.items()}}, tmp_path
    )
    for source in sources.values():
        shutil.rmtree(source)
    check_embedder(open_model(folder, ModelSettings(name=folder, device="cpu")), folder, tmp_path)  # type: ignore[arg-type]
    assert model.modalities == ("image", "text")


def test_encoders_of_open_clip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    model, folder = build_embedder(
        {"encoders": {k: {"name": "clip", "config": CLIP} for k in ("image", "text")}}, tmp_path
    )
    check_embedder(model, folder, tmp_path)
    names = [name for name, _ in model.module.towers["text"].named_parameters()]
    assert not any("visual" in name for name in names)


def test_open_clip_encoders_use_the_preprocessing_of_their_weights(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = {**CLIP, "custom_text": True}
    clip = {"name": "clip", "config": config}
    model, folder = build_embedder({"encoders": {"image": {**clip, "preprocess": preprocess}, "text": clip}}, tmp_path)
    check_embedder(model, folder, tmp_path)
    black = np.zeros((32, 64, 3), np.uint8)
    for loaded in (model, open_model(str(tmp_path / "copy"), ModelSettings(name="copy", device="cpu"))):
        pixels = loaded.module.towers["image"].collate([Image.fromarray(black)])["x"]  # type: ignore[attr-defined]
        assert pixels.shape == (1, 3, 32, 32)
        assert torch.equal(pixels, torch.full_like(pixels, -1))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_audio_embedding_does_not_depend_on_the_batch(norm: str, tmp_path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    small: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    layers: Any = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_conv_pos_embeddings": 16}
    config = Wav2Vec2Config(**small, **layers, num_conv_pos_embedding_groups=2, feat_extract_norm=norm)
    Wav2Vec2Model(config).save_pretrained(tmp_path / "wav")
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(tmp_path / "wav")
    model, _ = build_embedder({"encoders": {"audio": {"name": "hub", "source": str(tmp_path / "wav")}}}, tmp_path)
    encoder = model.module.towers["audio"].eval()
    rng = np.random.default_rng(0)
    short, long = (rng.standard_normal(n).astype(np.float32) + 0.3 for n in (2000, 9000))
    with torch.no_grad():
        alone, batched = encoder(**encoder.collate([short])), encoder(**encoder.collate([short, long]))
        torch.testing.assert_close(alone[0], batched[0], atol=1e-5, rtol=1e-4)
        reference = Wav2Vec2Model.from_pretrained(tmp_path / "wav").eval()
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "wav")
        input_values = extractor(short, sampling_rate=16000, return_tensors="pt").input_values
        torch.testing.assert_close(alone[0], reference(input_values).last_hidden_state.mean(1)[0], atol=1e-5, rtol=1e-4)


def test_an_invalid_encoder_is_refused(tmp_path: Path) -> None:
    for encoders, message in (
        ({"image": {"name": "hub", "source": str(tmp_path / "nothing")}}, "wanted a model of transformers"),
        ({"image": {"name": "clip", "source": "ViT-X"}}, "wanted a name of open_clip"),
        ({"audio": {"name": "clip", "config": CLIP}}, "open_clip has image and text"),
        ({"image": {"name": "informr"}}, "did you mean informer"),
        ({"row": {"name": "mlp", "widht": 3}}, "unknown key encoders.row.widht"),
    ):
        with pytest.raises((ConfigError, LookupError), match=message):
            build_embedder({"encoders": encoders}, tmp_path)
