"""The process in which math-verify works: one JSON pair of texts a line in, whether they are equal a line out.

It sets no time limits: a huge power is one call of C code, which no signal interrupts. Whoever waits for an answer ends
the process instead (`mmpost.rewards.expression`).
"""

from __future__ import annotations

import json
import logging
import sys


def equal(said: str, truth: str) -> bool:
    """Whether math-verify reads the two texts as equal; what it cannot read is equal to nothing."""
    from math_verify import parse, verify

    gold, found = parse(truth, parsing_timeout=None), parse(said, parsing_timeout=None)  # type: ignore[arg-type]
    return bool(gold and found and verify(gold, found, timeout_seconds=None))


def serve() -> None:
    """Answer until the pipe closes."""
    logging.disable(logging.WARNING)  # it warns of the limits that are left to the other side
    equal("1", "1")
    print("ready", flush=True)
    for line in sys.stdin:
        said, truth = json.loads(line)
        print("yes" if equal(said, truth) else "no", flush=True)


if __name__ == "__main__":
    serve()
