"""A client for OpenAI-compatible /v1/chat/completions servers: concurrent requests, retries, cached answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mmpost.errors import ConfigError
from mmpost.judges.answer_cache import AnswerCache, Messages, question_key
from mmpost.judges.chat_judge import Answer, ChatBackend

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

T = TypeVar("T")

_RETRYABLE_CODES = frozenset({408, 409, 425, 429})
"""4xx status codes that are worth a retry, as all 5xx codes are; all others are permanent."""

_TRUNCATED = frozenset({"length", "max_tokens", "content_filter"})
"""Values of `finish_reason` that mean that the answer is incomplete."""


class Server(ChatBackend):
    """A chat model behind an HTTP API.

    Raises ConfigError for errors that a retry cannot fix: a wrong address, API key, model or request. Answers received
    before the error are cached, so restarting the run does not pay for them again.
    """

    url: str
    """Base URL of the API, such as https://host/v1; /chat/completions is appended."""
    model: str
    """The model's name on the server."""
    key_variable: str = ""
    """Environment variable that holds the API key; empty sends none. The key itself is never logged or stored."""
    cache: str = "judge-answers.sqlite"
    """File for the answer cache, keyed by prompt, model and sampling settings; must be on a local disk."""
    concurrency: int = Field(default=16, ge=1)
    """Maximum number of concurrent requests."""
    max_tokens: int = Field(default=1024, ge=1)
    """Maximum length of an answer, in tokens."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of the first answer; 0 is greedy."""
    reask_temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature of repeated questions; at 0 the answer would not change."""
    extra: Mapping[str, Any] = {}
    """Additional request fields, such as {top_p: 0.9}."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Timeout for connecting, in seconds."""
    read_timeout: float = Field(default=120.0, gt=0)
    """Timeout for the next byte of the response, in seconds."""
    total_timeout: float = Field(default=300.0, gt=0)
    """Timeout for a whole attempt, in seconds."""
    attempts: int = Field(default=6, ge=1)
    """Attempts per question if connections break or the server is overloaded or failing."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the first retry; doubled for each further retry, plus random jitter."""
    longest_wait: float = Field(default=120.0, ge=0)
    """Maximum seconds between two attempts. If the server demands more (Retry-After), the question fails."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"wanted an address with http:// or https://, found {value!r}")
        if urlsplit(value).username or urlsplit(value).query:
            raise ValueError(
                "wanted an address without user, password or query, because settings are recorded; use key_variable"
            )
        return value.rstrip("/").removesuffix("/chat/completions")

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        questions = [self.question(messages, draw) for messages in conversations]
        keys = [question_key(question) for question in questions]
        cache = AnswerCache(Path(self.cache).expanduser())
        answers = {key: Answer(text) for key, text in cache.get(keys).items()}
        # Keyed by question, so identical questions in one call are sent only once.
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in answers}
        if missing:
            answers |= _run(_RequestBatch(self, cache).answer_all(missing))
        return [answers[key] for key in keys]

    def question(self, messages: Messages, draw: int) -> dict[str, Any]:
        """Everything that determines the answer: the request body and, as "draw", the index of the sample."""
        temperature = self.reask_temperature if draw else self.temperature
        body = {"model": self.model, "messages": [dict(m) for m in messages], "max_tokens": self.max_tokens}
        return {**body, "temperature": temperature, **self.extra, "draw": draw}

    def key(self) -> str:
        """The API key, or "" if none is configured. Raises ConfigError if the environment variable is empty."""
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ConfigError(
                f"judge: wanted the API key in the environment variable {self.key_variable}, found it empty; set it, "
                "or drop key_variable if the server needs no key"
            )
        return key


class _RetryableError(Exception):
    """An attempt failed in a way that a retry may fix, no earlier than `retry_after` seconds from now."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _PermanentError(Exception):
    """A request failed in a way that no retry can fix."""


