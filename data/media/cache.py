"""A thread-safe LRU cache that is bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Cache:
    """An LRU cache: once the values exceed `limit` bytes, the least recently used ones are evicted.

    If several threads need the same missing value, one computes it and the others wait. A value larger than the limit
    is not cached.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._pending: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """Return the cached value of `key`, else compute it by `make()`; `size` gives its bytes.

        An exception of `make` propagates to every waiting thread and is not cached.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            waiting = self._pending.get(key)
            if waiting is None:
                future = self._pending[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            value = make()
            cost = size(value)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            self._store(key, value, cost)
        future.set_result(value)
        return value

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._values

    def _store(self, key: Hashable, value: Any, cost: int) -> None:
        if cost > self.limit:
            return
        self._values[key] = (value, cost)
        self.used += cost
        while self.used > self.limit:
            self.used -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
            self.used = 0
