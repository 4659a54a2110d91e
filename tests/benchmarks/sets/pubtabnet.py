"""PubTabNet: a few tables in the form of its annotations, right replies, and its official script."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row


def _annotation(name: str, split: str, structure: list[str], *texts: list[str]) -> dict[str, Any]:
    cells = [{"tokens": text, "bbox": [1, 4, 27, 13]} if text else {"tokens": []} for text in texts]
    return {"filename": name, "split": split, "imgid": 0, "html": {"cells": cells, "structure": {"tokens": structure}}}


HEAD = ["<thead>", "<tr>", "<td", ' colspan="2"', ">", "</td>", "</tr>", "</thead>"]
BODY = ["<tbody>", "<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>", "</tbody>"]
QUESTIONS = [
    _annotation("PMC1_001_00.png", "train", BODY, ["a"], ["b"]),
    _annotation("PMC2_001_00.png", "val", [*HEAD, *BODY], ["<b>", "A", "</b>"], ["p", "<", "5"], []),
    _annotation("PMC3_001_00.png", "val", BODY, ["1"], ["2", "%"]),
]

FILES = {"PubTabNet_2.0.0.jsonl": "".join(json.dumps(question) + "\n" for question in QUESTIONS)}
REPOSITORY = "github.com/ibm-aur-nlp/PubTabNet"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    from rapidfuzz.distance import Levenshtein

    sys.modules["distance"] = module = ModuleType("distance")
    vars(module)["levenshtein"] = Levenshtein.distance
    sys.path.insert(0, str(checkout / "src"))
    teds = import_module("metric").TEDS()
    number = 0
    while number < REPLIES:
        inner = table(rng)
        truth = f"<html><table>{inner}</table>"
        reply = rng.choice([framed, framed, framed, misplaced])(
            changed(inner, rng) if rng.random() < 0.8 else inner, rng
        )
        try:
            score = float(teds.evaluate(reply, truth))
        except ZeroDivisionError:  # two tables without anything
            continue
        number += 1
        yield {"truth": truth, "meta": {}, "reply": reply}, round(score, 9)


def table(rng: random.Random) -> str:
    """A table of a few cells. HTML lets end tags be left out, which keeps the file small."""
    rows, columns = rng.choice([(1, 1), (1, 2), (2, 2), (2, 1), (3, 1), (1, 3)])
    texts = ("a", "ab", "12.5", "12.4", "<b>x</b>", "x<sup>2</sup>", "", "p&lt;1", "é", "two words")
    spans = ("", "", "", "", ' colspan="2"', " rowspan=2")
    cells = [[f"<td{rng.choice(spans)}>{rng.choice(texts)}" for _ in range(columns)] for _ in range(rows)]
    lines = ["<tr>" + "".join(row) for row in cells]
    if rng.random() < 0.3:
        return f"<thead>{lines[0]}<tbody>{''.join(lines[1:])}"
    return "".join(lines)


def changed(inner: str, rng: random.Random) -> str:
    """Other texts, cells, rows, spans, sections, tags; rarely nothing alike."""
    changes = (
        *[("12.5", "12.4"), ("a", "b"), ("<b>", "<i>"), ("<td>", "<th>"), ("<tr>", "<tr><td>"), ("<td>", "<td><br>")],
        *[("<thead>", ""), ("<tr>", ""), ("<td", "<tr><td"), (' colspan="2"', ""), ("<td>", '<td colspan="3">')],
        *[("<td>", "<TD>"), ("<td>", "<td><b></b><b></b>"), ("<tr>", "<caption>c</caption><tr>"), ("x", "<!-- -->x")],
    )
    old, new = rng.choice([change for change in changes if change[0] in inner])
    return table(rng) if rng.random() < 0.1 else inner.replace(old, new, rng.choice([1, 9]))


def framed(inner: str, rng: random.Random) -> str:
    """A document."""
    before = rng.choice(["<html>", "<html>", "<html><body>", "<!DOCTYPE html>", " <HTML>", "<html><head></head>"])
    return f"{before}<table>{inner}</table>{rng.choice(['', '</html>', ' that is it', '<table></table>'])}"


def misplaced(inner: str, rng: random.Random) -> str:
    """No document, or one whose body has no table of its own."""
    whole = f"<html><table>{inner}</table>"
    return rng.choice(
        [
            *(f"<table>{inner}</table>", f"<body><table>{inner}</table>", f"```html\n{whole}\n```", f"It is {whole}"),
            *(f"<answer>{whole}</answer>", f"<html><div><table>{inner}</table></div>", f"<!-- -->{whole}", inner),
            *(f"<head><title>t</title></head><table>{inner}</table>", f"<style></style><table>{inner}</table>"),
            *("", "none", "<html>", "<table>", f"<html><p>so</p><table>{inner}</table>", "<html><table></table>"),
        ]
    )
