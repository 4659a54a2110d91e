"""Weights that do not fit the model, or are not finite, are refused by the names of their tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from towers_task import write

from mmpost.cli import main
from mmpost.config.settings import ModelSettings
from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.errors import ConfigError, DataError
from mmpost.models.loading import load
from mmpost.models.opening import open_model
from mmpost.runs import checkpoint

HEAD = "lm_head.weight"
MATRIX = "model.layers.0.mlp.down_proj.weight"
IMAGE = "visual.blocks.0.mlp.gate_proj.weight"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tiny_folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def damage(file: Path, change: Callable[[Weights], object]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def name_like(weights: Weights, name: str) -> str:
    return next(full for full in sorted(weights) if full.endswith(name))


def with_value(name: str, value: float) -> Callable[[Weights], object]:
    return lambda weights: weights[name_like(weights, name)][0].fill_(value)


CASES: dict[str, tuple[Callable[[Weights], object], str]] = {
    "no head": (lambda w: w.pop(HEAD), "the weights lack lm_head.weight"),
    "no matrix": (lambda w: w.pop(name_like(w, MATRIX)), r"the weights lack .*layers\.0\.mlp\.down_proj\.weight"),
    "one too many": (lambda w: w.update(extra=torch.zeros(2)), "no place for: extra"),
    "many too many": (lambda w: w.update({f"e{i}": torch.zeros(1) for i in range(90)}), "and 86 more"),
    "other shape": (lambda w: w.update({HEAD: torch.zeros(3, 4)}), r"lm_head\.weight \(\[3, 4\], wanted \["),
    "nan": (with_value(MATRIX, float("nan")), r"NaN or infinite in .*down_proj\.weight \(256 of 32768\)"),
    "nan of images": (with_value(IMAGE, float("nan")), r"NaN or infinite in model\.visual\.blocks\.0"),
    "infinite": (with_value(HEAD, float("inf")), r"NaN or infinite in lm_head\.weight"),
}


def test_tensors_without_a_place_are_left_out_where_the_user_says_so(folder: Path) -> None:
    damage(
        folder / "model.safetensors", lambda w: w.update({"mtp.fc.weight": torch.zeros(2), "mtp.norm": torch.ones(1)})
    )
    settings = ModelSettings(name="here", device="cpu")
    with pytest.raises(ConfigError, match=r"""no place for: mtp\.fc\.weight, mtp\.norm\. .*"\['\^mtp'\]"$"""):
        load(str(folder), settings)
    load(str(folder), settings.model_copy(update={"ignore_unexpected": (r"^mtp\.",)}))
    with pytest.raises(ConfigError, match=r"no place for: mtp\.fc\.weight\. "):
        load(str(folder), settings.model_copy(update={"ignore_unexpected": ("norm$",)}))
    with pytest.raises(ValidationError, match=r"wanted regular expressions, found '\('"):
        ModelSettings(ignore_unexpected=("(",))


def test_what_transformers_ignores_for_a_class_needs_no_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(folder / "model.safetensors", lambda w: w.update({"mtp.fc.weight": torch.zeros(2)}))
    settings = ModelSettings(name="here", device="cpu")
    with pytest.raises(ConfigError, match="no place for: mtp"):
        load(str(folder), settings)
    config = json.loads((folder / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    monkeypatch.setattr(model_class, "_keys_to_ignore_on_load_unexpected", [r"^mtp"])
    assert type(load(str(folder), settings)[0]) is model_class


@pytest.mark.parametrize("case", CASES)
def test_damaged_weights_are_refused_by_name(case: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, message = CASES[case]
    damage(folder / "model.safetensors", change)
    with pytest.raises(ConfigError, match=f"^model=here: .*{message}"):
        load(str(folder), ModelSettings(name="here", device="cpu"))
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_a_tied_head_is_not_missing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    damage(folder / "model.safetensors", lambda w: w.pop(HEAD))
    module, _ = load(str(folder), ModelSettings(name="here", device="cpu"))
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight


def test_check_does_not_call_a_model_without_head_ready(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder / "model.safetensors", lambda w: w.pop(HEAD))
    assert main(["check", "task=visurf", f"model={folder}", "task.sampling.max_tokens=4"]) == 1
    printed = capsys.readouterr().out
    assert "the weights lack lm_head.weight" in " ".join(printed.split())
    assert "ready to train" not in printed


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": '),
        ("tokenizer.json", "{"),
        ("model.safetensors", "no weights"),
    ],
)
def test_other_damaged_files_are_told(
    file: str, content: str, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (folder / file).write_text(content)
    assert main(["export", f"model={folder}", f"out={tmp_path / 'out'}"]) == 1
    message = capsys.readouterr().err
    assert f"mmpost: model={folder}: wanted a multimodal chat model" in message
    assert len(message) < 1000


class Attack:
    """Pickled, it creates a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_pickled_weights_are_not_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({HEAD: Attack(tmp_path / "mark")}, folder / "pytorch_model.bin")
    assert main(["export", f"model={folder}", f"out={tmp_path / 'out'}"]) == 1
    assert "convert them to safetensors" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


