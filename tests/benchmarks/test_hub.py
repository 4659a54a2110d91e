"""`data.benches=hub`: official files come from a hub once, at one revision, after size and license were said."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from mmpost.benchmarks.questions import Questions
from mmpost.errors import ConfigError, DataError
from tests.benchmarks.small_benches import write_questions


class FakeHub:
    """The two routes of a data hub that are asked: what a dataset has, and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commit, self.asked = folder, "a" * 40, list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(f"{self.command} {path}")
                if path.startswith("/api/datasets/"):
                    content, headers = hub.info(path), {"Content-Type": "application/json"}
                else:
                    commit, _, file = path.partition("/resolve/")[2].partition("/")
                    content = (hub.folder / file).read_bytes()
                    etag = hashlib.sha256(content).hexdigest()
                    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit if len(commit) == 40 else hub.commit}
                self.send_response(200)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def info(self, path: str) -> bytes:
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        siblings = [{"rfilename": str(f.relative_to(self.folder)), "size": f.stat().st_size} for f in files]
        repo = "/".join(path.split("/")[3:5])
        return json.dumps(
            {"id": repo, "sha": self.commit, "siblings": siblings, "cardData": {"license": "mit"}}
        ).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    write_questions("mmstar", tmp_path / "files")
    hub = FakeHub(tmp_path / "files")
    address = f"http://127.0.0.1:{hub.server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_files_come_once_at_one_revision(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    questions = Questions.load("mmstar", "hub")
    assert len(questions.samples) == 3
    said = capsys.readouterr().err
    assert "mmpost: bench=mmstar: Lin-Chen/MMStar of the hub at aaaaaaaaaaaa: 1 files, 0.0 MB, license: mit" in said
    asked, hub.commit = len(hub.asked), "b" * 40
    again = Questions.load("mmstar", "hub")
    assert [sample.uid for sample in again.samples] == [sample.uid for sample in questions.samples]
    assert len(hub.asked) == asked
    assert again.release == questions.release


def test_what_the_hub_lacks(hub: FakeHub) -> None:
    (hub.folder / "mmstar.parquet").unlink()
    with pytest.raises(DataError, match=r"wanted 'mmstar\.parquet' in Lin-Chen/MMStar of the hub, found no such file"):
        Questions.load("mmstar", "hub")
    with pytest.raises(
        ConfigError, match=r"bench=pope: wanted a benchmark that is on the hub .*set data\.benches=FOLDER"
    ):
        Questions.load("pope", "hub")


def test_without_a_connection(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"bench=mmstar: wanted Lin-Chen/MMStar of the hub, found no way to it .*set data"
    ):
        Questions.load("mmstar", "hub")
