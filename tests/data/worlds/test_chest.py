"""Synthetic chest radiographs: findings appear on their side, and reports and questions match them."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from mmpost.data.worlds.chest.drawing import render_xray
from mmpost.data.worlds.chest.questions import QUESTION_TYPES, Questions
from mmpost.data.worlds.chest.reports import BOTH, FINDINGS, report
from mmpost.data.worlds.chest.studies import Finding, SyntheticStudies
from mmpost.errors import ConfigError
from mmpost.models.builtin.chest import PIECES, WORDS
from mmpost.models.builtin.qwen_vl import tiny_tokenizer


def pixels(*findings: Finding, seed: int = 0) -> np.ndarray:
    """The radiograph in [0, 1], with the pose and exposure of `seed`."""
    return np.asarray(render_xray(findings, "PA", 84, random.Random(seed)), float) / 255


@pytest.mark.parametrize(
    "finding",
    [
        Finding("pleural effusion", "right", severity="small"),
        Finding("pneumothorax", "left", severity="small"),
        Finding("consolidation", "left", "upper"),
        Finding("nodule", "right", "lower"),
        Finding("atelectasis", "right"),
        Finding("fracture", "left"),
        Finding("pacemaker", "left"),
        Finding("central line", "right"),
    ],
)
def test_a_finding_is_drawn_on_its_side(finding: Finding) -> None:
    # Pose, exposure and grain average out.
    change = np.mean([pixels(finding, seed=i) - pixels(seed=i) for i in range(24)], axis=0)
    right, left = (np.abs(change[20:60, part]).mean() for part in (slice(6, 40), slice(44, 78)))
    assert (right > left) == (finding.side == "right" and finding.name != "pacemaker")


def test_brightness_increases_with_severity() -> None:
    white = [np.mean([pixels(Finding("pleural effusion", "right", severity=s), seed=i) for i in range(3)])
             for s in ("small", "moderate", "large")]  # fmt: skip
    assert white[0] < white[1] < white[2]
    hearts = [np.mean([pixels(Finding("cardiomegaly", severity=s), seed=i)[45:60] for i in range(3)])
              for s in ("mild", "moderate", "severe")]  # fmt: skip
    assert hearts[0] < hearts[1] < hearts[2]


def test_reports_mention_every_finding_and_negate_none() -> None:
    for study in (SyntheticStudies(n=300).study(i) for i in range(300)):
        for finding in study.findings:
            templates = BOTH if finding.side == "bilateral" else FINDINGS
            zone = {"middle": "mid"}.get(finding.zone, finding.zone)
            phrases = [
                w.format(severity=finding.severity, side=finding.side, zone=zone) for w in templates[finding.name]
            ]
            assert any(s.casefold() in study.report.casefold() for s in phrases), study
            assert f"no {finding.name}" not in study.report.casefold()
            assert f"or {finding.name}" not in study.report.casefold()
        if any(f.name == "cardiomegaly" for f in study.findings):
            assert "normal in size" not in study.report
            assert "normal limits" not in study.report


def test_reports_differ_in_wording_order_and_length() -> None:
    texts = [report((Finding("nodule", "left", "upper"),), random.Random(i)) for i in range(40)]
    assert len(set(texts)) > 30
    assert len({text.split(".")[0] for text in texts}) > 5
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 12 < 25 < max(lengths)


def test_studies_have_the_requested_findings() -> None:
    studies, regenerated = SyntheticStudies("train", 5, seed=3), SyntheticStudies("train", 5, seed=3)
    assert studies[2].truth == regenerated[2].truth
    assert studies[2].prompt[0].value == regenerated[2].prompt[0].value
    assert studies[2] is studies[2]
    assert studies[2].prompt[0].value != SyntheticStudies("test", 5, seed=3)[2].prompt[0].value
    assert 0.25 < np.mean([not SyntheticStudies(n=200).study(i).findings for i in range(200)]) < 0.55
    with pytest.raises(ConfigError, match="split must be"):
        SyntheticStudies("dev")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 56 pixels"):
        SyntheticStudies(size=28)


def test_questions_have_exactly_one_correct_option() -> None:
    questions = Questions("train", n=80)
    type_counts = Counter(s.meta["kind"] for s in questions)
    assert type_counts == dict.fromkeys(QUESTION_TYPES, 20)
    for sample in questions:
        assert sample.truth in sample.meta["choices"]
        assert f"Options: {', '.join(sample.meta['choices'])}." in sample.prompt[1].value
    presence = Counter(s.truth for s in Questions("train", ("presence",), n=60))
    assert set(presence) == {"yes", "no"}
    with pytest.raises(ConfigError, match="question_types must be"):
        Questions(question_types=("colour",))


def test_reports_have_few_tokens() -> None:
    tokenizer = tiny_tokenizer(WORDS, PIECES)
    studies = [SyntheticStudies(n=500).study(i) for i in range(500)]
    lengths = [len(tokenizer.encode(study.report)) for study in studies]
    assert max(lengths) <= 60
    assert np.mean(lengths) < 25
    tokens = [t for s in studies for t in tokenizer.convert_ids_to_tokens(tokenizer.encode(s.report))]
    assert sum(len(t) == 1 and t != "." for t in tokens) < 0.03 * len(tokens)
