"""Scores of made-up replies by the official code of a benchmark: what tests/benchmarks compare with.

    python scripts/official_scores.py pope --official CHECKOUT

The official code is no part of this project. Stored in tests/benchmarks/official/NAME.jsonl are the repository with its
commit and, for each reply, what it was scored with and the score.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import logging
import random
import re
import subprocess
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

FOLDER = Path(__file__).parents[1] / "tests" / "benchmarks" / "official"
REPLIES = 1000
Row = dict[str, Any]
"""truth, meta, reply; key: that of the reply in its file, where it has a rule of its own."""


def functions(file: Path, names: Sequence[str], **namespace: Any) -> list[Callable[..., Any]]:
    """Functions of a script, without running the rest of it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    exec(compile(ast.Module([*wanted], []), str(file), "exec"), namespace)  # noqa: S102  # is what is compared with
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


def pope(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = (checkout / "evaluate.py").read_text(encoding="utf-8")
    reading = source[source.index("for answer in answers:") : source.index("for i in range(len(label_list))")]
    for _ in range(REPLIES):
        truth = rng.choice(["yes", "no"])
        row = {"truth": truth, "meta": {}, "reply": texts(truth, ["no", "yes", "a dog"], rng)}
        answers = [{"answer": row["reply"]}]
        exec(compile(reading, "evaluate.py", "exec"), {"answers": answers})  # noqa: S102
        yield row, float(answers[0]["answer"] == truth)


def mmau(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    (match,) = functions(checkout / "evaluation.py", ["string_match"], re=re)
    questions = json.loads((checkout / "mmau-test-mini.json").read_text(encoding="utf-8"))
    for _ in range(REPLIES):
        question = rng.choice(questions)
        truth, choices = question["answer"], question["choices"]
        reply = texts(truth, [c for c in choices if c != truth], rng)
        yield {"truth": truth, "meta": {"choices": choices}, "reply": reply}, float(match(truth, reply, choices))


def mathvista(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    from rapidfuzz.distance import Levenshtein

    evaluation = checkout / "evaluation"
    names = ["get_most_similar", "normalize_extracted_answer"]
    _, normalize = functions(evaluation / "calculate_score.py", names, re=re, distance=Levenshtein.distance)
    questions = list(json.loads((checkout / "data" / "testmini.json").read_text(encoding="utf-8")).values())
    for _ in range(REPLIES):
        q = rng.choice(questions)
        reply = texts(q["answer"], q["choices"] or [str(rng.randrange(99)), f"{rng.uniform(0, 9):.2f}"], rng)
        answer = normalize(reply, q["choices"], q["question_type"], q["answer_type"], q["precision"])
        meta = {name: q[name] for name in ("choices", "answer_type", "precision")}
        row = {"truth": q["answer"], "meta": meta, "reply": reply, "key": "extraction"}
        yield row, float(answer == q["answer"])


def mmmu(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = checkout / "mmmu" / "utils" / "eval_utils.py"
    names = [
        *("parse_multi_choice_response", "parse_open_response", "eval_multi_choice", "eval_open"),
        *("check_is_number", "normalize_str", "extract_numbers"),
    ]
    draws = random.Random(42)
    parse, parse_open, is_right, is_right_open, *_ = functions(source, names, re=re, random=draws, np=numpy)
    words = ["a dog", "a cat", "12", "12.5 m", "Paris", "the long river", "A", "yes", "$x = 3$"]
    for _ in range(REPLIES):
        options = rng.sample(words, rng.randrange(2, 6))
        letters = "ABCDEF"[: len(options)]
        if rng.random() < 0.6:
            truth = rng.choice(letters)
            reply = texts(rng.choice([truth, options[letters.index(truth)]]), options, rng)
            said = parse(reply, list(letters), dict(zip(letters, options, strict=True)))
            yield {"truth": truth, "meta": {"options": options}, "reply": reply}, float(is_right(truth, said))
        else:
            accepted = options[: rng.randrange(1, 3)]
            forms = ["{}", "so the answer is {}", "x = {}", "the value is {}.\nIt could be {}", "thus\n{}"]
            reply = rng.choice(forms).replace("{}", texts(accepted[0], options, rng))
            row = {"truth": accepted, "meta": {"options": None}, "reply": reply}
            yield row, float(is_right_open(accepted, parse_open(reply)))


def mmstar(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
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


def ocrbench(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    source = (checkout / "OCRBench" / "example.py").read_text(encoding="utf-8")
    start = source.index("    for i in range(len(data)):\n        data_type")
    scoring = textwrap.dedent(source[start : source.index("    save_json(data, os.path.join", start)])
    rows = json.loads((checkout / "OCRBench" / "OCRBench" / "OCRBench.json").read_text(encoding="utf-8"))
    formulas = [row for row in rows if row["dataset_name"] == "HME100k"]
    for _ in range(REPLIES):
        row = rng.choice(formulas if rng.random() < 0.2 else rows)
        accepted = row["answers"] if isinstance(row["answers"], list) else [row["answers"]]
        reply = texts(rng.choice(accepted), [rng.choice(rows)["question"], "15"], rng) or " "
        data = [row | {"predict": reply}]
        exec(compile(scoring, "example.py", "exec"), {"data": data})  # noqa: S102
        meta = {"formula": row["dataset_name"] == "HME100k"}
        yield {"truth": accepted, "meta": meta, "reply": reply}, float(data[0]["result"])


OFFICIAL: Mapping[str, tuple[str, Callable[[Path, random.Random], Iterator[tuple[Row, float]]]]] = {
    "mathvista": ("github.com/lupantech/MathVista", mathvista),
    "mmau": ("github.com/Sakshi113/MMAU", mmau),
    "mmmu": ("github.com/MMMU-Benchmark/MMMU", mmmu),
    "mmstar": ("github.com/MMStar-Benchmark/MMStar", mmstar),
    "ocrbench": ("github.com/Yuliang-Liu/MultimodalOCR", ocrbench),
    "pope": ("github.com/RUCAIBox/POPE", pope),
}
"""Repository, and what scores replies with its code."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=OFFICIAL)
    parser.add_argument("--official", type=Path, required=True, help="a checkout of the official repository")
    arguments = parser.parse_args()
    repository, scores = OFFICIAL[arguments.name]
    git = ["git", "-C", str(arguments.official), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    lines: list[Any] = [{"repository": repository, "commit": commit}]
    lines += [row | {"official": score} for row, score in scores(arguments.official, random.Random(arguments.name))]
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{arguments.name}.jsonl"
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    print(f"{file}: {len(lines) - 1} replies, {file.stat().st_size // 1024} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
