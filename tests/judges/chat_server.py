"""An HTTP server for /v1/chat/completions that can be slow, overloaded, faulty or verbose, and counts requests."""

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
    """Performs the action `behave(question, n)` for the n-th request of a question."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behave: Callable[[str, int], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.lock = threading.Lock()
        self.request_counts: Counter[str] = Counter()
        """Number of requests of each question."""
        self.answer_counts: Counter[str] = Counter()
        """Number of complete answers to each question."""
        self.times: list[float] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.concurrent = self.max_concurrent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: tests do that on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        chat_server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        question = content if isinstance(content, str) else content[-1]["text"]
        with chat_server.lock:
            chat_server.request_counts[question] += 1
            chat_server.times.append(time.monotonic())
            chat_server.requests.append(body)
            chat_server.keys.append(self.headers.get("Authorization", ""))
            chat_server.concurrent += 1
            chat_server.max_concurrent = max(chat_server.max_concurrent, chat_server.concurrent)
            turn = chat_server.request_counts[question]
        try:
            self._do(chat_server.behave(question, turn), question)
        finally:
            with chat_server.lock:
                chat_server.concurrent -= 1

    def _do(self, action: str, question: str) -> None:
        name, _, argument = action.partition(" ")
        if name == "drop":
            self.connection.close()
        elif name == "hang":
            time.sleep(float(argument))
            self.connection.close()
        elif name == "drip":
            self._head(200, 10_000)
            for _ in range(int(argument)):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
            self.connection.close()
        elif name.isdigit():
            self._send(int(name), "no, your header was " + self.headers.get("Authorization", ""), retry=argument)
        elif name == "cut":
            self._send(200, _completion(GOOD)[:40])
        elif name == "short":
            completion = _completion(GOOD)
            self._head(200, len(completion))
            self.wfile.write(completion[:40].encode())
            self.connection.close()
        elif name == "end":
            self._send(200, _completion(GOOD, argument))
        elif name in ("say", "slow"):
            time.sleep(0.1 if name == "slow" else 0.01)
            with self.server.lock:
                self.server.answer_counts[question] += 1
            self._send(200, _completion(argument))
        else:
            raise AssertionError(action)

    def _head(self, code: int, length: int, retry: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        if retry:
            self.send_header("Retry-After", retry)
        self.end_headers()

    def _send(self, code: int, text: str, retry: str = "") -> None:
        self._head(code, len(text.encode()), retry)
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _completion(text: str, end: str = "stop") -> str:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": end}]})


@contextmanager
def serving(behave: Callable[[str, int], str]) -> Iterator[ChatServer]:
    """A running server, in its own threads."""
    server = ChatServer(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
