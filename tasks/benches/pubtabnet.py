"""PubTabNet: tables from scientific articles as HTML, 9,115 pictures of the validation split (arXiv 1911.10683)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpost.benchmarks.benchmark import Benchmark, Metric, Numbers, Rule, Scored
from mmpost.benchmarks.files import medium, rows
from mmpost.benchmarks.summaries import ratio
from mmpost.data.formats.tables import table_annotation
from mmpost.errors import DataError
from mmpost.rewards.table import pubtabnet_scores, strict_scores
from mmpost.types import Part, Sample

SPLIT = "val"
"""The truth of the test split is not released."""
INSTRUCTION = (
    "Convert the table in the image to HTML: <html><body><table> with <thead> and <tbody>, <td> for all cells, rowspan "
    "and colspan. Reply with the HTML only."
)

_SPANS = re.compile(r"<td[^<>]*span=")


def questions(paths: Sequence[Path]) -> list[Sample]:
    """Rows {"filename", "split", "html": {"structure", "cells"}} of the split val; pictures are in val/."""
    samples = []
    for row in rows(paths[0]):
        if row.text("split") != SPLIT:
            continue
        name = row.text("filename")
        try:
            truth = table_annotation(row.content).html
        except DataError as e:
            raise DataError(f"{row.where}: {e}") from e
        picture = medium(paths[0].parent, (f"{SPLIT}/{name}", name), "image")
        prompt = (Part("image", picture), Part("text", INSTRUCTION))
        meta = {"kind": "complex" if _SPANS.search(truth) else "simple"}
        samples.append(Sample(name, prompt, truth=truth, meta=meta, where=row.where))
    if not samples:
        raise DataError(f"{paths[0]}: wanted rows whose split is {SPLIT}, found none; use the official file")
    return samples


class Similarity:
    """The means of TEDS and S-TEDS, of all tables, and of simple and complex ones: those with cells that span others.

    Readings are `TableScores`, or None for replies without a table, which score 0.
    """

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        sums: dict[str, float] = {}
        for sample, _, reading, score in cluster:
            for group in ("", f"/{sample.meta['kind']}"):
                for name, value in (("teds", score), ("s_teds", reading.s_teds if reading else 0.0), ("n", 1)):
                    sums[name + group] = sums.get(name + group, 0.0) + value
        return sums

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        groups = [group for group in ("", "/simple", "/complex") if f"n{group}" in sums]
        return {
            name + group: Metric(ratio(sums[name + group], sums[f"n{group}"]), sums[f"n{group}"])
            for name in ("teds", "s_teds")
            for group in groups
        }


BENCHMARK = Benchmark(
    files=("PubTabNet_2.0.0.jsonl",),
    rows=questions,
    official=Rule(pubtabnet_scores, lambda sample, scores: scores.teds),
    strict=Rule(strict_scores, lambda sample, scores: scores.teds if scores else 0.0),
    summary=Similarity(),
    paper="1911.10683",
    license="CDLA-Permissive-1.0; pictures of PubMed Central",
    source=(
        "the hub's ajimeno/PubTabNet, or what https://github.com/ibm-aur-nlp/PubTabNet names; pictures in val/. "
        "Predictions as the script reads them, a JSON object {filename: HTML}, or rows with `id=filename`"
    ),
    reading="the whole reply, which must be an HTML document",
    metrics="mean TEDS and S-TEDS, of all tables, of simple and of complex ones (with cells that span others)",
    max_tokens=4096,
    quirks=(
        "only a whole HTML document counts: a table alone, in a fence of Markdown or after a word scores 0",
        "a header cell, th, is no td: its text does not count, and it differs from one",
        "empty tags in the cells of a wrong reply make the table larger and so the score higher",
        "tables that share nothing may score below 0",
    ),
)
