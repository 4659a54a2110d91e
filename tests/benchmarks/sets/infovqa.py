"""InfographicVQA: a few questions in the form of its official files; its official script is that of DocVQA."""

from __future__ import annotations

import json

from tests.benchmarks.sets.docvqa import HEAD, REPOSITORY, gold, scored_officially

QUESTIONS = [
    {
        "questionId": 98313 + i,
        "question": "Which social platform has heavy female audience?",
        "image_local_name": f"{37313 + i // 2}.jpeg",
        "image_url": "https://example.com/infographic.jpg",
        "ocr_output_file": f"{37313 + i // 2}.json",
        "answers": answers,
        "data_split": "val",
        "answer_type": [kind],
        "evidence": ["text"],
        "operation/reasoning": operations,
    }
    for i, (answers, kind, operations) in enumerate(
        [
            (["pinterest"], "single span", []),
            (["facebook, twitter", "twitter, facebook"], "multi-span", []),
            (["60%"], "non-extractive", ["arithmetic"]),
        ]
    )
]

FILES = {"infographicsVQA_val_v1.0_withQT.json": json.dumps({**HEAD, "data": QUESTIONS})}

__all__ = ["FILES", "REPOSITORY", "gold", "scored_officially"]
