"""Perturbed reports, and scores of the rule-based judge on real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from mmpost.data.formats.chest.open_i import reports
from mmpost.judges.radiology.findings import chexbert_labels, split_sentences
from mmpost.judges.radiology.mesh import UNINDEXED, mesh_classes
from mmpost.judges.radiology.perturbations import negate_sentences, shuffle_sentences
from mmpost.judges.radiology.rules import RuleJudge


@pytest.mark.parametrize(
    ("text", "opposite"),
    [
        ("There is no pleural effusion.", "there is pleural effusion."),
        ("No evidence of pneumonia.", "evidence of pneumonia."),
        ("The heart is normal in size. The lungs are clear.", "the heart is enlarged. the lungs are opacified."),
        ("The lungs are clear of infiltrate.", "the lungs are full of infiltrate."),
        ("There is a small effusion.", "there is no small effusion."),
        ("The heart is mildly enlarged.", "the heart is not mildly enlarged."),
        ("Left basilar atelectasis.", "no left basilar atelectasis."),
    ],
)
def test_every_sentence_is_negated(text: str, opposite: str) -> None:
    assert negate_sentences(text) == opposite


def test_shuffling_keeps_the_sentences() -> None:
    text = "A effusion. B mass. C edema. D fracture."
    assert sorted(split_sentences(shuffle_sentences(text, 1))) == sorted(split_sentences(text))
    assert len({shuffle_sentences(text, seed) for seed in range(20)}) > 5


def test_mesh_terms_are_classes() -> None:
    assert mesh_classes(["normal"]) == mesh_classes([]) == {"No Finding"}
    assert mesh_classes(["Pleural Effusion/right/small", "Cardiac Shadow/enlarged"]) == {
        "Pleural Effusion",
        "Cardiomegaly",
    }
    assert mesh_classes(["Hydropneumothorax/left"]) == {"Pneumothorax", "Pleural Effusion"}
    assert mesh_classes(["Markings/bronchovascular", "Cicatrix/pleura/apex"]) == {"Pleural Other"}
    assert mesh_classes(["Catheters, Indwelling"]) == {"Support Devices", "No Finding"}
    assert mesh_classes(["Opacity/lung/round"]) == {"Lung Opacity", "Lung Lesion"}


def test_real_reports_match_themselves_and_not_their_negations(real: Callable[[str], list[Path]]) -> None:
    (archive,) = real("chest-reports/NLMCXR_reports.tgz")
    selected = [report for report in reports(archive) if report.text][1::8]
    texts = [report.text for report in selected]
    judge = RuleJudge()

    def mean_score(candidates: list[str]) -> float:
        verdicts = judge.judge(list(zip(texts, candidates, strict=True)))
        assert not any(verdict.problem for verdict in verdicts)
        return fmean(verdict.score or 0.0 for verdict in verdicts)

    assert mean_score(texts) == 1.0
    assert mean_score([shuffle_sentences(text, 0) for text in texts]) > 0.995
    assert mean_score([negate_sentences(text) for text in texts]) < 0.1
    assert mean_score(texts[1:] + texts[:1]) < 0.3


def test_labels_agree_with_the_mesh_annotations(real: Callable[[str], list[Path]]) -> None:
    (archive,) = real("chest-reports/NLMCXR_reports.tgz")
    held_out = [r for r in reports(archive) if int(r.uid.removeprefix("CXR")) % 2]
    matches = mismatches = 0
    for report in [r for r in held_out if r.text and r.mesh and UNINDEXED not in r.mesh][::4]:
        labels = {name for name, status in chexbert_labels(report.text).items() if status != "absent"}
        matches += len(labels & mesh_classes(report.mesh))
        mismatches += len(labels ^ mesh_classes(report.mesh))
    assert matches > 500
    assert 2 * matches / (2 * matches + mismatches) > 0.91
