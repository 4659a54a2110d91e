"""How long each reward takes on adversarial replies of growing length.

    python scripts/reward_times.py [--lengths 1000 10000 100000] [--limit 20] [--only NAME]

Every reward scores every text of `texts` at every length, on a sample of each type of truth that it supports. Printed
are, for each reward, the slowest text at each length, and the growth between the last two lengths: below about 15 for
ten times the length is linear. A call that exceeds `--limit` seconds ends its process and counts as that.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import multiprocessing
import pkgutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import mmpost.rewards
from mmpost.data.worlds import clips
from mmpost.data.worlds.digits.scenes import Scenes
from mmpost.errors import MmpostError
from mmpost.types import Part, Reply, Sample

FRAGMENTS = (
    *("<answer>", "</answer>", "<think>", "</think>", "</think> <answer>", "<answer></answer>", "<think></think>"),
    *("<", "</", "<summary></summary><caption>", "</caption><think>", "\\boxed{", "}", "{", "[", "]", "(", ")", "(("),
    *("[[1,2],", "[1,", '{"bbox_2d": [1,2,3,4], "point_2d": [1,2]},', '{"a":', '"', "'", "\\", "\\frac{", "\\sqrt"),
    *("^", "_", "$", "$$", "\\(", "1", "12345.", "1e9", "-", "+1", "1+", "1/", "*", "**", "9^", "!", "=", "1 = "),
    *("0x", "1,", "1,000", "½", "%", "1e", " ", "\n", "\t", ". ", ".", ",", "a", "ab ", "a. ", "A) ", "(A)", "A. "),
    *("B: ", '"(A)"', '"(', "s ", "xes ", "'s ", "f(", "f('a',", "f('a', 'b')", "f(a, b) ", "change_size(1, 'small')"),
    *("move(", ")(", "f((", "f'", "step 1 ", "1) ", "- x\n", "first ", "then, ", "from 1 to 2", "1.5 to 3.5 seconds "),
    *('{"start_time": "1", "end_time": "2"}', "start_time", "00:", "1:00 - ", "two ", "twenty-", "hundred ", "the "),
    *("<table>", "<tr>", "<td>", "<tr><td>", "<td colspan=9 rowspan=9>", "<b>", "&lt;", "<!--"),
    *("<fcel>", "<ecel>", "<lcel>", "<nl>", "<fcel>a<lcel><nl><ucel><xcel><nl>", "<fcel><b>1</b><nl>", "<thead>"),
    *("\u202e", "\u0660", "é", "中", "\U0001f600", "\x00"),
)
PREFIXES = ("", "f(a,", "</think>", '{"answer": "', "1")
"""What repetitions of white space follow, too."""
WRAPPERS: tuple[Callable[[str], str], ...] = (
    lambda body: body,
    lambda body: f"<answer>{body}</answer>",
    lambda body: f"<think>{body}</think><answer>7</answer>",
    lambda body: f"<think>x</think><answer>{body}",
)


def texts(length: int) -> Iterator[tuple[str, str]]:
    """(name, text) of the adversarial replies of about `length` characters."""
    for fragment in FRAGMENTS:
        for prefix in PREFIXES if fragment.isspace() else ("",):
            body = prefix + (fragment * (length // len(fragment) + 1))[:length]
            for i, wrap in enumerate(WRAPPERS):
                yield f"{prefix}{fragment[:24]!r} x {length // len(fragment)}, form {i}", wrap(body)


def rewards() -> dict[str, Callable[..., Any]]:
    """The public functions of mmpost.rewards of (sample, reply)."""
    functions = {}
    for info in pkgutil.iter_modules(mmpost.rewards.__path__):
        module = importlib.import_module(f"mmpost.rewards.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            if required == ["sample", "reply"] and function.__module__ == module.__name__ and name[0] != "_":
                functions[f"{info.name}.{name}"] = function
    return functions


def samples() -> list[Sample]:
    """One sample for each type of truth."""
    prompt = (Part("text", "What is it? (A) one (B) two"),)
    truths = ["A  Cat", "<answer>7</answer>", 7, 0.5, "change_size(1, 'small')", "\\frac{1}{2}", "(A) one"]
    truths += ["<fcel>a<lcel><nl><fcel>1<fcel>2<nl>"]
    spans = list(clips.Clips("val", clips.QUESTION_TYPES, n=len(clips.QUESTION_TYPES)))
    return [*(Sample(str(i), prompt, truth=t) for i, t in enumerate(truths)), Scenes("val", ("all",), n=1)[0], *spans]


PROBES = ("", "<answer>x</answer>", "7", "<answer>[]</answer>", "(B)", "yes", "[1, 2, 3, 4]", "1 - 2", "[[1, 2, 0.5]]")
"""Replies of many forms: one that cannot be read may be scored without a look at the truth."""


def _supported(function: Callable[..., Any], sample: Sample) -> bool:
    try:
        for text in PROBES:
            function(sample, Reply((Part("text", text),), "policy"))
    except (MmpostError, TypeError, LookupError, ValueError, AttributeError):
        return False
    return True


def _measure(name: str, length: int, results: Any) -> None:
    function = rewards()[name]
    for sample in [s for s in samples() if _supported(function, s)]:
        for text_name, text in texts(length):
            results.send((text_name, None))
            start = time.perf_counter()
            function(sample, Reply((Part("text", text),), "policy"))
            results.send((text_name, time.perf_counter() - start))
    results.send(None)


def slowest(name: str, length: int, limit: float) -> tuple[float, str]:
    """The slowest text of this length for a reward: its seconds and name."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(name, length, writer), daemon=False)
    process.start()
    writer.close()
    worst: tuple[float, str] = (0.0, "supports no type of truth")
    current = ""
    while True:
        if not reader.poll(limit):
            worst = (limit, f"{current} (not finished)")
            process.kill()
            break
        try:
            message = reader.recv()
        except EOFError:
            worst = (limit, f"{current} (raised)")
            break
        if message is None:
            break
        current, seconds = message
        if seconds is not None:
            worst = max(worst, (seconds, current))
    process.join()
    return worst


def main() -> None:
    """Print a table: one line per reward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    names = [name for name in sorted(rewards()) if arguments.only in name]
    print(f"{len(names)} rewards, {len(list(texts(100)))} texts at each of {arguments.lengths} characters")
    for name in names:
        worst = [slowest(name, length, arguments.limit) for length in arguments.lengths]
        growth = worst[-1][0] / max(worst[-2][0], 1e-4) if len(worst) > 1 else 0.0
        times = "  ".join(f"{seconds:9.4f}" for seconds, _ in worst)
        print(f"{name:34s} {times}  x{growth:6.1f}  {worst[-1][1]}", flush=True)


if __name__ == "__main__":
    main()
