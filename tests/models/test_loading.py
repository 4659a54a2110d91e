"""What cannot be a model of mmpost is refused with a cure, and what happens after the head is found out."""

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
from tests.models.samples import mixed, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path)
    return tmp_path


def load(folder: Path, **settings: Any) -> ChatModel:
    return ChatModel.load(str(folder), ModelSettings(name="here", device="cpu", **settings))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model=here: wanted a multimodal chat model"):
        load(tmp_path / "nothing")


def test_no_chat_template(folder: Path) -> None:
    for file in folder.glob("*chat_template*"):
        file.unlink()
    for file in folder.glob("*config.json"):
        content = json.loads(file.read_text())
        content.pop("chat_template", None)
        file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="no chat template"):
        load(folder)


def test_code_that_comes_with_the_checkpoint(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "something_new"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("")
    with pytest.raises(ConfigError, match=r"model\.trust_remote_code=true if you trust"):
        load(folder)


def test_loading_and_saving_show_no_bars(folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logging.enable_progress_bar()
    capfd.readouterr()
    load(folder).save(tmp_path / "copy")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()


def scaled(folder: Path, factor: float) -> tuple[Any, Any]:
    """A model that multiplies its logits at the end."""
    module = AutoModelForImageTextToText.from_pretrained(folder)
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = out.logits * factor
        return out

    module.forward = forward
    return module, AutoProcessor.from_pretrained(folder)


def test_what_follows_the_head_is_found(folder: Path) -> None:
    module, processor = scaled(folder, 3.0)
    with pytest.raises(ConfigError, match="logits are its head over its last hidden states"):
        ChatModel(module, processor, ModelSettings(device="cpu"))
    module.config.text_config.logit_scale = 3.0
    model = ChatModel(module, processor, ModelSettings(device="cpu"))
    hidden = torch.randn(4, module.config.text_config.hidden_size)
    torch.testing.assert_close(model.backbone.head(hidden), module.lm_head(hidden) * 3.0)


def test_a_prompt_with_other_media_names_its_sample(folder: Path) -> None:
    model = load(folder)
    wave = Part("audio", b"")
    with pytest.raises(DataError, match="audio"):
        model.prompt(Sample("loud", (wave, Part("text", "what is said"))))


def test_a_prompt_is_rendered_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder)
    first = model.prompt(mixed()[0])
    monkeypatch.setattr(model.prompt, "processor", None)
    assert model.prompt(mixed()[0]) is first


def test_broken_media_name_the_sample(folder: Path) -> None:
    model = load(folder)
    for value in (Path("missing.png"), b"not an image"):
        with pytest.raises(DataError, match="lost"):
            model.prompt(Sample("lost", (Part("image", value), Part("text", "what"))))
    tall = Sample("tall", (Part("image", picture(2, 900)), Part("text", "what")))
    with pytest.raises(DataError, match="tall"):
        model.prompt(tall)


def test_text_alone_without_any_image(folder: Path) -> None:
    model = load(folder)
    prompt = model.prompt(mixed()[1])
    assert not prompt.media
    assert prompt.positions.tolist() == [list(range(len(prompt.ids)))] * 3
    assert prompt.next_position == len(prompt.ids)
