"""A model that is nowhere: one look-up, then one sentence. A small server stands for the hub."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from mmpost.cli import main
from mmpost.errors import ConfigError
from mmpost.models import hub

ANSWERS = {
    "gated/x": (403, {"X-Error-Code": "GatedRepo"}),
    "private/x": (401, {"X-Error-Code": "RepoNotFound"}),
    "adapters/x": (404, {"X-Error-Code": "EntryNotFound"}),
    "ill/x": (500, {}),
    "good/x": (200, {"ETag": '"1"', "X-Repo-Commit": "0" * 40}),
}


class Handler(BaseHTTPRequestHandler):
    requests: list[str] = []

    def do_HEAD(self) -> None:
        self.requests.append(self.path)
        status, headers = next((ANSWERS[name] for name in ANSWERS if name in self.path), (404, {}))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    Handler.requests.clear()
    yield Handler.requests
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gated/x", "a gated hub model, without access to it"),
        ("private/x", "no model private/x on http.*hf auth login"),
    ],
)
def test_a_model_that_the_hub_does_not_give_out(name: str, message: str, requests: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"^model={name}: wanted .*{message}"):
        hub.require_available(name, name)
    assert len(requests) == 1


@pytest.mark.parametrize("name", ["good/x", "adapters/x", "ill/x"])
def test_what_the_hub_may_have_is_left_to_loading(name: str, requests: list[str]) -> None:
    hub.require_available(name, name)
    assert len(requests) == 1


@pytest.mark.parametrize("command", ["export", "train", "check"])
def test_without_network_a_command_ends_after_two_requests(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    calls: list[str] = []
    look_up = hub.get_hf_file_metadata
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url, **kwargs: (calls.append(url), look_up(url, **kwargs)))
    arguments = {"export": [], "train": ["task=visurf"], "check": ["task=visurf"]}[command]
    out = [] if command == "check" else [f"out={tmp_path / 'out'}"]
    assert main([command, *arguments, "model=nowhere/x", *out]) == 1
    printed = capsys.readouterr()
    text = " ".join((printed.out + printed.err).split())
    assert "no folder, run or base of this name and no cached hub model" in text
    assert "cannot be reached" in text
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere/x", "HF_HUB_OFFLINE is set"), ("/no/where", "cannot be a hub id"), ("a/b/c", "cannot be a hub id")],
)
def test_offline(name: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", f"model={name}", f"out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"mmpost: model={name}: wanted a multimodal chat model, found no folder")
    assert message in error


@pytest.mark.parametrize("file", hub.CONFIGS)
def test_a_cached_model_is_not_looked_up(file: str, requests: list[str], tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--nowhere--x"
    for path, content in {"refs/main": "abc", f"snapshots/abc/{file}": "{}"}.items():
        (cached / path).parent.mkdir(parents=True, exist_ok=True)
        (cached / path).write_text(content)
    hub.require_available("nowhere/x", "nowhere/x")
    assert requests == []
