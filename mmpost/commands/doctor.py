"""`mmpost doctor`: checks the installation and the machine, and suggests fixes."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "missing", "broken"]

NEEDED = {
    "transformers": "transformers",
    "peft": "peft",
    "datasets": "datasets",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "pillow": "PIL",
    "av (PyAV)": "av",
    "qwen-vl-utils": "qwen_vl_utils",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "tensorboard": "tensorboard",
    "matplotlib": "matplotlib",
}
"""Packages that every run needs: displayed name and import name."""

EXTRAS = {
    "vllm": ("vllm", "samples replies with vLLM"),
    "deepspeed": ("deepspeed", "shards large models across GPUs"),
    "open-clip": ("open_clip", "CLIP scores and encoders"),
    "wandb": ("wandb", "log.wandb=PROJECT"),
    "trackio": ("trackio", "log.trackio=PROJECT"),
}
"""Optional packages: name of the extra, import name and purpose."""

REINSTALL = "pip install --upgrade --force-reinstall torch torchvision"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    found: str
    todo: str = ""
    """What to do if the status is not ok."""
    needed: bool = True
    """False if mmpost works without it."""


def doctor() -> list[Check]:
    """Run all checks. A check that raises becomes a line with status "broken"."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("Python", _python),
        ("torch and torchvision", _torch),
        *((name, lambda name=name, module=module: _needed(name, module)) for name, module in NEEDED.items()),
        ("decord", _decord),
        ("torchcodec", _torchcodec),
        ("accelerator", _accelerator),
        ("CPU cores", _cores),
        ("memory", _memory),
        ("mmpost cache", _cache),
        ("Hugging Face cache", _hub_cache),
        ("tiny model", _tiny),
        *((extra, lambda extra=extra: _extra(extra, *EXTRAS[extra])) for extra in EXTRAS),
    ]
    return [_guarded(name, check) for name, check in checks]


def main(arguments: Sequence[str]) -> int:
    """Print the report; returns 1 if something that mmpost needs is missing or broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    checks = doctor()
    colors = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table("", "", "found", "what to do", box=None, pad_edge=False)
    for check in checks:
        failed = check.needed and check.status != "ok"
        status = Text(check.status, style="bold red" if failed else colors[check.status])
        table.add_row(Text(check.name), status, Text(check.found), Text(check.todo))
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    failures = [check.name for check in checks if check.needed and check.status != "ok"]
    if failures:
        console.print(f"\nmmpost cannot train here until this is fixed: {', '.join(failures)}", style="bold red")
        return 1
    console.print("\nAll required checks passed.", style="bold green")
    return 0


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - any failure is a result
        return Check(
            name, "broken", _first_line(error), "reinstall mmpost; if that does not help, report a bug with this line"
        )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _python() -> Check:
    """Always ok, since older versions cannot install mmpost. The path tells which environment is active."""
    return Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _torch() -> Check:
    """torch and torchvision must be built for each other; a mismatched pair fails only at the first operator."""
    name = "torch and torchvision"
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
        assert nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist() == [0], "nms returns a wrong result"
    except (ImportError, AttributeError) as error:
        return Check(name, "missing" if isinstance(error, ModuleNotFoundError) else "broken", str(error), REINSTALL)
    except Exception as error:  # noqa: BLE001 - a mismatched pair may raise anything
        return Check(name, "broken", f"versions do not match ({_first_line(error)})", REINSTALL)
    return Check(name, "ok", f"{torch.__version__} and {torchvision.__version__}")


def _needed(name: str, module: str) -> Check:
    package = name.partition(" ")[0]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Check(name, "missing", str(error), f"pip install {package}")
    except Exception as error:  # noqa: BLE001 - a broken binary may raise anything
        return Check(name, "broken", _first_line(error), f"pip install --force-reinstall {package}")
    return Check(name, "ok", importlib.metadata.version(package))


def _decord() -> Check:
    try:
        import decord  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        return Check("decord", "missing", f"PyAV reads videos instead ({_first_line(error)})", needed=False)
    return Check("decord", "ok", str(decord.__version__), needed=False)


def _torchcodec() -> Check:
    try:
        import torchcodec  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            "torchcodec", "missing", f"not needed: decord or PyAV read videos ({_first_line(error)})", needed=False
        )
    return Check("torchcodec", "ok", str(torchcodec.__version__), needed=False)


def _accelerator() -> Check:
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            todo = "check that the driver (nvidia-smi) supports torch's CUDA version, or install another build of torch"
            return Check("accelerator", "broken", "found a GPU that torch cannot use", todo, needed=False)
        return Check("accelerator", "ok", "none: training runs on the CPU, in fp32", needed=False)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
    total = float(torch.ones(2, device="cuda").sum())
    assert total == 2.0, f"the GPU computes 1 + 1 = {total}"
    return Check("accelerator", "ok", f"{len(names)} x {names[0]}, {memory:.0f} GiB, CUDA {torch.version.cuda}, {bf16}")


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("CPU cores", "ok", f"{usable} usable of {os.cpu_count()} ({platform.machine()})", needed=False)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if total < 4:
        todo = "lower compute.max_tokens_per_microbatch and compute.rollout_batch_size: built-in tasks need about 4 GiB"
        return Check("memory", "broken", f"{total:.1f} GiB", todo, needed=False)
    return Check("memory", "ok", f"{total:.0f} GiB", needed=False)


def _folder(name: str, folder: Path, variable: str, gib: float) -> Check:
    """Check that `folder` exists or can be created, is writable, and has at least `gib` GiB free."""
    todo = f"set {variable} to a writable folder with enough free space"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"mmpost")
    except OSError as error:
        return Check(name, "broken", f"{folder} is not writable ({error.strerror})", todo)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        return Check(name, "broken", f"{folder} has {free:.1f} GiB free, wanted at least {gib:g}", todo)
    return Check(name, "ok", f"{folder}, {free:.0f} GiB free")


def _cache() -> Check:
    from mmpost.runs.base_models import cache_dir

    return _folder("mmpost cache", cache_dir(), "MMPOST_CACHE", 2)


def _hub_cache() -> Check:
    from huggingface_hub.constants import HF_HUB_CACHE

    return _folder("Hugging Face cache", Path(HF_HUB_CACHE), "HF_HOME", 2)


def _tiny() -> Check:
    """Write, load and run a tiny model, to test torch, transformers and the image processor together."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from mmpost.models.builtin.qwen_vl import write_tiny

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder))
        processor = AutoProcessor.from_pretrained(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        image = torch.zeros(3, 56, 56, dtype=torch.uint8)
        text = "<|vision_start|><|image_pad|><|vision_end|> 7"
        inputs = processor(text=[text], images=[image], return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
    assert bool(torch.isfinite(logits).all()), "the logits are not finite"
    return Check("tiny model", "ok", f"one image and {logits.shape[1]} tokens through {type(model).__name__}")


def _extra(extra: str, module: str, purpose: str) -> Check:
    """Look for an extra without importing it: importing vllm or deepspeed takes seconds and starts processes."""
    if importlib.util.find_spec(module) is None:
        install = f"pip install 'mmpost[{extra}]'"
        return Check(extra, "missing", f"optional: {purpose}", install, needed=False)
    package = importlib.metadata.packages_distributions().get(module, [module])[0]
    return Check(extra, "ok", importlib.metadata.version(package), needed=False)
