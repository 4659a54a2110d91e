"""Rewards of tables, in HTML and OTSL."""

from __future__ import annotations

import pytest

from mmpost.errors import DataError
from mmpost.rewards import table
from mmpost.tables.convert import html_to_otsl
from mmpost.types import Reward
from tests.rewards.replies import reply, sample_with_truth, tagged_reply
from tests.tables.real_tables import real_tables

GOLD = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
OTSL = "<fcel>a<fcel>b<nl>\n<fcel>c<fcel>d<nl>\n"
SIMILARITIES = (table.teds, table.s_teds, table.official_teds, table.official_s_teds)


@pytest.mark.parametrize("truth", [GOLD, OTSL, {"html": GOLD}, {"otsl": OTSL}, f"<html><body>{GOLD}</body></html>"])
@pytest.mark.parametrize("text", [GOLD, OTSL, f"```html\n{GOLD}\n```", f"<div>{GOLD}</div>"])
def test_the_table_itself_earns_the_full_reward(truth: object, text: str) -> None:
    sample = sample_with_truth(truth)
    for similarity in SIMILARITIES:
        assert similarity(sample, reply(text)) == similarity(sample, tagged_reply(text)) == 1


PUBLISHED = [
    ("<fcel>a<fcel>b<nl><fcel>c<fcel>x<nl>", 1 - 1 / 6, 1),
    ("<fcel>a<fcel>b<nl>", 0.5, 0.5),
    ("<fcel>b<fcel>a<nl><fcel>c<fcel>d<nl>", 1 - 2 / 6, 1),
    ("<fcel>a<lcel><nl><fcel>c<fcel>d<nl>", 1 - 2 / 6, 1 - 2 / 6),
    ("", 0, 0),
    ("There is no table.", 0, 0),
    ("<table></table>", 0, 0),
    ("<table><tr><td>" + "x" * 200_000, 0, 0),
    ("<ecel>" * 6000, 0, 0),
]


@pytest.mark.parametrize(("text", "score", "structure"), PUBLISHED)
def test_published_values(text: str, score: float, structure: float) -> None:
    sample = sample_with_truth(GOLD)
    assert [f(sample, reply(text)) for f in SIMILARITIES] == pytest.approx([score, structure, score, structure])


def test_negative_scores_are_zero() -> None:
    column, row = "".join(f"<fcel>{c}<nl>" for c in "abcdef"), "".join(f"<fcel>{c}" for c in "uvwxyz") + "<nl>"
    sample = sample_with_truth(row)
    assert table.teds(sample, reply(column)) == 0
    assert table.s_teds(sample, reply(column)) == pytest.approx(5 / 12)


def test_only_the_official_definition_counts_heads_and_header_cells() -> None:
    sample = sample_with_truth("<table><thead><tr><th>h</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>")
    plain = reply("<fcel>h<nl><fcel>1<nl>")
    assert table.teds(sample, plain) == table.s_teds(sample, plain) == 1
    assert table.official_teds(sample, plain) == table.official_s_teds(sample, plain) == 0.5
    assert table.official_teds(sample, reply("<thead><ched>h<nl><tbody><fcel>1<nl>")) == 1


@pytest.mark.parametrize("truth", [None, 7, "A cat", "<table></table>", "", {"boxes": []}, {"html": "<table></table>"}])
@pytest.mark.parametrize("reward", SIMILARITIES)
def test_a_truth_without_a_table_has_no_score(truth: object, reward: Reward) -> None:
    assert reward(sample_with_truth(truth), reply(GOLD)) is None


@pytest.mark.parametrize("truth", ["<fcel>a<nl><fcel>b", {"otsl": "<lcel><nl>"}, "<table>" + "x" * 200_000])
def test_a_truth_that_cannot_be_read_is_an_error(truth: object) -> None:
    with pytest.raises(DataError, match=r"sample 's': wanted a table in HTML or valid OTSL as the truth; .*found"):
        table.teds(sample_with_truth(truth), reply(GOLD))


@pytest.mark.parametrize("text", [OTSL.removesuffix("<nl>\n"), "pre" + OTSL, GOLD.replace("</td>", "</b></td>")])
def test_strict_rewards_refuse_what_is_illegal(text: str) -> None:
    sample = sample_with_truth(GOLD)
    assert table.TableSimilarity()(sample, reply(text)) == 1
    assert table.TableSimilarity(strict=True)(sample, reply(text)) == 0
    assert (
        table.TableSimilarity(strict=True)(sample, reply(OTSL))
        == table.TableSimilarity(strict=True)(sample, reply(GOLD))
        == 1
    )


@pytest.mark.parametrize(
    ("text", "complete", "valid"),
    [
        (OTSL, 1, 1), (GOLD, 1, 0), (f"<html>{GOLD}</html> ", 1, 0), ("<fcel>a<nl><fcel>b", 0, 0), ("<lcel><nl>", 1, 0),
        ("<table><tr><td>a", 0, 0), ("", 0, 0), ("<thead><fcel>a<nl>", 1, 0), ("<ecel>" * 6000 + "<nl>", 1, 0),
        ("<fcel>a<lcel><nl><ucel><fcel>b<nl>", 1, 0),
    ],
)  # fmt: skip
def test_complete_and_valid_replies(text: str, complete: float, valid: float) -> None:
    sample = sample_with_truth(GOLD)
    for one in (reply(text), tagged_reply(text)):
        assert table.table_complete(sample, one) == complete
        assert table.otsl_valid(sample, one) == valid


def test_real_tables_in_plain_otsl_keep_their_structure() -> None:
    """Plain OTSL loses heads and inline tags: in normal form the structure is the same, and only b and i count."""
    for markup in real_tables():
        sample = sample_with_truth(markup)
        plain = reply(html_to_otsl(markup).text)
        extended = reply(html_to_otsl(markup, extension="otsl-html").text)
        assert [f(sample, extended) for f in SIMILARITIES] == [1, 1, 1, 1]
        score, structure = table.teds(sample, plain), table.s_teds(sample, plain)
        assert score is not None
        assert structure is not None
        assert 0.75 < score < 1
        # Inline elements count in the larger table's size but are no nodes: nothing is to be edited.
        assert structure == 1
        assert table.otsl_valid(sample, plain) == 1


def test_empty_tags_in_a_cell_do_not_raise_the_training_reward() -> None:
    sample = sample_with_truth(GOLD)
    one_cell = [reply(f"<table><tr><td>{'<u></u>' * n}</td></tr></table>") for n in (0, 10, 100)]
    plain, *inflated = (table.teds_lower_bound(sample, each) for each in one_cell)
    assert plain == table.teds(sample, one_cell[0])
    assert all(score <= plain for score in inflated if score is not None and plain is not None)
    by_definition = table.teds(sample, one_cell[2])
    assert by_definition is not None
    assert by_definition > 0.9
