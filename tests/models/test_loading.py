"""Loading: errors for unusable checkpoints, and detection of operations after the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from mmpost.config.settings import ModelSettings
from mmpost.errors import ConfigError, DataError
from mmpost.models.builtin.qwen_vl import write_tiny
from mmpost.models.chat.model import ChatModel
from mmpost.types import Part, Sample
from tests.models.samples import mixed_prompts, random_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path)
    return tmp_path


def load(folder: Path, **settings: Any) -> ChatModel:
    return ChatModel.load(str(folder), ModelSettings(name="here", device="cpu", **settings))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model=here: wanted a multimodal chat model"):
        load(tmp_path / "nothing")


def test_a_checkpoint_without_chat_template_is_refused(folder: Path) -> None:
    for file in folder.glob("*chat_template*"):
        file.unlink()
    for file in folder.glob("*config.json"):
        content = json.loads(file.read_text())
        content.pop("chat_template", None)
        file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="no chat template"):
        load(folder)


def test_remote_code_needs_trust_remote_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "something_new"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("")
    with pytest.raises(ConfigError, match=r"model\.trust_remote_code=true if you trust"):
        load(folder)


def test_loading_and_saving_show_no_progress_bars(
    folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logging.enable_progress_bar()
    capfd.readouterr()
    load(folder).save(tmp_path / "copy")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


def load_with_scaled_logits(folder: Path, factor: float) -> tuple[Any, Any]:
    """A model that multiplies its logits by `factor` after the head."""
    module = AutoModelForImageTextToText.from_pretrained(folder)
    original_forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        outputs = original_forward(*args, **kwargs)
        outputs.logits = outputs.logits * factor
        return outputs

    module.forward = forward
    return module, AutoProcessor.from_pretrained(folder)


def test_operations_after_the_head_are_detected(folder: Path) -> None:
    module, processor = load_with_scaled_logits(folder, 3.0)
    with pytest.raises(ConfigError, match="logits are its head over its last hidden states"):
        ChatModel(module, processor, ModelSettings(device="cpu"))
    module.config.text_config.logit_scale = 3.0
    model = ChatModel(module, processor, ModelSettings(device="cpu"))
    hidden = torch.randn(4, module.config.text_config.hidden_size)
    torch.testing.assert_close(model.backbone.head(hidden), module.lm_head(hidden) * 3.0)


def test_an_unsupported_modality_is_named(folder: Path) -> None:
    model = load(folder)
    wave = Part("audio", b"")
    with pytest.raises(DataError, match="audio"):
        model.prompt(Sample("loud", (wave, Part("text", "what is said"))))


def test_a_prompt_is_rendered_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder)
    first = model.prompt(mixed_prompts()[0])
    monkeypatch.setattr(model.prompt, "processor", None)
    assert model.prompt(mixed_prompts()[0]) is first


def test_broken_media_name_the_sample(folder: Path) -> None:
    model = load(folder)
    for value in (Path("missing.png"), b"not an image"):
        with pytest.raises(DataError, match="lost"):
            model.prompt(Sample("lost", (Part("image", value), Part("text", "what"))))
    tall = Sample("tall", (Part("image", random_image(2, 900)), Part("text", "what")))
    with pytest.raises(DataError, match="tall"):
        model.prompt(tall)


def test_a_text_only_prompt(folder: Path) -> None:
    model = load(folder)
    prompt = model.prompt(mixed_prompts()[1])
    assert not prompt.media
    assert prompt.positions.tolist() == [list(range(len(prompt.ids)))] * 3
    assert prompt.next_position == len(prompt.ids)
