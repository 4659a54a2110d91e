"""TEDS and S-TEDS: published values, an independent oracle, the package apted, limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import lxml.html
import numpy as np
import pytest

from mmpost.errors import DataError
from mmpost.tables import distances, teds
from mmpost.tables.teds import compare, released_teds, s_teds
from tests.tables import oracle
from tests.tables.real_tables import real_tables


def document(inner: str) -> str:
    return f"<html><body><table>{inner}</table></body></html>"


def rows(*texts: str) -> str:
    """A document with a row for each text, and a cell for each of its words; _ is an empty cell."""
    cells = ("".join(f"<td>{'' if word == '_' else word}</td>" for word in row.split()) for row in texts)
    return document("".join(f"<tr>{row}</tr>" for row in cells))


GOLD = rows("a b", "c d")
HEADED = "<thead><tr><th>h</th></tr></thead><tbody><tr><td>1</td></tr></tbody>"
TWO_COLUMNS = "<thead><tr><th>h</th><th>i</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody>"
TWO_ROWS = "<thead><tr><th>h</th></tr></thead><tbody><tr><td>1</td></tr><tr><td>2</td></tr></tbody>"

PUBLISHED = [
    (GOLD, GOLD, 1, 1),
    (rows("a b", "c x"), GOLD, 1 - 1 / 6, 1),
    (rows("date b", "c d"), rows("data b", "c d"), 1 - 0.25 / 6, 1),
    (rows("a b"), GOLD, 0.5, 0.5),
    (rows("b a", "c d"), GOLD, 1 - 2 / 6, 1),
    (rows("A _", "b c"), document('<tr><td colspan="2">A</td></tr><tr><td>b</td><td>c</td></tr>'), 2 / 3, 2 / 3),
    (rows("12.5"), rows("12.4"), 0.875, 1),
    (rows("x1"), rows("x<b>1</b>"), 1 - 0.5 / 3, 1),
    (rows("h", "1"), document(HEADED), 0.5, 0.5),
    (rows("h i", "1 2"), document(TWO_COLUMNS), 0.5, 0.5),
    (rows("h", "1", "2"), document(TWO_ROWS), 0.625, 0.625),
    (rows(*"abcdef"), rows("u v w x y z"), -1 / 12, 5 / 12),
]


@pytest.mark.parametrize(("predicted", "truth", "score", "structure"), PUBLISHED)
def test_published_values(predicted: str, truth: str, score: float, structure: float) -> None:
    for one, other in ((predicted, truth), (truth, predicted)):
        assert teds.teds(one, other) == pytest.approx(score, abs=1e-12)
        assert s_teds(one, other) == pytest.approx(structure, abs=1e-12)
        assert released_teds(one, other) == pytest.approx(score, abs=1e-12)
        assert released_teds(one, other, structure_only=True) == pytest.approx(structure, abs=1e-12)
        assert oracle.teds(one, other) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("headed", [HEADED, TWO_COLUMNS, TWO_ROWS])
def test_in_normal_form_head_and_body_do_not_count(headed: str) -> None:
    plain = headed
    for tag in ("<thead>", "</thead>", "<tbody>", "</tbody>"):
        plain = plain.replace(tag, "")
    plain = document(plain.replace("th>", "td>"))
    assert teds.teds(plain, document(headed)) < 1
    assert teds.teds(plain, document(headed), normalized=True) == s_teds(plain, document(headed), normalized=True) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("<td>x<sup>2</sup></td>", "<td>x2</td>"),
        ("<td> <span>a</span>  b\n</td>", "<td>a b</td>"),
        ("<td><p>ﬁve</p></td>", "<td>five</td>"),
        ('<td>a<math alttext="x^2"><mi>x</mi></math></td>', "<td>a$x^2$</td>"),
        ('<colgroup><col></colgroup><tr><th style="x">a</th></tr>', "<tr><td>a</td></tr>"),
        ("<td>a\nb</td>", "<td>ab</td>"),
    ],
)
def test_equal_tables_in_normal_form(a: str, b: str) -> None:
    assert teds.teds(document(a), document(b), normalized=True) == 1
    assert teds.teds(document(a), document(b)) < 1


def test_an_escaped_bracket_stays_text_in_normal_form() -> None:
    assert teds.teds(rows("&lt;b>x"), rows("x"), normalized=True) == pytest.approx(1 - 0.75 / 2)
    assert teds.teds(rows("<b>x</b>"), rows("x"), normalized=True) == pytest.approx(1 - (2 / 3) / 3), "b is kept"


def test_what_is_no_table_scores_zero() -> None:
    for nothing in (
        "",
        "  ",
        "text",
        "<!-- x -->",
        "<html></html>",
        "<div><table><tr><td>a</table></div>",
        "x" * 200_001,
    ):
        assert teds.teds(nothing, GOLD) == teds.teds(GOLD, nothing) == s_teds(nothing, nothing) == 0
        assert released_teds(nothing, GOLD) == released_teds(GOLD, nothing) == 0
        assert compare(nothing, GOLD) is None


def test_only_the_released_script_refuses_fragments() -> None:
    bare = GOLD[len("<html><body>") : -len("</body></html>")]
    assert (teds.teds(bare, GOLD), released_teds(bare, GOLD)) == (1, 0)
    assert released_teds(" <!DOCTYPE html>" + bare, GOLD) == released_teds("<style></style>" + bare, GOLD) == 1


def test_tables_without_cells_are_equal() -> None:
    assert teds.teds(document(""), document("")) == s_teds(document(""), document("")) == 1
    assert teds.teds(document(""), GOLD) == 0


@pytest.mark.parametrize("span", ["two", "", "9" * 5000])
def test_a_span_that_is_no_integer_is_one(span: str) -> None:
    assert teds.teds(document(f'<tr><td colspan="{span}">a</td></tr>'), rows("a")) == 1


def test_void_elements_are_two_tokens_and_comments_none() -> None:
    assert teds.teds(rows("a<br>b"), rows("ab")) == pytest.approx(1 - 0.5 / 3)
    assert teds.teds(rows("a<!--x-->b"), rows("ab")) == 1


Change = Callable[[list[list[str]], random.Random], None]


def swapped_cell(cells: list[list[str]], draw: random.Random) -> None:
    r, c = draw.randrange(len(cells)), draw.randrange(len(cells[0]) - 1)
    cells[r][c], cells[r][c + 1] = cells[r][c + 1], cells[r][c]


def dropped_row(cells: list[list[str]], draw: random.Random) -> None:
    del cells[draw.randrange(len(cells))]


def lost_span(cells: list[list[str]], draw: random.Random) -> None:
    cells[0][0] = '<td colspan="2">a</td>' if "colspan" not in cells[0][0] else "<td>a</td>"


def changed_header(cells: list[list[str]], draw: random.Random) -> None:
    cells[0] = [cell.replace("td>", "th>") for cell in cells[0]]


def changed_text(cells: list[list[str]], draw: random.Random) -> None:
    r, c = draw.randrange(len(cells)), draw.randrange(len(cells[0]))
    cells[r][c] = cells[r][c].replace("a", "<b>a</b>").replace("1", "12")


CHANGES = (swapped_cell, dropped_row, lost_span, changed_header, changed_text)


def written(cells: list[list[str]], headed: bool) -> str:
    lines = [f"<tr>{''.join(row)}</tr>" for row in cells]
    if headed and len(lines) > 1:
        return document(f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody>")
    return document("".join(lines))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_tables_score_as_the_oracle_says(change: Change) -> None:
    draw = random.Random(change.__name__)
    for _ in range(6):
        texts = ["", "a", "1", "2.5", "a1", "x<i>1</i>"]
        cells = [[f"<td>{draw.choice(texts)}</td>" for _ in range(draw.randint(2, 3))] for _ in range(3)]
        cells = [row[: len(cells[0])] for row in cells if len(row) >= len(cells[0])]
        other = [list(row) for row in cells]
        change(other, draw)
        for wrapped, headed in ((False, False), (True, True), (True, False)):
            a, b = written(other, headed), written(cells, wrapped)
            for structure_only in (False, True):
                compared = compare(a, b, structure_only=structure_only)
                assert compared is not None
                assert compared.exact
                assert compared.score == pytest.approx(oracle.teds(a, b, structure_only), abs=1e-12)
            assert s_teds(a, b) >= teds.teds(a, b)


def random_tree(draw: random.Random, nodes: int) -> tuple[distances.Tree, oracle.Node]:
    """A random tree, also as the oracle's, whose tags are the numbers of nodes."""
    children: list[list[int]] = []
    roots: list[int] = []
    for node in range(nodes):
        taken = draw.randint(0, min(len(roots), 3)) if node < nodes - 1 else len(roots)
        children.append(roots[len(roots) - taken :])
        roots = [*roots[: len(roots) - taken], node]
    made: list[oracle.Node] = []
    for node, below in enumerate(children):
        made.append(oracle.Node(str(node), (0, 0), (), tuple(made[child] for child in below)))
    return distances.Tree(children), made[-1]


