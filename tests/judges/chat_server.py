"""A real HTTP server with /v1/chat/completions that can be slow, busy, ill, cut off or chatty, and counts."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = """[Explanation]:
The effusion is missing.

[Clinically Significant Errors]:
(a) False report of a finding in the candidate: 1. nodule
(b) Missing a finding present in the reference: 0.
(c) Misidentification of a finding's anatomic location/position: 0.
(d) Misassessment of the severity of a finding: 1. mild for moderate
(e) Mentioning a comparison that isn't in the reference: 0.
(f) Omitting a comparison detailing a change from a prior study: 0.

[Clinically Insignificant Errors]:
(a) False report of a finding in the candidate: 4. a; b; c; d

[Matched Findings]:
3. no pneumothorax; clear lungs; normal heart
"""
"""An answer with GREEN 0.6."""


class ChatServer(ThreadingHTTPServer):
    """Does to the n-th time that it hears a question what `behave(question, n)` says."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Callable[[str, int], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        """How often each question was heard."""
        self.answered: Counter[str] = Counter()
        """How often each had a whole answer."""
        self.times: list[float] = []
        self.heard: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is a part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        one = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with one.lock:
            one.asked[question] += 1
            one.times.append(time.monotonic())
            one.heard.append(body)
            one.keys.append(self.headers.get("Authorization", ""))
            one.at_once += 1
            one.most_at_once = max(one.most_at_once, one.at_once)
            turn = one.asked[question]
        try:
            self._do(one.behave(question, turn), question)
        finally:
            with one.lock:
                one.at_once -= 1

    def _do(self, what: str, question: str) -> None:
        name, _, more = what.partition(" ")
        if name == "drop":
            self.connection.close()
        elif name == "hang":
            time.sleep(float(more))
            self.connection.close()
        elif name == "drip":
            self._head(200, 10_000)
            for _ in range(int(more)):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
            self.connection.close()
        elif name.isdigit():
            self._say(int(name), "no, your header was " + self.headers.get("Authorization", ""), retry=more)
        elif name == "cut":
            self._say(200, _completion(GOOD)[:40])
        elif name == "short":
            whole = _completion(GOOD)
            self._head(200, len(whole))
            self.wfile.write(whole[:40].encode())
            self.connection.close()
        elif name == "end":
            self._say(200, _completion(GOOD, more))
        elif name in ("say", "slow"):
            time.sleep(0.1 if name == "slow" else 0.01)
            with self.server.lock:
                self.server.answered[question] += 1
            self._say(200, _completion(more))
        else:
            raise AssertionError(what)

    def _head(self, code: int, length: int, retry: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        if retry:
            self.send_header("Retry-After", retry)
        self.end_headers()

    def _say(self, code: int, text: str, retry: str = "") -> None:
        self._head(code, len(text.encode()), retry)
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _completion(text: str, end: str = "stop") -> str:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": end}]})


@contextmanager
def serving(behave: Callable[[str, int], str]) -> Iterator[ChatServer]:
    """The server at work in threads of its own."""
    server = ChatServer(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
