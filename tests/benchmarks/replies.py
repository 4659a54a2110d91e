"""Made-up replies to benchmarks, and functions of official scripts to score them with."""

from __future__ import annotations

import ast
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPLIES = 1000
Row = dict[str, Any]
"""truth, meta, reply; key: that of the reply in its file, where it has a rule of its own."""


def functions(file: Path, names: Sequence[str], **namespace: Any) -> list[Callable[..., Any]]:
    """Functions of a script, without running the rest of it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    exec(compile(ast.Module([*wanted], []), str(file), "exec"), namespace)
    return [namespace[name] for name in names]


def texts(truth: str, others: Sequence[str], rng: random.Random) -> str:
    """A reply of some kind: right, wrong, in other words, with tags, negated, damaged, empty."""
    options = [truth, *others]
    said = rng.choice(options) if rng.random() < 0.5 else truth
    other, letter = rng.choice(options), "ABCDEFGH"[rng.randrange(8)]
    forms = (
        *(said, said.upper(), said.lower(), f" {said}\n", f"{said}.", f"**{said}**", f'"{said}"', f"{said} {said}"),
        *(f"({letter}) {said}", f"({letter})", letter, f"{letter}.", f"{letter}) {said}", f"Answer: {letter}"),
        *(f"The answer is {said}.", f"The answer is ({letter}).", f'The answer is "{said}".', f"not {said}"),
        *(f"I think it is {said}, not {other}", f"{said} or {other}", f"No, {said}", f"No. {said}", f"Yes, {said}"),
        *(f"<think>{other}</think><answer>{said}</answer>", f"<answer>{said}</answer><answer>{other}</answer>"),
        *(f"\\boxed{{{said}}}", " ".join(options), " ".join(reversed(said.split())), said[: len(said) // 2]),
        *(unicodedata.normalize("NFD", said), said.replace(" ", "\u00a0"), f"\ufeff{said}", said.replace(" ", "_")),
        *("", " ", "\n", "???", "no", "No\n", "NO", "not sure", "none", "yes", "Yes."),
        *(f"{rng.randrange(20)}", f"{rng.uniform(0, 20):.3f}", f"-{rng.randrange(9)}.", "1e3", "1,000", "nan", "inf"),
        "".join(rng.choices("aA1 .,()\\{}[]-yesno", k=rng.randrange(1, 15))),
    )
    return rng.choice(forms)