def test_tree_distances_equal_those_of_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """For trees of any shape. The package apted is too high for a few of them, and never too low."""
    draw = random.Random(5)
    differ = 0
    for _ in range(150):
        (a, node_a), (b, node_b) = random_tree(draw, draw.randint(1, 11)), random_tree(draw, draw.randint(1, 11))
        rename = np.array([[draw.choice((0, 0.25, 0.5, 1)) for _ in b.children] for _ in a.children])
        monkeypatch.setattr(oracle, "rename", lambda x, y, _, rename=rename: rename[int(x.tag), int(y.tag)])
        oracle.distance.cache_clear()
        expected = oracle.distance((node_a,), (node_b,), False)
        assert distances.tree_distance(a, b, rename) == pytest.approx(expected, abs=1e-9)
        assert distances.tree_distance(b, a, rename.T) == pytest.approx(expected, abs=1e-9)
        by_apted = distances.apted_distance(a, b, rename)
        assert by_apted > expected - 1e-9
        differ += by_apted > expected + 1e-9
    assert differ <= 5
    oracle.distance.cache_clear()


def test_a_pair_of_trees_for_which_apted_is_too_high() -> None:
    """If this fails, the package is repaired: `compare(apted=True)` need not warn of it any more."""
    a = distances.Tree([[], [0], [], [], [], [], [2, 3, 4, 5], [1, 6], [7]])
    b = distances.Tree([[], [], [1], [], [0, 2, 3], [4]])
    rename = np.random.default_rng(1228).choice([0, 0.25, 0.5, 1.0], size=(9, 6))
    assert (distances.tree_distance(a, b, rename), distances.apted_distance(a, b, rename)) == (5.5, 5.75)


