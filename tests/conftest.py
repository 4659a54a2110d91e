"""Shared by all tests: no network, one thread, no settings of the person who runs them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch or the hub's client.
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[name] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from mmpost.listeners import curves  # noqa: E402

DRAW = curves.draw
LOCAL = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine fails the test that made it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOCAL):
            raise AssertionError(f"tests may not use the network; this one called {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Bases are made once for all tests, and nothing is read from or left in the cache of who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMPOST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _placeholder(lines: Any, path: Path, title: str = "") -> None:
    path.write_bytes(b"drawn only where a test uses drawn_curves")


@pytest.fixture(scope="session", autouse=True)
def _quick_curves() -> Iterator[None]:
    """Drawing curves.png takes longer than the two steps of a test's run, so runs leave a placeholder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", _placeholder)
        yield


@pytest.fixture(scope="module")
def drawn_curves(_quick_curves: None) -> Iterator[None]:
    """Runs draw curves.png in this module, as they do for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", DRAW)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Qwen2.5-VL with random weights, as a checkpoint folder."""
    from mmpost.models.builtin.qwen_vl import write_tiny

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(folder)
    return str(folder)


REAL = Path(
    os.environ.get("MMPOST_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")
).resolve()


@pytest.fixture
def real() -> Callable[[str], list[Path]]:
    """A function that finds a real file, or skips and says which is missing."""

    def find(pattern: str) -> list[Path]:
        found = sorted(REAL.glob(pattern))
        if not found:
            reason = f"no real data: {REAL / pattern} (set MMPOST_TEST_DATA)"
            print(reason)
            pytest.skip(reason)
        return found

    return find
