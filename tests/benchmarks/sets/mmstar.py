"""MMStar: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import copy
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

QUESTIONS = [
    {
        "index": i,
        "question": "What is it? Options: A: a dog, B: a cat, C: a cow, D: a pig",
        "image": b"png",
        "answer": answer,
        "category": "math",
        "l2_category": "geometry",
    }
    for i, answer in enumerate("ADB")
]

FILES = {"mmstar.parquet": QUESTIONS}
REPOSITORY = "github.com/MMStar-Benchmark/MMStar"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    file = checkout / "eval" / "vlmeval" / "evaluate" / "mmstar.py"
    # The script divides by the number of questions of each kind, so that one of each is needed.
    kinds = re.findall(r"'([^']+)': (\{|0)", file.read_text(encoding="utf-8"))
    category, table = "", []
    for name, value in kinds:
        category = name if value == "{" else category
        if value == "0":
            table.append({"category": category, "l2_category": name, "bench": "", "answer": "A", "prediction": "zzz"})
    for _ in range(REPLIES):
        truth = rng.choice("ABCD")
        options = [f"{truth}: dog", "a dog", "Because of it", "the answer is D", "(B) cat"]
        reply = texts(
            rng.choice([truth, f"({truth}) a dog", f"Option {truth}", f"The answer is {truth}"]), options, rng
        )
        rows = [table[0] | {"prediction": reply, "answer": truth}, *table[1:]]
        written: dict[str, float] = {}
        namespace = {
            **{"load": lambda _, rows=rows: Table(rows), "tqdm": iter, "deepcopy": copy.deepcopy},
            **{"get_logger": logging.getLogger, "dump": lambda scores, _, out=written: out.update(scores)},
        }
        (evaluate,) = functions(file, ["MMStar_eval"], **namespace)
        evaluate("x.xlsx")
        kind = f"{table[0]['category']}({table[0]['l2_category']})"
        yield {"truth": truth, "meta": {}, "reply": reply}, float(written[kind])


class Table:
    """A table, as far as MMStar's script reads it."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.iloc = rows

    def __len__(self) -> int:
        return len(self.iloc)
