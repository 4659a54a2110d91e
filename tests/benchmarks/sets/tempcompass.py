"""TempCompass: a few questions in the form of its official files, a right reply to them, and its official scripts."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from mmpost.types import Sample
from tests.benchmarks.replies import REPLIES, Row, functions, texts

CHOICE = {"question": "What does he do?\nA. running\nB. jumping\nC.Both at once", "answer": "B. jumping"}
ASKED = {"question": "Does he jump?", "answer": "yes"}
MATCHING = {
    "question": "Which caption matches the video better?\nCaption A: He jumps.\nCaption B: He runs.",
    "answer": "Caption A: He jumps.",
}
ASPECTS = {"action": {"type": "coarse-grained action"}, "order": {"first": "he jumps"}}
FILES = {
    "multi-choice.json": json.dumps({"17": {"action": [CHOICE, CHOICE]}}),
    "yes_no.json": json.dumps({"17": {"action": [ASKED], "order": [ASKED | {"answer": "no"}]}}),
    "caption_matching.json": json.dumps({"17": {"order": [MATCHING]}}),
    "meta_info.json": json.dumps({"17": {"eval_dim": ASPECTS}}),
}
REPOSITORY = "github.com/llyx97/TempCompass"


def gold(sample: Sample) -> str:
    return str(sample.truth)


def scored_officially(checkout: Path, rng: random.Random) -> Iterator[tuple[Row, float]]:
    rules = {"multi-choice": [], "yes_no": ["extract_pred"], "caption_matching": ["eval_rule"]}
    for task, names in rules.items():
        file = checkout / f"eval_{task}.py"
        open_quietly = {"print_result": lambda results: None, "tqdm": iter, "json": json, "os": os}
        *_, main = functions(file, [*names, "main"], **open_quietly)
        videos = json.loads((checkout / "questions" / f"{task}.json").read_text(encoding="utf-8")).values()
        questions = [q for aspects in videos for asked in aspects.values() for q in asked]
        asked = [rng.choice(questions) for _ in range(REPLIES // 3 + 1)]
        rows = [q | {"prediction": written(task, q, rng)} for q in asked]
        replies, results = [row["prediction"] for row in rows], {}
        main({"v": {"action": rows}}, results, os.devnull, True)
        for row, reply, result in zip(rows, replies, results["v"]["action"], strict=True):
            meta = {"task": task}
            if task == "caption_matching":
                meta["options"] = row["question"].split("\n")[1:]
            yield {"truth": row["answer"], "meta": meta, "reply": reply}, float(result["rating"])


def written(task: str, question: Row, rng: random.Random) -> str:
    """A reply: an option, its label, its letter or its text, right or wrong, in some form."""
    answer = question["answer"]
    if task == "yes_no":
        reply = texts(rng.choice([answer, answer.title()]), ["Nothing", "Now", "yesterday", "no, yes"], rng)
        return reply + rng.choice(["", "", "</s>", " </s>\n"])
    options = question["question"].split("\n")[1:]
    mark = ". " if task == "multi-choice" else ": "
    said = rng.choice([answer, rng.choice(options)])
    label, _, caption = said.partition(mark)
    letter = label.split()[-1] if label.split() else "A"
    forms = [
        *(
            said,
            label,
            letter,
            f"{letter}.",
            f"{label}.",
            f"{letter})",
            f"{letter}) {caption}",
            f"({letter}) {caption}",
        ),
        *(
            caption,
            f"{letter}: {caption}",
            f"{letter}. {options[0]}",
            f"Option {letter}",
            f"Caption {letter}",
            f"{letter}",
        ),
        *(
            f"{label}: ",
            f"{said}</s>",
            f" {said} ",
            f"{label}) {caption}",
            said.lower(),
            f"{letter}){caption}",
            f"{letter}x",
        ),
        texts(rng.choice([said, letter]), options, rng),
    ]
    return rng.choice(forms)
