"""TableVQA-Bench: 1,500 questions about pictures of tables, from three earlier sets (arXiv 2404.19205)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, HubFiles, Rule
from mmpost.benchmarks.files import picture, rows
from mmpost.benchmarks.predictions import id_of_split
from mmpost.benchmarks.summaries import Mean
from mmpost.errors import DataError
from mmpost.rewards.options import answer_span
from mmpost.rewards.table_answers import official_score, strict_score
from mmpost.types import Part, Sample

PARTS = {
    "vwtq": "764eb826ab450a91",
    "vwtq_syn": "2daaa7285aca2c1d",
    "vtabfact": "ecd1dbae37761ddd",
    "fintabnetqa": "c337fe9eb7a70460",
}
"""The parts, with what their files are called by; vwtq_syn shows tables of vwtq in other pictures."""
PHRASE = "Answer the question using a single word or phrase."
INSTRUCTIONS = {
    "vwtq": f"{PHRASE} Separate several answers with ||.",
    "vwtq_syn": f"{PHRASE} Separate several answers with ||.",
    "vtabfact": "Is the statement true or false according to the table? Answer with true or false only.",
    "fintabnetqa": f"{PHRASE} Give the unit where it is known, such as $, % or million.",
}


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"qa_id", "question", "gt", "image"} of all parts; ids are PART/QA_ID, since two parts share theirs."""
    samples = []
    for part, path in zip(PARTS, paths, strict=True):
        for row in rows(path):
            qa_id, truth = row.text("qa_id"), str(row.content.get("gt"))
            if part == "vtabfact" and truth not in ("0", "1"):
                raise DataError(f"{row.where}: wanted 0 or 1 in 'gt', found {truth!r:.80}; use the official file")
            text = f"{row.text('question')}\n{INSTRUCTIONS[part]}"
            prompt = (Part("image", picture(row, "image")), Part("text", text))
            meta = {"part": part, "table": qa_id.rpartition("_")[0] or qa_id, "groups": [part]}
            samples.append(Sample(f"{part}/{qa_id}", prompt, truth=truth, meta=meta, where=row.where))
    return samples


BENCHMARK = Benchmark(
    files=tuple(f"data/{part}-00000-of-00001-{name}.parquet" for part, name in PARTS.items()),
    rows=questions,
    official=Rule(lambda sample, text: text, official_score),
    strict=Rule(lambda sample, text: answer_span(text) or None, strict_score),
    summary=Mean(),
    paper="2404.19205",
    license="CC BY 4.0",
    source="the hub's terryoo/TableVQA-Bench",
    reading="the whole reply",
    metrics="accuracy, by part",
    hub=HubFiles("terryoo/TableVQA-Bench", revision="17e291af2b1cbc9340509a0412a6f1c05b0a76b5"),
    uid_in=lambda path, uid: id_of_split(path, uid, tuple(PARTS)),
    max_tokens=128,
    cluster=lambda sample: sample.meta["table"],
    quirks=(
        "in fintabnetqa scales do not count: 12 thousand answers 12 million",
        "in vtabfact true and false count wherever they occur: untrue answers true",
        "in vwtq 1,000 does not answer 1000, and details in parentheses at the end do not count",
        "in vwtq a number just below an integer is cut off: 2.9999999 answers 2",
    ),
)