class _RequestBatch:
    """The requests of one call to `Server.answers`."""

    def __init__(self, server: Server, cache: AnswerCache) -> None:
        self.server, self.cache, self.key = server, cache, server.key()
        self.permanent_error: _PermanentError | None = None
        self.paused_until = 0.0
        """`time.monotonic()` before which no request is sent: one Retry-After pauses all of them."""

    async def answer_all(self, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, Answer]:
        """The answers by key. A permanent error is raised only once the requests in flight are answered and cached."""
        import httpx

        server = self.server
        slots = asyncio.Semaphore(server.concurrency)
        # pool=None: `slots` limits concurrency, and waiting for a connection must not count as a timeout.
        timeout = httpx.Timeout(server.read_timeout, connect=server.connect_timeout, pool=None)
        limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers) as client:
            answers = await asyncio.gather(*(self._answer(client, slots, q) for q in questions.values()))
        if self.permanent_error is not None:
            raise ConfigError(
                f"judge {server.model!r} at {server.url}: {self.permanent_error}; correct the address, key, model or "
                f"request. Answers received so far are cached in {self.cache.path}"
            )
        return dict(zip(questions, answers, strict=True))

    async def _answer(
        self, client: httpx.AsyncClient, slots: AbstractAsyncContextManager[None], question: Mapping[str, Any]
    ) -> Answer:
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_RetryableError),
            stop=lambda state: (
                stop_after_attempt(self.server.attempts)(state) or _retry_after(state) > self.server.longest_wait
            ),
            wait=self._wait,
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    # A question that waits for a retry holds no slot, so that others proceed.
                    async with slots:
                        await asyncio.sleep(max(0.0, self.paused_until - time.monotonic()))
                        if self.permanent_error is not None:
                            return Answer(failure=str(self.permanent_error))
                        text = await self._request(client, question)
                        self.cache.put(question, text)
                        return Answer(text)
        except _RetryableError as e:
            return Answer(failure=f"no answer after {attempts.statistics.get('attempt_number', 1)} attempts: {e}")
        except _PermanentError as e:
            self.permanent_error = e
            return Answer(failure=str(e))
        raise AssertionError("tenacity neither returned nor raised")

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: exponential backoff with jitter, and at least the server's Retry-After."""
        from tenacity import wait_exponential, wait_random

        backoff = self.server.backoff
        wait = wait_exponential(multiplier=backoff, max=self.server.longest_wait) + wait_random(0, backoff)
        return max(wait(state), _retry_after(state))

    async def _request(self, client: httpx.AsyncClient, question: Mapping[str, Any]) -> str:
        """Send one request and return the answer's text. Raises _RetryableError or _PermanentError."""
        import httpx

        body = {name: value for name, value in question.items() if name != "draw"}
        try:
            request = client.post(f"{self.server.url}/chat/completions", json=body)
            response = await asyncio.wait_for(request, self.server.total_timeout)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
            raise _PermanentError(f"wanted a valid address, found {e}") from e
        except (httpx.TransportError, httpx.DecodingError, asyncio.TimeoutError) as e:
            raise _RetryableError(self._redact(f"{type(e).__name__} {e}".strip())) from e
        code = response.status_code
        if code in _RETRYABLE_CODES or code >= 500:
            retry_after = _parse_retry_after(response.headers.get("retry-after", ""))
            if retry_after and retry_after <= self.server.longest_wait:
                self.paused_until = max(self.paused_until, time.monotonic() + retry_after)
            raise _RetryableError(self._redact(f"HTTP {code} {response.text[:200]}"), retry_after)
        if code != 200:
            raise _PermanentError(self._redact(f"wanted an answer, found HTTP {code} {response.text[:500]}"))
        try:
            return _answer_text(response.json())
        except (ValueError, LookupError, TypeError) as e:
            raise _RetryableError(self._redact(f"wanted a chat completion, found {response.text[:200]!r} ({e})")) from e

    def _redact(self, text: str) -> str:
        """`text` without the API key: servers may echo a request's headers in error messages."""
        return text.replace(self.key, "***") if self.key else text


def _answer_text(body: Any) -> str:
    """The text of a chat completion; empty if it has none (reasoning only) or was truncated.

    A truncated answer may be misread: "Score: 1" is a prefix of "Score: 10".
    """
    choice = body["choices"][0]
    content = choice["message"]["content"]
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return "" if choice.get("finish_reason") in _TRUNCATED else content or ""


def _retry_after(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.retry_after if isinstance(error, _RetryableError) else 0.0


def _parse_retry_after(header: str) -> float:
    """Seconds from now in a Retry-After header, which holds a number or a date; 0 if it holds neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion, also if this thread already runs an event loop (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
