"""The cache of decoded media: one decoding per value, limited memory."""

import threading

import pytest

from mmpost.data.media.cache import Cache


def test_threads_requesting_the_same_value_decode_it_once():
    cache = Cache(limit=100)
    decodes, barrier = [], threading.Barrier(8)

    def decode():
        decodes.append(1)
        threading.Event().wait(0.05)
        return "value"

    def get_value():
        barrier.wait()
        assert cache.get("key", decode, len) == "value"

    threads = [threading.Thread(target=get_value) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decodes) == 1


def test_cache_is_bounded_by_bytes_and_drops_the_oldest():
    cache = Cache(limit=10)
    decoded_keys = []

    def get(key, size):
        return cache.get(key, lambda: decoded_keys.append(key) or key, lambda _: size)

    for key in "ab":
        get(key, 5)
    get("a", 5)
    get("c", 5)
    assert (decoded_keys, cache.used) == (["a", "b", "c"], 10)
    get("a", 5)
    get("b", 5)
    assert decoded_keys == ["a", "b", "c", "b"]
    get("huge", 11)
    get("huge", 11)
    assert decoded_keys[-2:] == ["huge", "huge"]
    assert cache.used == 10


def test_a_failure_is_not_cached():
    cache = Cache(limit=10)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0, len)
    assert cache.get("key", lambda: "fine", len) == "fine"
