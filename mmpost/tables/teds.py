"""TEDS and S-TEDS, the tree-edit-distance-based similarity of tables (Zhong et al. 2020, arXiv 1911.10683).

Both compare trees: the root is the table, other elements are nodes with a tag, and each td is a leaf with its tag,
spans and tokens (characters, and tags of inline markup without attributes). Inserting and deleting a node costs 1; so
does mapping nodes of different tags or spans; mapping cells costs the Levenshtein distance of their tokens by the
longer length, and in S-TEDS nothing. TEDS is 1 minus the edit distance by the larger number of elements below the
table, inline ones included: 1 for equal tables, and below 0 for some that share nothing. These are the definitions of
PubTabNet's script. Where it fails, a span that is no integer is 1, and tables of which none has an element score 1.

Beyond `MAX_STEPS`, `Comparison.exact` is False and the score is a lower bound that takes linear time: equal rows and
cells at the beginning and at the end are mapped, those between by position, and the tokens of cells likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from mmpost.errors import DataError
from mmpost.tables import distances
from mmpost.tables.distances import Tree
from mmpost.tables.html import integer, normalize, parse

MAX_STEPS = 60_000_000
"""The largest work, in the units of `tree_steps` and `levenshtein_steps`, for which TEDS is exact: a third of a second.

Two tables of 100 rows and 4 columns are below, and so is a table of 250 cells with any of 1,000."""

MAX_PAIRS = 4_000_000
"""The most pairs of nodes for which TEDS is exact: 2,000 cells in each table."""

APTED_PAIRS = 10_000
"""The most pairs of nodes for which `released_teds` uses the package apted: it takes seconds for ten times as many."""


class Nodes(NamedTuple):
    """A table's tree, in postorder."""

    tree: Tree
    labels: list[tuple[str, int, int]]
    """Tag, colspan and rowspan of each node; spans of 0 for all but td."""
    tokens: list[tuple[str, ...]]
    """Tokens of each node; empty for all but td."""
    elements: int
    """The number of elements below the table, of any depth."""


class Comparison(NamedTuple):
    """A predicted table and the true one, compared."""

    distance: float
    """The edit distance, or an upper bound."""
    elements: int
    """The larger number of elements below the table."""
    nodes: int
    """The larger number of elements below the table, without those in cells of the predicted one."""
    exact: bool
    """Whether the distance is exact; otherwise the tables are too large, and the score is a lower bound."""

    @property
    def score(self) -> float:
        """TEDS, at most 1; below 0 for some tables that share nothing."""
        return 1 - self.distance / self.elements if self.elements else 1.0

    @property
    def lower_score(self) -> float:
        """TEDS by `nodes`, at most `score`. Markup in predicted cells, however much, does not raise it."""
        return 1 - self.distance / self.nodes if self.nodes else 1.0


def table_element(markup: str) -> Any:
    """The first element `table` that is a child of the document's body, or None.

    A fragment, such as a bare `<table>...</table>`, is read as the content of a body. None for markup that is too long.
    """
    try:
        root = parse(markup).root
    except DataError:
        return None
    tables = [] if root is None else root.xpath("body/table")
    return tables[0] if tables else None


def nodes(table: Any, structure_only: bool = False) -> Nodes:
    """The tree of an element `table`."""
    children: list[list[int]] = []
    labels: list[tuple[str, int, int]] = []
    tokens: list[tuple[str, ...]] = []
    open_children: list[list[int]] = [[]]
    inside: list[str] | None = None  # the tokens of the cell that is read
    cell: Any = None
    for event, element in etree.iterwalk(table, events=("start", "end")):
        if event == "start" and inside is not None:
            inside += (f"<{element.tag}>", *(element.text or ""))
        elif event == "start":
            open_children.append([])
            if element.tag == "td":
                cell, inside = element, list(element.text or "")
        elif inside is not None and element is not cell:
            inside.append(f"</{element.tag}>")
            # Of a table inside of a cell, the official script drops the text after its cells.
            inside += "" if element.tag == "td" else element.tail or ""
        else:
            is_cell = element is cell
            spans = [integer(element.get(name, "1"), 1) if is_cell else 0 for name in ("colspan", "rowspan")]
            children.append(open_children.pop())
            labels.append((element.tag, spans[0], spans[1]))
            tokens.append(() if inside is None or structure_only else tuple(inside))
            open_children[-1].append(len(children) - 1)
            cell = inside = None
    return Nodes(Tree(children), labels, tokens, sum(1 for _ in table.iterdescendants()))


