"""The cache of decoded media: one decoding for all who want it, and a bound."""

import threading

import pytest

from mmpost.data.media.cache import Cache


def test_threads_that_want_the_same_value_decode_it_once():
    kept = Cache(limit=100)
    made, start = [], threading.Barrier(8)

    def make():
        made.append(1)
        threading.Event().wait(0.05)
        return "value"

    def want():
        start.wait()
        assert kept.get("key", make, len) == "value"

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_cache_is_bounded_by_bytes_and_drops_the_oldest():
    kept = Cache(limit=10)
    made = []

    def get(key, size):
        return kept.get(key, lambda: made.append(key) or key, lambda _: size)

    for key in "ab":
        get(key, 5)
    get("a", 5)
    get("c", 5)
    assert (made, kept.used) == (["a", "b", "c"], 10)
    get("a", 5)
    get("b", 5)
    assert made == ["a", "b", "c", "b"]
    get("huge", 11)
    get("huge", 11)
    assert made[-2:] == ["huge", "huge"]
    assert kept.used == 10


def test_a_failure_is_not_kept():
    kept = Cache(limit=10)
    with pytest.raises(ZeroDivisionError):
        kept.get("key", lambda: 1 / 0, len)
    assert kept.get("key", lambda: "fine", len) == "fine"
