"""Fixtures for all tests: no network, one thread, isolated from user settings and caches."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Set before torch or huggingface_hub is imported.
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[name] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from mmpost.listeners import curves  # noqa: E402

DRAW_CURVES = curves.draw
LOCAL_HOSTS = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to any other host fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOCAL_HOSTS):
            raise AssertionError(f"tests may not use the network; this one called {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache, so that base models are made once per session and the user cache is untouched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMPOST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _placeholder(lines: Any, path: Path, title: str = "") -> None:
    path.write_bytes(b"drawn only where a test uses drawn_curves")


@pytest.fixture(scope="session", autouse=True)
def _quick_curves() -> Iterator[None]:
    """Write a placeholder instead of curves.png, because drawing takes longer than a two-step run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", _placeholder)
        yield


@pytest.fixture(scope="module")
def drawn_curves(_quick_curves: None) -> Iterator[None]:
    """Runs in this module draw the real curves.png."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", DRAW_CURVES)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Qwen2.5-VL with random weights, as a checkpoint folder."""
    from mmpost.models.builtin.qwen_vl import write_tiny

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(folder)
    return str(folder)


DATA_FOLDER = Path(
    os.environ.get("MMPOST_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")
).resolve()


@pytest.fixture
def real() -> Callable[[str], list[Path]]:
    """A function that returns real data files by pattern, or skips the test if there are none."""

    def find(pattern: str) -> list[Path]:
        paths = sorted(DATA_FOLDER.glob(pattern))
        if not paths:
            reason = f"no real data: {DATA_FOLDER / pattern} (set MMPOST_TEST_DATA)"
            print(reason)
            pytest.skip(reason)
        return paths

    return find
