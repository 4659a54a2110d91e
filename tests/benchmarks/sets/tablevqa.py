"""TableVQA-Bench: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import random
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpost.tasks.benches.tablevqa import BENCHMARK, PARTS
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

TRUTHS = {
    "vwtq": [("nu-1740", "2"), ("nu-773", "March 21, 1964|Denver"), ("nu-806", "Léon Balcer")],
    "vwtq_syn": [("nu-1740", "2")],
    "vtabfact": [("2-11036258-13.html.csv_8", "0"), ("2-11036258-13.html.csv_9", "1")],
    "fintabnetqa": [("DOV_2014_page_13.pdf149186_1", "$641.8 million"), ("DOV_2014_page_13.pdf149186_2", "3.14%")],
}


def _rows_of(part: str) -> list[dict[str, Any]]:
    return [
        {
            "qa_id": qa_id,
            "question": "how many?",
            "gt": truth,
            "image": {"bytes": b"png", "path": "1.png"},
            "text_html_table": "<table></table>",
            "text_markdown_table": "",
        }
        for qa_id, truth in TRUTHS[part]
    ]


FILES = {file: _rows_of(part) for part, file in zip(PARTS, BENCHMARK.files, strict=True)}
REPOSITORY = "github.com/naver-ai/tablevqabench"

CELLS = [
    *(
        "2",
        "2.0",
        "1,000",
        "1000",
        "-3.5",
        "2.9999999",
        "1_000",
        "Léon Balcer",
        "Leon Balcer",
        "13\u201314",
        "13-14",
        "xx-02-29",
    ),
    *(
        "2004-02-29",
        "2004-2-29",
        "2004-xx-xx",
        "2004",
        "Denver (CO)",
        "Denver[1]",
        "Denver [a] [2]*",
        '"Denver"',
        "[7]",
    ),
    *(
        "[x] y[z]",
        "(500)",
        "yes (no) (so)",
        '"a" (b)',
        "Denver.",
        "  new\tyork ",
        "\u2019tis",
        "a|b",
        "a||b",
        "March 21, 1964|Denver",
    ),
    *(
        "Germany|France|Japan",
        "Japan|Germany|France",
        "2|2.0",
        "5.0|5",
        "|",
        "a\\nb",
        "a\\pb",
        "2004-13-01",
        "[1][",
        "x(y",
    ),
]
AMOUNTS = [
    *(
        "$641.8",
        "641.8 million",
        "$641.8 million",
        "641.8 thousand",
        "0.6418 billion",
        "3.14%",
        "3.14 %",
        "3.14",
        "(500)",
    ),
    *(
        "-500",
        "17 weeks",
        "17",
        "220,000 square feet",
        "220,000",
        "220 thousand square feet",
        "5 units",
        "1 year",
        "A-",
    ),
    *("Milwaukee, WI", "Milwaukee WI.", "5million", "million", "thousand million", "million thousand", "%", "2 MMBtus"),
]


def gold(sample: Sample) -> str:
    if sample.meta["part"] == "vtabfact":
        return "True" if sample.truth == "1" else "False"
    return str(sample.truth)


def question(rng: random.Random) -> tuple[str, str, str]:
    """A part, a truth and a reply."""
    part = rng.choice(["vwtq", "vwtq", "vtabfact", "fintabnetqa"])
    if part == "vtabfact":
        truth = rng.choice("01")
        said = rng.choice(["true", "false"])
        forms = [said, said.title(), f"It is {said}.", f"un{said}", "true, not false", "yes"]
        return part, truth, texts(rng.choice(forms), ["true", "false"], rng)
    pool = CELLS if part == "vwtq" else AMOUNTS
    truth = rng.choice(pool)
    near = [text for text in pool if text[:3].strip('"-$ ') in truth] or pool
    reply = rng.choice([truth, rng.choice(near), texts(truth, rng.sample(pool, 2), rng)])
    return part, truth, rng.choice(["{}", "{}", "{}", "{}*", "{} (about)", '"{}"', "{}[3]", "{}."]).replace("{}", reply)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    script = runpy.run_path(str(checkout / "src" / "evaluate_tablevqa_dataset.py"))
    rules = {"vwtq": "evaluate_wtq", "vtabfact": "evaluate_tabfact", "fintabnetqa": "evaluate_fintabnet"}
    made = 0
    while made < REPLIES:
        part, truth, reply = question(rng)
        instance: Mapping[str, Any] = {"pred": reply, "gt": int(truth) if part == "vtabfact" else truth}
        try:
            ((scored,), _) = script[rules[part]]([instance], ["accuracy"])
        except AssertionError:  # The script ends at nan and inf.
            continue
        made += 1
        yield {"truth": truth, "meta": {"part": part}, "reply": reply}, float(scored["scores"]["accuracy"] or 0)
