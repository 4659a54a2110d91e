"""The rule-based judge: every error type, the GREEN formula, and reports without a score."""

from __future__ import annotations

import time

import pytest

from mmpost.errors import DataError
from mmpost.judges.base import Pair, clean_text, length_controlled, rel_verbosity
from mmpost.judges.radiology.green import green_score
from mmpost.judges.radiology.rules import ERROR_TYPES, RuleJudge
from mmpost.types import Part, Reply, Sample

NORMAL = "The heart is normal in size. The lungs are clear. No effusion or pneumothorax."
ABNORMAL = "Moderate right pleural effusion. Mild cardiomegaly. Left lower lobe atelectasis."


@pytest.mark.parametrize(
    ("reference", "candidate", "score", "counts"),
    [
        (ABNORMAL, ABNORMAL, 1.0, {"matched": 3}),
        (NORMAL, NORMAL, 1.0, {"matched": 1}),
        (NORMAL, "No acute disease.", 1.0, {"matched": 1}),
        (NORMAL, ABNORMAL, 0.0, {"false": 3}),
        (ABNORMAL, NORMAL, 0.0, {"missing": 3}),
        (ABNORMAL, "", 0.0, {"missing": 3}),
        (NORMAL, "", 0.0, {}),
        (
            ABNORMAL,
            "Moderate left pleural effusion. Mild cardiomegaly. Left atelectasis.",
            2 / 3,
            {"matched": 2, "location": 1},
        ),
        (ABNORMAL, ABNORMAL.replace("Left lower", "Left upper"), 2 / 3, {"matched": 2, "location": 1}),
        (ABNORMAL, ABNORMAL.replace("Moderate", "Large"), 2 / 3, {"matched": 2, "severity": 1}),
        (ABNORMAL, ABNORMAL.replace("Moderate", "Small to moderate"), 1.0, {"matched": 3}),
        (ABNORMAL, ABNORMAL + " Fracture.", 0.75, {"matched": 3, "false": 1}),
        (ABNORMAL, "Effusion. Cardiomegaly. Atelectasis.", 1.0, {"matched": 3}),
        (ABNORMAL, ABNORMAL.replace("Left lower", "Possible left lower"), 1.0, {"matched": 3, "certainty": 1}),
        ("Bilateral effusions.", "Right effusion.", 0.0, {"location": 1}),
    ],
)
def test_each_error_type(reference: str, candidate: str, score: float, counts: dict[str, int]) -> None:
    (verdict,) = RuleJudge().judge([(reference, candidate)])
    assert verdict.score == pytest.approx(score)
    assert {name: n for name, n in verdict.counts.items() if n} == counts
    assert set(verdict.counts) == {"matched", "certainty", *ERROR_TYPES}


def test_a_reference_without_findings_has_no_score() -> None:
    (verdict,) = RuleJudge().judge([("Comparison is made with last year.", NORMAL)])
    assert (verdict.score, verdict.problem) == (None, "inapplicable")


def test_longer_reports_score_no_higher_unless_negations_count() -> None:
    with_negations = NORMAL + " No fracture. No mass. No edema. No pneumonia."
    plain, counting = RuleJudge(), RuleJudge(absences=True)
    assert plain.judge([(NORMAL, with_negations)])[0].counts == plain.judge([(NORMAL, NORMAL)])[0].counts
    matches_of_normal, matches_of_negations = (
        counting.judge([(with_negations, text)])[0].counts["matched"] for text in (NORMAL, with_negations)
    )
    assert matches_of_normal < matches_of_negations


def test_length_control() -> None:
    judge = RuleJudge(length_control=True)
    long = f"{ABNORMAL} {'The patient stood upright. ' * 3}"
    assert judge.judge([(ABNORMAL, ABNORMAL)])[0].score == 1.0
    assert judge.judge([(ABNORMAL, long)])[0].score == pytest.approx(len(ABNORMAL.split()) / len(long.split()))


def test_green_formula_and_length_control_by_hand() -> None:
    assert green_score(3, 2) == pytest.approx(0.6)
    assert green_score(0, 0) == green_score(0, 4) == 0.0
    two, three, four, five = (" ".join(["a"] * n) for n in (2, 3, 4, 5))
    assert rel_verbosity(two, three) == 1.5
    assert length_controlled(0.6, Pair(two, three)) == pytest.approx(0.4)
    assert length_controlled(0.6, Pair(five, four)) == pytest.approx(0.6)
    with pytest.raises(DataError, match="reference with words"):
        rel_verbosity(" ", "a")


def test_texts_are_cleaned_as_in_the_released_code() -> None:
    assert clean_text("**Findings**: Small [REDACTED 1]\n effusion ") == "findings: small effusion"
    with_marks = ABNORMAL.replace("Mild", "**MILD** [no]")
    assert RuleJudge().judge([(ABNORMAL, with_marks)])[0].score == 1.0
    assert RuleJudge(clean=False).judge([(ABNORMAL, with_marks)])[0].score != 1.0


@pytest.mark.parametrize(
    ("reference", "candidate", "score"),
    [
        ("Cardiomegaly.", "- No pleural effusion\n- No pneumothorax\n- Cardiomegaly", 1.0),
        ("No pleural effusion\nLarge pneumothorax", "Large pneumothorax.", 1.0),
        ("Cardiomegaly.\n\nno effusion\n\nlarge pneumothorax", "Cardiomegaly. Large pneumothorax.", 1.0),
        ("There is no\nevidence of effusion. Cardiomegaly.", "Cardiomegaly.", 1.0),
    ],
)
def test_lines_end_sentences_unless_text_is_only_wrapped(reference: str, candidate: str, score: float) -> None:
    assert RuleJudge().judge([(reference, candidate)])[0].score == score


def test_the_judge_as_a_reward() -> None:
    sample = Sample("a", (Part("text", "?"),), truth=ABNORMAL)
    assert RuleJudge()(sample, Reply((Part("text", ABNORMAL),))) == 1.0
    with pytest.raises(DataError, match="sample 'a': RuleJudge wants a reference text"):
        RuleJudge()(Sample("a", (), truth={"x": 1}), Reply((Part("text", ABNORMAL),)))


@pytest.mark.slow
def test_a_thousand_pairs_take_less_than_a_second() -> None:
    pairs = [(f"{ABNORMAL} Nodule of {n} mm.", f"{NORMAL} Nodule of {n + 1} mm.") for n in range(1000)]
    start = time.process_time()
    RuleJudge().judge(pairs)
    assert time.process_time() - start < 1.0