def _rename_costs(a: Nodes, b: Nodes, contents: NDArray[np.float64], places: tuple[list[int], list[int]]) -> NDArray:
    """Costs of mapping nodes [a, b]: 1 for different tags or spans, else that of their contents."""
    codes: dict[tuple[str, int, int], int] = {}
    labels_a, labels_b = (np.array([codes.setdefault(label, len(codes)) for label in n.labels]) for n in (a, b))
    return np.where(labels_a[:, None] == labels_b, contents[np.ix_(*places)], 1.0)


def _distinct(tokens: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[int]]:
    """Distinct contents, and the index of each node's one."""
    places: dict[tuple[str, ...], int] = {}
    indices = [places.setdefault(one, len(places)) for one in tokens]
    return list(places), indices


def _exact(a: Nodes, b: Nodes, *, apted: bool) -> float | None:
    """The edit distance, or None if it would take too long."""
    if len(a.labels) * len(b.labels) > MAX_PAIRS:
        return None
    (contents_a, places_a), (contents_b, places_b) = _distinct(a.tokens), _distinct(b.tokens)
    # Distances are symmetric, and one direction may be much less work.
    steps, reverse_steps = distances.tree_steps(a.tree, b.tree), distances.tree_steps(b.tree, a.tree)
    if reverse_steps < steps:
        return _exact(b, a, apted=apted)
    if steps + distances.levenshtein_steps(contents_a, contents_b) > MAX_STEPS:
        return None
    lengths = np.maximum.outer([len(one) for one in contents_a], [len(one) for one in contents_b])
    contents = distances.levenshtein(contents_a, contents_b) / np.maximum(lengths, 1)
    costs = _rename_costs(a, b, contents, (places_a, places_b))
    distance = distances.apted_distance if apted else distances.tree_distance
    return distance(a.tree, b.tree, costs)


def _subtrees(a: Nodes, known: dict[Any, int]) -> tuple[list[int], list[int]]:
    """For each node a number that only equal subtrees share, over all calls with the same `known`; and their sizes."""
    numbers, sizes = [], []
    for children, label, tokens in zip(a.tree.children, a.labels, a.tokens, strict=True):
        key = (label, tokens, tuple(numbers[child] for child in children))
        numbers.append(known.setdefault(key, len(known)))
        sizes.append(1 + sum(sizes[child] for child in children))
    return numbers, sizes


def _bound(a: Nodes, b: Nodes) -> float:
    """The cost of one way to edit: of the children of nodes that are mapped to each other, equal ones at the beginning
    and at the end are mapped, and those between by position; all others are deleted or inserted."""
    known: dict[Any, int] = {}
    (numbers_a, sizes), (numbers_b, _) = _subtrees(a, known), _subtrees(b, known)
    cost, mapped = 0.0, 0
    pairs = [(len(a.labels) - 1, len(b.labels) - 1)]
    while pairs:
        i, j = pairs.pop()
        if numbers_a[i] == numbers_b[j]:
            mapped += sizes[i]
            continue
        mapped += 1
        if a.labels[i] != b.labels[j]:
            cost += 1
        elif a.tokens[i] != b.tokens[j]:
            longer = max(len(a.tokens[i]), len(b.tokens[j]))
            cost += distances.levenshtein_bound(a.tokens[i], b.tokens[j]) / longer
        left, right = a.tree.children[i], b.tree.children[j]
        same = 0
        while same < min(len(left), len(right)) and numbers_a[left[-1 - same]] == numbers_b[right[-1 - same]]:
            mapped += sizes[left[-1 - same]]
            same += 1
        pairs += zip(left[: len(left) - same], right[: len(right) - same], strict=False)
    return cost + len(a.labels) + len(b.labels) - 2 * mapped


