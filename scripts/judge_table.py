"""Evaluates the rule-based judge and its labeler on Open-i reports: python scripts/judge_table.py NLMCXR_reports.tgz

Prints the tables of docs/judges.md: the judge's scores of each report against itself, itself with sentences shuffled or
negated, and another patient's report; and the labels against the MeSH terms of the same reports, for the half that the
vocabulary was developed on (even numbers) and for the held-out half (odd numbers).
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from mmpost.data.formats.chest.open_i import Report, reports
from mmpost.judges.radiology.findings import chexbert_labels
from mmpost.judges.radiology.mesh import UNINDEXED, mesh_classes
from mmpost.judges.radiology.metrics import rouge_l
from mmpost.judges.radiology.perturbations import negate_sentences, shuffle_sentences
from mmpost.judges.radiology.rules import RuleJudge
from mmpost.judges.radiology.vocabulary import CHEXBERT_CLASSES


def interval(values: Sequence[float]) -> str:
    """The mean and half the width of its 95 % confidence interval."""
    return f"{fmean(values):.3f} ± {1.96 * stdev(values) / len(values) ** 0.5:.3f}"


def agreement(texts: Sequence[str]) -> list[str]:
    """The judge's scores of perturbed reports and of other reports."""
    others = list(texts)
    random.Random(0).shuffle(others)
    versions = {
        "itself": list(texts),
        "itself, sentences shuffled": [shuffle_sentences(text, i) for i, text in enumerate(texts)],
        "itself, every sentence negated": [negate_sentences(text) for text in texts],
        "another patient's report": [
            b if a != b else c for a, b, c in zip(texts, others, others[1:] + others[:1], strict=True)
        ],
        "an empty report": [""] * len(texts),
    }
    rows = ["| reference report against | rule judge | with `absences` | ROUGE-L | n |", "|---|---|---|---|---|"]
    for name, candidates in versions.items():
        pairs = list(zip(texts, candidates, strict=True))
        plain, counting = (
            [v.score for v in RuleJudge(absences=absences).judge(pairs) if v.score is not None]
            for absences in (False, True)
        )
        words = [rouge_l(*pair) for pair in pairs]
        rows.append(f"| {name} | {interval(plain)} | {interval(counting)} | {interval(words)} | {len(plain)} |")
    return rows


def against_mesh(half: Sequence[Report]) -> list[str]:
    """Precision, recall and F1 of each class; the last column counts uncertain findings as absent."""
    counts = {name: [0, 0, 0, 0, 0] for name in CHEXBERT_CLASSES}
    for report in half:
        expected, labels = mesh_classes(report.mesh), chexbert_labels(report.text)
        sure = {name for name, status in labels.items() if status == "present"}
        likely = {name for name, status in labels.items() if status != "absent"}
        # A report whose findings are all uncertain has no certain finding.
        sure = sure if sure - {"Support Devices"} else sure | {"No Finding"}
        for name in CHEXBERT_CLASSES:
            true, predicted, certain = name in expected, name in likely, name in sure
            outcome = (
                true and predicted,
                predicted and not true,
                true and not predicted,
                true and certain,
                true != certain,
            )
            counts[name] = [n + hit for n, hit in zip(counts[name], outcome, strict=True)]
    rows = ["| class | reports | precision | recall | F1 | F1, certain only |", "|---|---|---|---|---|---|"]
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    for name, (tp, fp, fn, sure_tp, sure_wrong) in {**counts, "micro": total}.items():
        f1, sure_f1 = 2 * tp / (2 * tp + fp + fn), 2 * sure_tp / (2 * sure_tp + sure_wrong)
        rows.append(f"| {name} | {tp + fn} | {tp / (tp + fp):.3f} | {tp / (tp + fn):.3f} | {f1:.3f} | {sure_f1:.3f} |")
    return rows


def main(path: str) -> None:
    everything = [report for report in reports(Path(path)) if report.text]
    texts = [report.text for report in everything]
    print("\n".join(agreement(texts)))
    indexed = [report for report in everything if report.mesh and UNINDEXED not in report.mesh]
    for name, odd in (("tuned on (even numbers)", 0), ("held out (odd numbers)", 1)):
        half = [report for report in indexed if int(report.uid.removeprefix("CXR")) % 2 == odd]
        print(f"\n{name}: {len(half)} reports\n")
        print("\n".join(against_mesh(half)))
    start = time.process_time()
    RuleJudge().judge(list(zip(texts, texts[1:] + texts[:1], strict=True)))
    print(f"\n{len(texts) / (time.process_time() - start):.0f} pairs per second on one core, with cached sentences")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
