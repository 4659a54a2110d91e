"""MMBench: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import csv
import io
import logging
import random
import string
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

PICTURE = b64encode(bytes(range(99))).decode()


def tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table in TSV, as pandas writes it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def turned(index: int, options: Sequence[str], answer: int, **more: str) -> list[dict[str, Any]]:
    """A question and its turned copies, whose pictures are that of the question."""
    rows = []
    for turn in range(len(options)):
        places = [(place + turn) % len(options) for place in range(4)]
        cells = {c: options[p] if i < len(options) else "" for i, (c, p) in enumerate(zip("ABCD", places, strict=True))}
        picture = {"image": str(index) if turn else PICTURE}
        letter = "ABCD"[(answer - turn) % len(options)]
        rows.append({"index": index + turn * 1_000_000, "question": "What is it?", **more, **cells, "answer": letter})
        rows[-1] |= picture
    return rows


QUESTIONS = [
    *turned(7, ["teddy bear", "rabbit", "cat", "dog"], 2, hint="Look.", category="ocr", **{"l2-category": "cp"}),
    *turned(8, ["yes", "no"], 0, hint="", category="social", **{"l2-category": "lr"}),
]

FILES = {"MMBench_DEV_EN_V11.tsv": tsv(QUESTIONS)}
REPOSITORY = "github.com/open-compass/VLMEvalKit"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def official_code(checkout: Path) -> Any:
    """VLMEvalKit's hits of rows with options, "GT" and "prediction", by way of the table that it writes."""
    import pandas

    logger = ModuleType("vlmeval.smp.log")
    logger.get_logger = logging.getLogger  # type: ignore[attr-defined]
    sys.modules["vlmeval.smp.log"] = logger
    matching: dict[str, Any] = {}
    source = checkout / "vlmeval" / "utils" / "matching_util.py"
    exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), matching)
    names = ["build_choices", "prefetch_answer", "extract_answer_from_item", "eval_vanilla"]
    scripts = checkout / "vlmeval" / "dataset" / "utils" / "multiple_choice.py"
    prompts = dict.fromkeys(["build_option_str", "cn_string", "build_prompt", "build_prompt_cn"], lambda *_: "")
    namespace = {"pd": pandas, "can_infer": matching["can_infer"], **prompts}
    *_, vanilla = functions(scripts, names, string=string, **namespace)

    def hits(rows: Sequence[Mapping[str, Any]]) -> list[int]:
        table = pandas.read_csv(io.StringIO(pandas.DataFrame(rows).to_csv(sep="\t", index=False)), sep="\t")
        table["prediction"] = [str(each) for each in table["prediction"]]
        return [vanilla(None, table.iloc[i])["hit"] for i in range(len(table))]

    return hits


WORDS = ["teddy bear", "rabbit", "a cat", "dog", "None", "NA", "an apple", "12", "Because it rains", "yes", "no", "n"]
LONG = "I choose {} because the picture shows many things going on here today"
FORMS = (
    *("The answer is {}", "the Answer is **{}**", "answer is {}ecause", "A {} is on the mat", "{} and {}", "so: {}"),
    *(LONG, "It is a {}, not a {}", "Z", "Cannot determine the answer", "{}! {}", "None", "nan", "I cannot tell. {}"),
    *("Failed to obtain answer via API {}", "{}#", "(A) and so on, but in the end I would say {}"),
)


def made_up(rng: random.Random, words: Sequence[str], forms: Sequence[str]) -> tuple[list[str], str, str]:
    """Options, the right letter and a reply."""
    options = rng.sample(words, rng.randrange(2, 5))
    letters = "ABCD"[: len(options)]
    truth = rng.choice(letters)
    reply = texts(rng.choice([truth, options[letters.index(truth)]]), [*options, rng.choice(letters)], rng)
    if rng.random() < 0.4:
        said = [rng.choice([truth, options[letters.index(truth)], *options]) for _ in range(2)]
        reply = rng.choice(forms).replace("{}", said[0], 1).replace("{}", said[1])
    return options, truth, reply


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    rows, table = [], []
    for index in range(REPLIES):
        options, truth, reply = made_up(rng, WORDS, FORMS)
        cells = dict.fromkeys("ABCD", "") | dict(zip("ABCD", options, strict=False))
        table.append({"index": index, "question": "?", **cells, "GT": truth, "prediction": reply})
        rows.append({"truth": truth, "meta": {"options": options}, "reply": reply})
    for row, hit in zip(rows, official_code(checkout)(table), strict=True):
        yield row, float(hit)
