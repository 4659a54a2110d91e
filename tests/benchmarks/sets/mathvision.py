"""MATH-Vision: a few questions in the form of its official files, a right reply to them, and its official script.

The script needs latex2sympy2 1.9.1, which does not go with math-verify: OFFICIAL_PYTHON names an interpreter that has
it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, texts

QUESTIONS = [
    {
        "id": str(number),
        "question": "How much?\n<image1>",
        "options": options,
        "answer": answer,
        "solution": None,
        "level": 1 + number % 2,
        "subject": "arithmetic",
        "image": f"images/{number}.jpg",
    }
    for number, (answer, options) in enumerate(
        [("60", []), ("B", list("ABCDE")), ("\\frac{1}{2}", []), ("C", ["1", "2", "$3 \\%$", "4", "5"]), ("(3,-4)", [])]
    )
]

FILES = {"test.jsonl": "".join(json.dumps(question) + "\n" for question in QUESTIONS)}
REPOSITORY = "github.com/mathllm/MATH-V"
SCORE = """
import contextlib, io, json, sys, types
sys.path.insert(0, "evaluation")
sys.modules["fire"] = types.ModuleType("fire")
import evaluate
rows, done = json.load(sys.stdin), []
evaluate.id_raw = {str(i): row["raw"] for i, row in enumerate(rows)}
evaluate.load_jsonl = lambda path: [{"id": str(i), "response": row["reply"]} for i, row in enumerate(rows)]
evaluate.save_jsonl = lambda path, lines, t_stamp: done.extend(lines)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    evaluate.evaluate("x")
print(json.dumps([bool(line["correct"]) for line in done]))
"""
FORMS = (
    *(
        "\\boxed{{{}}}",
        "\\boxed{{{}}} or \\boxed{{{}}}",
        "$\\boxed{{{}}}$.",
        "The answer is {}. So it is",
        "x = {}",
        "${}$",
    ),
    *("so the correct answer is {}\nbecause", "({})\n{}", "{}\nas one sees", "We get {}.", "We get ({}).", "is {}."),
    *(
        "{} cm",
        "{}^\\circ",
        "{}\\%",
        "({}, {})",
        "[{},{}]",
        "{}/{}",
        "\\frac{{{}}}{{{}}}",
        "\\frac{{{}}}{}",
        "\\sqrt{}",
    ),
    *(
        "2\\cdot {}",
        "{}\\text{{ cm}}",
        "{}+0.001",
        "{}:{}",
        "-{}",
        "{}^2",
        "({})",
        "{}}}",
        "{}\\pi",
        "\\approx {}",
        "{}!",
    ),
    *("{} {}", "\\left({}\\right)", "e^{}", "{}/2/{}", "\\boxed{{\\text{{{}}}}}", "\\sqrt[3]{{{}}}", "1{},000", "{}e3"),
)


def gold(sample: Sample) -> str:
    return f"\\boxed{{{sample.truth}}}"


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    questions = [json.loads(line) for line in (checkout / "data" / "test.jsonl").open(encoding="utf-8")]
    numbers = ["2", "3", "0.5", "12", "1.0", "7/3", "4\\pi-2\\sqrt{3}", "\\frac12", "1,000", "30", "b", "a"]
    rows = []
    for _ in range(REPLIES):
        raw = rng.choice(questions)
        right = [raw["answer"], *([raw["options"]["ABCDE".index(raw["answer"])]] if raw["options"] else [])]
        if rng.random() < 0.7:
            form = rng.choice(FORMS)
            said = [rng.choice(right if rng.random() < 0.8 else numbers) for _ in range(2)]
            reply = form.format(*said)
        else:
            reply = texts(rng.choice(right), rng.sample(numbers, 3), rng)
        rows.append({"raw": raw, "reply": reply})
    command = [os.environ.get("OFFICIAL_PYTHON", sys.executable), "-W", "ignore", "-c", SCORE]
    done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, cwd=checkout, check=True)
    for row, right in zip(rows, json.loads(done.stdout), strict=True):
        meta = {"options": row["raw"]["options"]}
        yield {"truth": row["raw"]["answer"], "meta": meta, "reply": row["reply"]}, float(right)