def test_levenshtein_distances_equal_the_dynamic_program() -> None:
    draw = random.Random(3)
    lengths = (0, 1, 2, 10, 63, 64, 65, 127, 128, 129, 200)
    texts = [["".join(draw.choice("ab<") for _ in range(draw.choice(lengths))) for _ in range(25)] for _ in range(2)]
    found = distances.levenshtein(*texts)
    expected = [[oracle.levenshtein(tuple(a), tuple(b)) for b in texts[1]] for a in texts[0]]
    assert found.tolist() == expected
    bounds = [[distances.levenshtein_bound(a, b) for b in texts[1]] for a in texts[0]]
    assert (np.array(bounds) >= found).all()
    assert distances.levenshtein_bound("abcde", "abXcde") == 1
    assert distances.levenshtein([], ["a"]).shape == (0, 1)


def cropped(markup: str, height: int) -> str:
    """The first rows of a document's table, without cells that then span too far."""
    root = lxml.html.document_fromstring(markup)
    lines = list(root.iter("tr"))
    for row in lines[height:]:
        row.drop_tree()
    return str(lxml.html.tostring(root, encoding="unicode"))


def changed(markup: str, kind: str) -> str:
    """A real table with one change."""
    root = lxml.html.document_fromstring(markup)
    lines = list(root.iter("tr"))
    if kind == "swap":
        row = next((row for row in reversed(lines) if len({lxml.html.tostring(cell) for cell in row[:2]}) > 1), None)
        if row is not None:
            row.insert(0, row[1])
    elif kind == "row":
        lines[-1].drop_tree()
    elif kind == "span":
        cells = list(root.iter("td"))
        cell = next((c for c in cells if c.get("colspan") or c.get("rowspan")), cells[0])
        if cell.attrib:
            cell.attrib.clear()
        else:
            cell.set("colspan", "2")
    elif kind == "header":
        lines[0][-1].text = "other"
        lines[0][-1][:] = []
    else:
        for section in [*root.iter("thead"), *root.iter("tbody")]:
            section.drop_tag()
    return str(lxml.html.tostring(root, encoding="unicode"))


KINDS = ("swap", "row", "span", "header", "unwrapped")


