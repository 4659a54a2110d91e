"""The GREEN prompt and its parsers, ours and the released one, on well-formed and malformed answers."""

from __future__ import annotations

import pytest

from mmpost.judges.base import Pair
from mmpost.judges.radiology.green import CATEGORIES, SECTIONS, Green, split_sections
from tests.judges.chat_server import GOOD

HEAD = "[Explanation]:\nx\n\n"
LINES = "\n".join(f"({x}) {name}: 0." for x, name in zip("abcdef", CATEGORIES, strict=True))


def green_answer(significant: str, matched: str, insignificant: str = LINES) -> str:
    return (
        f"{HEAD}[Clinically Significant Errors]:\n{significant}\n\n"
        f"[Clinically Insignificant Errors]:\n{insignificant}\n\n[Matched Findings]:\n{matched}\n"
    )


WELL_FORMED = [
    (GOOD, 0.6),
    (green_answer(LINES, "2. a; b"), 1.0),
    (green_answer(LINES, "0."), 0.0),
    (green_answer("No clinically significant errors.", "3. a; b; c"), 1.0),
    (green_answer(LINES, "No matched findings."), 0.0),
    (green_answer("(b) Missing a finding present in the reference: 2. a; b", "2. c; d"), 0.5),
    (green_answer("(a) False report of a finding in the candidate: 12. many", "4. a; b; c; d"), 0.25),
    (green_answer("(1) False report of a finding in the candidate: 1. a\n(4) Misassessment: 2. b; c", "1. d"), 0.25),
    (green_answer(LINES, "2. a; b", "(a) False report of a finding in the candidate: 9. all"), 1.0),
]
"""Answers on which both parsers agree."""

LENIENT = [
    (GOOD.replace("]:", "]: "), 0.6),
    (GOOD.replace("\n", "\r\n"), 0.6),
    (GOOD.replace("[", "**[").replace("]:", "]:**"), 0.6),
    (GOOD.replace("Errors]:\n", "Errors]:\n\n"), 0.6),
    (green_answer("None.", "1. a"), 1.0),
    (green_answer("(a) False report of a finding in the candidate: 1", "1"), 0.5),
    (green_answer("(a) False report of a finding in the candidate: None\n(b) Missing a finding: 1. x", "1. a"), 0.5),
    (
        green_answer(
            "(a) False report of a finding in the candidate: 2", "1. clear lungs\n2. normal heart\n3. no effusion"
        ),
        0.6,
    ),
    (green_answer("None of the findings is false.", "3. a; b; c"), 1.0),
    ("Here it is.\n" + GOOD + "\nI hope that this helps.", 0.6),
]
"""Answers with irrelevant differences in format: spaces, bold, Windows line endings."""

MALFORMED = [
    "",
    "The reports agree well.",
    "0.6",
    HEAD,
    GOOD.partition("[Matched")[0],
    GOOD.replace("Significant", "Important"),
    GOOD.replace("[Matched Findings]", "[Agreement]"),
    GOOD.replace("3. no pneumothorax", "no pneumothorax"),
    GOOD.replace("3. no pneumothorax", "three. no pneumothorax"),
    GOOD.replace("candidate: 1. nodule", "candidate: one. nodule"),
    GOOD.replace("candidate: 1. nodule", "candidate: nodule"),
    GOOD.replace("(b) Missing", "(a) Missing"),
    GOOD.replace("(b) Missing", "b) Missing"),
    GOOD.replace("(b) Missing", "Also: missing"),
    green_answer("", "3. a; b; c"),
    green_answer("There are some errors.", "3. a; b; c"),
    green_answer("Normal heart was missed.", "3. a; b; c"),
    green_answer("No false report errors.\n(b) Missing a finding present in the reference: 2. a; b", "2. c; d"),
    green_answer("None is false, but 2 are missing.", "2. c; d"),
    green_answer(LINES, "No matches in the heart; 3. a; b; c"),
    green_answer(LINES, "3. a\n1. b\n2. c"),
    green_answer(LINES, ""),
    green_answer(LINES, "-1. a"),
    green_answer(LINES, "Nodule; effusion"),
    green_answer("(g) Other: 3. a", "1. a"),
    GOOD[: GOOD.index("(d)")],
    "{" + '"score": 0.6}',
    "[[[[]]]]:::((a)",
    "\x00" * 50,
    "[Matched Findings]:\n99999. a",
]


@pytest.mark.parametrize("text", [text for text, _ in WELL_FORMED])
def test_well_formed_answers_parse_as_with_the_released_parser(text: str) -> None:
    expected = dict(WELL_FORMED)[text]
    for variant in ("ours", "released"):
        verdict = Green(variant=variant).parse(text)
        assert verdict.score == pytest.approx(expected), variant
    assert Green().parse(text).counts == Green(variant="released").parse(text).counts


@pytest.mark.parametrize("number", range(len(LENIENT)))
def test_equivalent_formats_are_parsed(number: int) -> None:
    text, expected = LENIENT[number]
    assert Green().parse(text).score == pytest.approx(expected)


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_an_ambiguous_count_has_no_score(number: int) -> None:
    verdict = Green().parse(MALFORMED[number])
    assert (verdict.score, verdict.problem, verdict.raw_reply) == (None, "unparseable", MALFORMED[number])
    assert Green(variant="released").parse(MALFORMED[number]).score is not None


def test_the_released_parser_counts_unparseable_sections_as_zero() -> None:
    parse = Green(variant="released").parse
    assert parse("The reports agree well.").score == 0.0
    assert parse(GOOD.partition("[Matched")[0]).score == 0.0
    assert parse(GOOD.replace("candidate: 1. nodule", "candidate: one. nodule")).score == pytest.approx(0.75)
    assert parse(green_answer("Normal heart was missed.", "3. a; b; c")).score == 1.0
    assert parse(green_answer("(a) X: 1. a\n(a) X: 5. b", "5. c")).score == 0.5


def test_the_counts_of_the_published_example() -> None:
    counts = Green().parse(GOOD).counts
    assert {name: n for name, n in counts.items() if n} == {
        **{"significant/a": 1, "significant/d": 1, "insignificant/a": 4, "matched": 3}
    }


def test_the_prompt_has_both_reports_truncated_to_300_words() -> None:
    (message,) = Green().messages(Pair("one " * 400, "**Two** [x] " * 400))
    assert message["role"] == "user"
    text = message["content"]
    assert "\n" + "one " * 299 + "one\n" in text
    assert "two " * 299 + "two\n" in text
    assert "two " * 300 not in text
    for name in (*CATEGORIES, *(f"[{section}]:" for section in SECTIONS)):
        assert name in text
    assert "**Two** [x]" in Green(clean=False).messages(Pair("a", "**Two** [x]"))[0]["content"]


def test_braces_in_a_report_are_literal() -> None:
    assert "{candidate} {0}" in Green().messages(Pair("a", "{candidate} {0}"))[0]["content"]


def test_sections_are_found_by_their_headers() -> None:
    assert split_sections("x [Explanation]: y") == {}
    assert split_sections("[explanation]: a\n\nb\n## [Matched Findings]:\n2. c") == {
        "Explanation": "a\n\nb",
        "Matched Findings": "2. c",
    }