def compare_tables(predicted: Any, truth: Any, *, structure_only: bool = False, apted: bool = False) -> Comparison:
    """Compare two elements `table`; with `apted`, by the slower package apted."""
    a, b = nodes(predicted, structure_only), nodes(truth, structure_only)
    elements, below = max(a.elements, b.elements), max(len(a.labels) - 1, b.elements)
    if a[:3] == b[:3]:
        return Comparison(0.0, elements, below, True)
    distance = _exact(a, b, apted=apted)
    return Comparison(_bound(a, b) if distance is None else distance, elements, below, distance is not None)


def compare(
    predicted: str, truth: str, *, structure_only: bool = False, normalized: bool = False, apted: bool = False
) -> Comparison | None:
    """Compare the tables of two HTML documents or fragments; None if one has none as a child of its body.

    `normalized` compares them in the normal form of `mmpost.tables.html.normalize`, as OmniDocBench and TRivia do:
    without it, a `th` is no `td`, and `thead` and `tbody` count. `apted` computes the edit distance by the package
    apted, for comparison: it is slower, and for a few trees a little too large.
    """
    tables = [table_element(markup) for markup in (predicted, truth)]
    if any(table is None for table in tables):
        return None
    if normalized:
        for table in tables:
            normalize(table)
    return compare_tables(tables[0], tables[1], structure_only=structure_only, apted=apted)


def teds(predicted: str, truth: str, *, normalized: bool = False) -> float:
    """TEDS of two HTML documents or fragments, at most 1; 0 if one has no table as a child of its body."""
    compared = compare(predicted, truth, normalized=normalized)
    return 0.0 if compared is None else compared.score


def s_teds(predicted: str, truth: str, *, normalized: bool = False) -> float:
    """TEDS of the structure alone: cells' contents do not count."""
    compared = compare(predicted, truth, structure_only=True, normalized=normalized)
    return 0.0 if compared is None else compared.score


def released_teds(predicted: str, truth: str, *, structure_only: bool = False) -> float:
    """TEDS as PubTabNet's script computes it: 0 for a fragment, such as a bare `<table>`, and the distance by apted.

    What has a head, such as `<style></style><table>`, is no fragment.

    Tables of more than `APTED_PAIRS` pairs of nodes are compared as in `teds`.
    """
    if not all(_is_document(markup) for markup in (predicted, truth)):
        return 0.0
    a, b = table_element(predicted), table_element(truth)
    if a is None or b is None:
        return 0.0
    pairs = len(list(a.iter())) * len(list(b.iter()))
    return compare_tables(a, b, structure_only=structure_only, apted=pairs <= APTED_PAIRS).score


def _is_document(markup: str) -> bool:
    """Whether lxml reads the markup as a document and not as a fragment: it begins as one, or has a head."""
    if markup.lstrip()[:9].lower().startswith(("<html", "<!doctype")):
        return True
    try:
        root = parse(markup).root
    except DataError:
        return False
    return root is not None and root.find("head") is not None


def consistency(tables: Sequence[str], *, normalized: bool = False) -> float:
    """The mean TEDS of all pairs of tables in HTML (TRivia, arXiv 2512.01248); raises DataError for fewer than two."""
    if len(tables) < 2:
        raise DataError(f"consistency: wanted at least 2 tables, found {len(tables)}; sample more replies")
    scores = [teds(a, b, normalized=normalized) for a, b in combinations(tables, 2)]
    return sum(scores) / len(scores)
