"""Worker process around math-verify: reads a JSON pair of texts per line, writes "yes" or "no" per line.

It sets no time limits: a huge power is a single call of C code, which no signal interrupts. The caller kills the
process instead (`mmpost.rewards.expression`).
"""

from __future__ import annotations

import json
import logging
import sys


def equal(answer: str, truth: str) -> bool:
    """Whether math-verify considers the two texts equal; one that it cannot parse is equal to nothing."""
    from math_verify import parse, verify

    gold, parsed = parse(truth, parsing_timeout=None), parse(answer, parsing_timeout=None)  # type: ignore[arg-type]
    return bool(gold and parsed and verify(gold, parsed, timeout_seconds=None))


def serve() -> None:
    """Answer requests until the pipe closes."""
    logging.disable(logging.WARNING)  # math-verify warns that its time limits are off
    equal("1", "1")  # import and warm up before the first request is timed
    print("ready", flush=True)
    for line in sys.stdin:
        answer, truth = json.loads(line)
        print("yes" if equal(answer, truth) else "no", flush=True)


if __name__ == "__main__":
    serve()
