"""Any server with the OpenAI-compatible /v1/chat/completions: many questions at a time, each answer paid for once."""

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
from mmpost.judges.answer_cache import Answers, Messages, question_key
from mmpost.judges.chat_judge import Answer, Answering

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

T = TypeVar("T")

_AGAIN = frozenset({408, 409, 425, 429})
"""Client errors that another attempt may not meet; all others but the server's own (5xx) are final."""

_CUT = frozenset({"length", "max_tokens", "content_filter"})
"""Reasons to end that leave an answer in the middle."""


class Server(Answering):
    """A chat model behind HTTP. Raises ConfigError for what no further attempt would change: a wrong address, key,
    model or request; answers that came meanwhile are kept, so a run that is started again pays for none of them twice.
    """

    url: str
    """Where the API begins, such as https://host/v1; /chat/completions is added."""
    model: str
    """The model's name on the server."""
    key_variable: str = ""
    """Environment variable with the API key; empty: none is sent. The key itself is never logged or kept."""
    cache: str = "judge-answers.sqlite"
    """File that answers are kept in, by prompt, model and sampling; on a local disk."""
    concurrency: int = Field(default=16, ge=1)
    """Most requests under way at one time."""
    max_tokens: int = Field(default=1024, ge=1)
    """Most tokens of an answer."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the first answer; 0 takes the most likely token."""
    reask_temperature: float = Field(default=0.7, ge=0)
    """Of further answers to the same question, which would be the same at temperature 0."""
    extra: Mapping[str, Any] = {}
    """Further fields of the request, such as {top_p: 0.9}."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to reach the server."""
    read_timeout: float = Field(default=120.0, gt=0)
    """Seconds without a byte."""
    total_timeout: float = Field(default=300.0, gt=0)
    """Seconds of one attempt, from the connection to the last byte."""
    attempts: int = Field(default=6, ge=1)
    """Attempts per question, where a connection breaks, or a server is busy or ill."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt; doubled for each further one, plus a random share."""
    longest_wait: float = Field(default=120.0, ge=0)
    """Most seconds between two attempts; a server that asks for more (Retry-After) ends the question as failed."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"an address with http:// or https:// is wanted, found {value!r}")
        if urlsplit(value).username or urlsplit(value).query:
            raise ValueError("an address without user, password or query is wanted: settings are recorded")
        return value.rstrip("/").removesuffix("/chat/completions")

    def answers(self, conversations: Sequence[Messages], draw: int) -> list[Answer]:
        questions = [self.question(messages, draw) for messages in conversations]
        keys = [question_key(question) for question in questions]
        kept = Answers(Path(self.cache).expanduser())
        found = {key: Answer(text) for key, text in kept.get(keys).items()}
        # Equal questions of one call are one question.
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in found}
        if missing:
            found |= _run(_Asking(self, kept).all(missing))
        return [found[key] for key in keys]

    def question(self, messages: Messages, draw: int) -> dict[str, Any]:
        """All that the answer follows from: what is sent, and which of several answers it is."""
        temperature = self.reask_temperature if draw else self.temperature
        body = {"model": self.model, "messages": [dict(m) for m in messages], "max_tokens": self.max_tokens}
        return {**body, "temperature": temperature, **self.extra, "draw": draw}

    def key(self) -> str:
        """The API key; raises ConfigError where the variable that is to hold it is empty."""
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ConfigError(
                f"judge: wanted the API key in the environment variable {self.key_variable}, found it empty; set it, "
                "or leave key_variable out for a server that needs none"
            )
        return key


class _Again(Exception):
    """This attempt failed, and another may not; `after` seconds at the earliest."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class _Final(Exception):
    """No further attempt would change this."""


