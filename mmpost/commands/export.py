"""`mmpost export`: writes a run's weights as a checkpoint that transformers can load, with a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig

from mmpost.config import parsing, run_config
from mmpost.config.settings import ModelSettings, Settings
from mmpost.core.run_files import read_summary
from mmpost.edits.lora import merged
from mmpost.errors import ConfigError, TrainError
from mmpost.models.chat.model import ChatModel
from mmpost.models.loading import shortened
from mmpost.models.opening import open_model
from mmpost.runs import base_models, checkpoint
from mmpost.runs.summary import versions
from mmpost.types import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

USE = """```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
messages = [{"role": "user", "content": [{"type": "image", "url": "a.jpg"}, {"type": "text", "text": "What is this?"}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
reply = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(processor.decode(reply[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```"""

USE_HERE = """```python
import mmpost

model = mmpost.load("FOLDER")
```"""


class ExportArguments(Settings):
    """Arguments of `mmpost export`."""

    model: str
    """A run folder (its last checkpoint), a checkpoint, a base model or a hub id."""
    out: str
    """The output folder; must not exist or be empty."""
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Data type of the saved weights; fp32 is lossless."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost export`."""
    print(f"written: {export(arguments)}")
    return 0


def export(arguments: Sequence[str]) -> Path:
    """Merge adapters, cast the weights, and write safetensors, processor and model card. Returns the folder.

    The saved generation config sets greedy decoding, the end-of-turn tokens and the banned tokens. Raises ConfigError
    if the output folder is not empty.
    """
    options = run_config.decode(
        ExportArguments, parsing.parse_arguments(arguments, tuple(ExportArguments.model_fields))
    )
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out} exists and is not empty; choose a new folder")
    settings, summary, task = _origin(options.model)
    model = open_model(base_models.resolve(options.model, 0), settings)
    model.module = merged(model.module).to(DTYPES[options.dtype])
    if isinstance(model, ChatModel):
        _for_transformers(model, DTYPES[options.dtype])
    partial = out.with_name(f".{out.name}")
    try:
        model.save(partial)
        (partial / "README.md").write_text(_card(options, settings, summary, task, model))
    except (OSError, RuntimeError, SafetensorError) as e:
        shutil.rmtree(partial, ignore_errors=True)
        reason = "disk full" if checkpoint.is_disk_full(e) else "cannot write"
        raise TrainError(
            f"{reason}: {out} ({shortened(e, 150)}); nothing of it is kept and {options.model} is unchanged: "
            "make room, or choose another folder"
        ) from e
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return out


def _for_transformers(model: ChatModel, dtype: torch.dtype) -> None:
    """Set the generation config, which a transformers script reads but mmpost ignores."""
    model.module.config.dtype = dtype
    end = list(model.recipe.end)
    pad = getattr(model.tokenizer, "pad_token_id", None)
    model.module.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end[0] if pad is None else pad,
        suppress_tokens=sorted(model.recipe.banned) or None,
    )


def _origin(name: str) -> tuple[ModelSettings, Mapping[str, Any], Mapping[str, Any]]:
    """Model settings, summary and configuration of the run that wrote `name`; the last two are empty if none did."""
    path = Path(name).expanduser().resolve()
    for folder in (path, *path.parents[:2]):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            run = run_config.run_of(str(folder))
            model_fields = {
                k: run["model"][k] for k in ("trust_remote_code", *run_config.PROMPT_RECIPE_FIELDS) if k in run["model"]
            }
            settings = run_config.decode(ModelSettings, {"name": name, "device": "cpu", **model_fields}, "model.")
            return settings, read_summary(folder), run
    return ModelSettings(name=name, device="cpu"), {}, {}


def _card(
    options: ExportArguments, settings: ModelSettings, summary: Mapping[str, Any], run: Mapping[str, Any], model: Model
) -> str:
    base = run.get("model", {}).get("name", options.model)
    scores = summary.get("eval_after", {})
    rows = [
        f"| {name} | {s['value']:.4g} | {s['low']:.4g} to {s['high']:.4g} | {s['n']:g} |" for name, s in scores.items()
    ]
    facts = {
        "Base": f"{base} (weights {str(summary.get('base_hash') or 'not hashed')[:16]})",
        "Task": run.get("task", {}).get("name", "none"),
        "Steps": summary.get("steps", 0),
        "Seed": summary.get("seed", "none"),
        "Prompt recipe": model.recipe.hash,
        **_chat_facts(model, settings),
        "Data type": options.dtype,
        "Versions": ", ".join(f"{k} {v}" for k, v in summary.get("versions", versions()).items()),
    }
    is_chat = isinstance(model, ChatModel)
    library = (
        ["library_name: transformers", "pipeline_tag: image-text-to-text"] if is_chat else ["library_name: mmpost"]
    )
    metadata = [f"base_model: {json.dumps(str(base))}", *library]
    lines = ["---", *metadata, "tags: [mmpost]", "---", "", f"# {Path(options.out).name}", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    if rows:
        lines += [
            "Test split, with 95 % intervals:",
            "",
            "| metric | value | interval | samples |",
            "|---|---|---|---|",
        ]
        lines += [*rows, ""]
    return "\n".join([*lines, USE if is_chat else USE_HERE, ""])


def _chat_facts(model: Model, settings: ModelSettings) -> dict[str, str]:
    if not isinstance(model, ChatModel):
        return {}
    system = json.dumps(settings.system) if settings.system else "none"
    return {"Positions": model.recipe.positions, "System prompt": system}
