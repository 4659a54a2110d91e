"""Tries chat templates: programs of a model's author, which may fail, attack or never end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from mmpost.errors import ConfigError

MAX_SECONDS = 10.0
"""For one short prompt, which takes milliseconds."""
ADVICE = "take chat_template.jinja from the model's author, or correct it"


class _TooLong(BaseException):
    """Raised into the template; not an Exception, which code in between could catch."""


def probe(templating: Any, messages: Sequence[dict[str, Any]], **kwargs: Any) -> str:
    """The text that a processor or tokenizer's template makes of `messages`, in transformers' sandbox.

    Raises ConfigError for a template that fails, and for one that is not done after `MAX_SECONDS`.
    """
    try:
        with _time_limit(MAX_SECONDS):
            text = templating.apply_chat_template(messages, tokenize=False, **kwargs)
    except _TooLong:
        raise ConfigError(f"the chat template is not done after {MAX_SECONDS:g} s; {ADVICE}") from None
    except SecurityError as e:
        raise ConfigError(
            f"the chat template tries to leave its sandbox ({_short(e)}); do not trust this checkpoint, or replace its "
            "chat_template.jinja"
        ) from e
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as e:
        raise ConfigError(f"the chat template fails with {type(e).__name__}: {_short(e)}; {ADVICE}") from e
    except (RecursionError, MemoryError) as e:
        raise ConfigError(f"the chat template exhausts the memory ({type(e).__name__}); {ADVICE}") from e
    if not text:
        raise ConfigError(f"the chat template writes nothing for a message; {ADVICE}")
    return text


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` in the body after `seconds`; only in the main thread, which gets the signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    # Another timer (of a test runner, say) goes on afterwards.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)