class _Asking:
    """The questions of one call, under way."""

    def __init__(self, server: Server, kept: Answers) -> None:
        self.server, self.kept, self.key = server, kept, server.key()
        self.final: _Final | None = None
        self.resume = 0.0  # when a busy server wants to be asked again, by the monotonic clock

    async def all(self, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, Answer]:
        """An answer to each. Those that came are kept also where one question turns out to be final."""
        import httpx

        one = self.server
        slots = asyncio.Semaphore(one.concurrency)
        timeout = httpx.Timeout(one.read_timeout, connect=one.connect_timeout, pool=None)
        limits = httpx.Limits(max_connections=one.concurrency, max_keepalive_connections=one.concurrency)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers) as client:
            said = await asyncio.gather(*(self._one(client, slots, question) for question in questions.values()))
        if self.final is not None:
            raise ConfigError(
                f"judge {one.model!r} at {one.url}: {self.final}; correct the address, key, model or request. Answers "
                f"that came are kept in {self.kept.path}"
            )
        return dict(zip(questions, said, strict=True))

    async def _one(
        self, client: httpx.AsyncClient, slots: AbstractAsyncContextManager[None], question: Mapping[str, Any]
    ) -> Answer:
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        rounds = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=lambda state: stop_after_attempt(self.server.attempts)(state) or self._too_long(state),
            wait=self._wait,
            reraise=True,
        )
        try:
            async for attempt in rounds:
                with attempt:
                    async with slots:
                        await asyncio.sleep(max(0.0, self.resume - time.monotonic()))
                        if self.final is not None:
                            return Answer(failure=str(self.final))
                        text = await self._attempt(client, question)
                        self.kept.put(question, text)
                        return Answer(text)
        except _Again as e:
            return Answer(failure=f"no answer after {rounds.statistics.get('attempt_number', 1)} attempts: {e}")
        except _Final as e:
            self.final = e
            return Answer(failure=str(e))
        raise AssertionError("tenacity neither answered nor raised")

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: growing, with a random share, and not before the server allows it."""
        from tenacity import wait_exponential, wait_random

        first = self.server.backoff
        grown = wait_exponential(multiplier=first, max=self.server.longest_wait) + wait_random(0, first)
        return max(grown(state), _after(state))

    def _too_long(self, state: RetryCallState) -> bool:
        return _after(state) > self.server.longest_wait

    async def _attempt(self, client: httpx.AsyncClient, question: Mapping[str, Any]) -> str:
        """The text of one answer; raises _Again or _Final."""
        import httpx

        body = {name: value for name, value in question.items() if name != "draw"}
        try:
            sent = client.post(f"{self.server.url}/chat/completions", json=body)
            response = await asyncio.wait_for(sent, self.server.total_timeout)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as e:
            raise _Final(f"wanted an address, found {e}") from e
        except (httpx.TransportError, httpx.DecodingError, asyncio.TimeoutError) as e:
            raise _Again(self._hidden(f"{type(e).__name__} {e}".strip())) from e
        code = response.status_code
        if code in _AGAIN or code >= 500:
            after = _seconds(response.headers.get("retry-after", ""))
            if after and after <= self.server.longest_wait:
                self.resume = max(self.resume, time.monotonic() + after)
            raise _Again(self._hidden(f"HTTP {code} {response.text[:200]}"), after)
        if code != 200:
            raise _Final(self._hidden(f"wanted an answer, found HTTP {code} {response.text[:500]}"))
        try:
            return _text(response.json())
        except (ValueError, LookupError, TypeError) as e:
            raise _Again(self._hidden(f"wanted a chat completion, found {response.text[:200]!r} ({e})")) from e

    def _hidden(self, text: str) -> str:
        """Servers may repeat a request's headers in what they answer."""
        return text.replace(self.key, "***") if self.key else text


def _text(body: Any) -> str:
    """What a chat completion says; without text (a thought alone), or cut off, it is the empty text.

    Of an answer that was cut off, what is missing may be the better half: "Score: 1" begins "Score: 10".
    """
    choice = body["choices"][0]
    content = choice["message"]["content"]
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return "" if choice.get("finish_reason") in _CUT else content or ""


def _after(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome is not None else None
    return failure.after if isinstance(failure, _Again) else 0.0


def _seconds(retry_after: str) -> float:
    """Retry-After as seconds from now: a number, or a date; 0 where it is neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also where this thread has an event loop already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