ADAPTER_CASES: dict[str, tuple[Callable[[Weights], object], str]] = {
    "lacking": (lambda w: w.pop("a"), "the weights lack a"),
    "extra": (lambda w: w.update(b=torch.zeros(1)), "no place for: b"),
    "shape": (lambda w: w.update(a=torch.zeros(3)), r"a \(\[3\], wanted \[2\]\)"),
    "nan": (lambda w: w["a"].fill_(float("nan")), r"NaN or infinite in a \(2 of 2\)"),
}


@pytest.mark.parametrize("case", ADAPTER_CASES)
def test_damaged_adapters_are_refused_by_name(case: str, tmp_path: Path) -> None:
    change, message = ADAPTER_CASES[case]
    (tmp_path / "trainer").mkdir()
    file = tmp_path / "trainer" / checkpoint.ADAPTERS
    save_file({"a": torch.ones(2)}, file)
    module = torch.nn.Module()
    module.a = torch.nn.Parameter(torch.zeros(2))
    checkpoint.load_adapters(tmp_path, module)
    assert torch.equal(module.a, torch.ones(2))
    damage(file, change)
    with pytest.raises(ConfigError, match=message):
        checkpoint.load_adapters(tmp_path, module)


def test_an_embedding_model_with_nan_is_refused(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "towers"))
    damage(folder / "model.safetensors", lambda w: w[min(k for k in w if k.startswith("projections"))].fill_(torch.nan))
    with pytest.raises(ConfigError, match=r"^model=here: .*NaN or infinite in projections\."):
        open_model(str(folder), ModelSettings(name="here", device="cpu"))


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "image_token_id", 10**6, r"special tokens of the tokenizer, found the ids \[1000000\]"),
        ("config.json", "image_token_id", -7, r"special tokens of the tokenizer, found the ids \[-7\]"),
        ("generation_config.json", "eos_token_id", [-3], r"end-of-turn tokens of the vocabulary's \d+, found \[-3\]"),
        ("generation_config.json", "eos_token_id", 10**6, r"end-of-turn tokens of the .*, found \[1000000\]"),
        ("config.json", "text_config", "x", "which it cannot load"),
        ("tokenizer_config.json", "model_max_length", [1], "which it cannot load"),
        ("tokenizer_config.json", "pad_token", "<none>", r"wanted special tokens among .* embeddings, found <none>: "),
        ("tokenizer_config.json", "eos_token", "<end>", r"wanted special tokens among .* embeddings, found <end>: "),
        ("config.json", "vision_config", {"depth": "deep"}, "which it cannot load"),
    ],
)
def test_a_configuration_that_does_not_fit_the_tokenizer_is_told(
    file: str, key: str, value: object, message: str, folder: Path
) -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: value}))
    with pytest.raises(ConfigError, match=message):
        open_model(str(folder), ModelSettings(name="here", device="cpu"))


def test_a_processor_whose_settings_do_not_work_is_told(folder: Path) -> None:
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["image_processor"]["image_mean"] = [0.0, 0.0]
    file.write_text(json.dumps(config))
    model = open_model(str(folder), ModelSettings(name="here", device="cpu"))
    with pytest.raises(DataError, match=r"found image inputs for which it raises \w+: .*copy it again$"):
        model.preview(Scenes("test", ("all",), n=1)[0])


@pytest.mark.parametrize("processor", ["image_processor", "video_processor"])
@pytest.mark.parametrize(
    ("key", "value"), [("patch_size", True), ("patch_size", -1), ("merge_size", 1), ("temporal_patch_size", 1)]
)
def test_a_processor_that_cuts_pictures_otherwise_than_the_model_is_told(
    processor: str, key: str, value: int, folder: Path
) -> None:
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config[processor][key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=rf"wanted {key}=\d+ in its {processor}, as its vision encoder has it, found {value}"
    ):
        open_model(str(folder), ModelSettings(name="here", device="cpu"))