@pytest.mark.parametrize("kind", KINDS)
def test_real_tables_against_changed_ones(kind: str) -> None:
    for markup in real_tables():
        assert teds.teds(markup, markup) == s_teds(markup, markup) == released_teds(markup, markup) == 1
        other = changed(markup, kind)
        compared = compare(other, markup)
        assert compared is not None
        assert compared.exact, "no real table is too large"
        assert 0 < compared.score < 1
        assert s_teds(other, markup) >= compared.score
        # The oracle needs small tables.
        small = cropped(markup, 3 if kind == "row" else 2)
        if markup.count("</td>", 0, markup.index("</thead>")) <= 8 and small.count("</td>") <= 16:
            for structure_only in (False, True):
                one = compare(changed(small, kind), small, structure_only=structure_only)
                assert one is not None
                expected = oracle.teds(changed(small, kind), small, structure_only)
                assert one.score == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_real_tables_score_as_by_apted() -> None:
    """All pairs of 20 real tables with up to 80 cells, and each with its changed ones."""
    tables = [markup for markup in real_tables() if markup.count("</td>") <= 80]
    pairs = [(a, b) for i, a in enumerate(tables) for b in tables[i + 1 :]]
    pairs += [(changed(markup, kind), markup) for markup in tables for kind in KINDS]
    for a, b in pairs:
        fast, plain = compare(a, b), compare(a, b, apted=True)
        assert fast is not None
        assert plain is not None
        assert fast.score == pytest.approx(plain.score, abs=1e-9)


def grid(height: int, width: int, text: str = "x") -> str:
    return document(f"<tr>{f'<td>{text}</td>' * width}</tr>" * height)


LARGE = {
    "cells": (grid(150, 100), grid(100, 150)),
    "rows": (grid(9000, 1), grid(8999, 1)),
    "columns": (grid(1, 15_000), grid(15_000, 1)),
    "text": (grid(1, 1, "ab" * 80_000), grid(1, 1, "ba" * 80_000)),
    "texts": (
        document("".join(f"<tr><td>{n}{'x' * 90}</td></tr>" for n in range(1700))),
        document("".join(f"<tr><td>{'x' * 90}{n}</td></tr>" for n in range(1700))),
    ),
    "deep": (document("<div>" * 5000), document("<b>" * 240 + "<tr><td>x")),
    "nested": (document("<tr><td>" + "<table><tr><td>" * 120), document("<tr><td><b>" * 120)),
    "open": ("<table>" * 25_000, "<td>" * 40_000),
}


@pytest.mark.parametrize("name", ["cells", "rows", "text", "texts"])
def test_large_tables_are_not_compared_exactly(name: str) -> None:
    compared = compare(*LARGE[name])
    assert compared is not None
    assert not compared.exact


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_no_table_takes_seconds(name: str) -> None:
    for a, b in (LARGE[name], (LARGE[name][0], GOLD), (GOLD, LARGE[name][1])):
        for function in (teds.teds, released_teds):
            start = time.process_time()
            assert function(a, b) <= 1
            assert time.process_time() - start < 5


def test_beyond_the_limit_the_score_is_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(predicted, truth) for predicted, truth, _, _ in PUBLISHED]
    exact = [teds.teds(a, b) for a, b in pairs]
    monkeypatch.setattr(teds, "MAX_STEPS", -1)
    bounds = [compare(a, b) for a, b in pairs]
    assert all(bound is not None for bound in bounds)
    scores = [bound.score for bound in bounds if bound is not None]
    assert all(low <= high + 1e-12 for low, high in zip(scores, exact, strict=True))
    assert [bound.exact for bound in bounds if bound is not None] == [a == b for a, b in pairs]
    # A dropped row, a changed cell and a swap are what the rule edits at the least cost.
    assert scores[:5] == pytest.approx(exact[:5])
    long = [f"r{i} x" for i in range(50)]
    assert teds.teds(rows(*long[:20], *long[21:]), rows(*long)) == pytest.approx(1 - 3 / 150)


def test_tables_of_100_rows_and_4_columns_are_exact() -> None:
    texts = [" ".join(f"{row}.{column}" for column in range(4)) for row in range(100)]
    compared = compare(rows(*texts[:-1]), rows(*texts))
    assert compared == (5.0, 500, 500, True)
    large = compare(grid(150, 100), grid(100, 150))
    assert large is not None
    assert not large.exact


def test_the_consistency_of_sampled_tables() -> None:
    assert teds.consistency([GOLD, rows("a b", "c x"), rows("a b")]) == pytest.approx(0.611111, abs=1e-6)
    with pytest.raises(DataError, match="wanted at least 2 tables, found 1"):
        teds.consistency([GOLD])
