"""MMMB: a few questions in the form of its official files, a right reply to them, and its official script."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpost.tasks.benches.mmmb import LANGUAGES
from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row
from tests.benchmarks.sets.mmbench import PICTURE, made_up, official_code, tsv


def _row(index: int, answer: str, **cells: str) -> Mapping[str, Any]:
    return {"index": index, "question": "?", **cells, "answer": answer, "category": "ocr", "image": PICTURE}


QUESTIONS = [_row(0, "A", A="да", B="нет"), _row(1, "B", A="一只狗", B="一只猫"), _row(2, "B", A="evet", B="İstanbul")]

FILES = {f"mmmb_{language}.tsv": tsv(QUESTIONS) for language in LANGUAGES}
REPOSITORY = "github.com/open-compass/VLMEvalKit"
WORDS = [
    *(
        "一只猫",
        "一只",
        "狗",
        "да",
        "нет",
        "Москва",
        "IŞIK",
        "İstanbul",
        "قطة",
        "كلب",
        "não",
        "maçã",
        "maçã verde",
        "3",
    ),
]
FORMS = (
    *("答案是{}", "Ответ: {}", "The answer is {}", "Cevap {} 。", "{}。", "الجواب {}", "{}、不是{}", "É {}, não {}"),
    "{}\uff0c{}",
)


def gold(sample: Sample) -> str:
    return f"{sample.truth}. {sample.meta['options']['AB'.index(sample.truth)]}"


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    rows, table = [], []
    for index in range(REPLIES):
        options, truth, reply = made_up(rng, WORDS, FORMS)
        cells = dict.fromkeys("ABCD", "") | dict(zip("ABCD", options, strict=False))
        table.append({"index": index, "question": "?", **cells, "GT": truth, "prediction": reply})
        rows.append({"truth": truth, "meta": {"options": options}, "reply": reply})
    for row, hit in zip(rows, official_code(checkout)(table), strict=True):
        yield row, float(hit)
