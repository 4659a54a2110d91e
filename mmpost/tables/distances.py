"""Edit distances: of the contents of cells, and of ordered trees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from apted import APTED, Config
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

WORD = 64
"""Bits of a machine word."""


class Tree(NamedTuple):
    """An ordered tree; nodes are numbered in postorder, so that the last one is the root."""

    children: list[list[int]]
    """The children of each node, from left to right."""

    def first_leaves(self) -> NDArray[np.int64]:
        """For each node the number of the leftmost leaf below it; its own for a leaf."""
        first = np.arange(len(self.children))
        for node, children in enumerate(self.children):
            if children:
                first[node] = first[children[0]]
        return first


# --- contents of cells ---


def levenshtein_steps(a: Sequence[Sequence[str]], b: Sequence[Sequence[str]]) -> int:
    """How much work `levenshtein` of these is, in units of about 5 ns: machine words of `a` times tokens of `b`."""
    return sum(-(-len(one) // WORD) for one in a) * sum(map(len, b))


def levenshtein(a: Sequence[Sequence[str]], b: Sequence[Sequence[str]]) -> NDArray[np.int32]:
    """Levenshtein distances of all pairs of token sequences [a, b]."""
    if not a or not b:
        return np.zeros((len(a), len(b)), np.int32)
    # rapidfuzz compares all pairs at once only for strings, so that each token becomes a character.
    codes: dict[str, str] = {}
    texts_a, texts_b = (
        ["".join(codes.setdefault(token, chr(len(codes))) for token in one) for one in texts] for texts in (a, b)
    )
    return cdist(texts_a, texts_b, scorer=Levenshtein.distance, dtype=np.int32)


def levenshtein_bound(a: Sequence[str], b: Sequence[str]) -> int:
    """An upper bound of the Levenshtein distance in linear time: what lies between the longest common beginning and the
    longest common end is replaced."""
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    a, b = a[start:], b[start:]
    end = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(a), reversed(b), strict=False)))
    return max(len(a), len(b)) - end


# --- ordered trees ---


class _Costs(Config):
    """Unit costs of insertions and deletions, and given ones of renaming node i to node j."""

    def __init__(self, rename: NDArray[np.float64]) -> None:
        self.costs = rename

    def rename(self, node1: _Node, node2: _Node) -> float:
        return float(self.costs[node1.number, node2.number])

    def children(self, node: _Node) -> list[_Node]:
        return node.children


class _Node:
    def __init__(self, number: int, children: list[_Node]) -> None:
        self.number, self.children = number, children


def apted_distance(a: Tree, b: Tree, rename: NDArray[np.float64]) -> float:
    """The edit distance of two ordered trees by the package `apted` (Pawlik and Augsten 2016).

    Insertions and deletions cost 1, `rename` [a, b] has the cost of mapping nodes. It takes seconds for tables with
    hundreds of cells, and for a few trees the distance is too large; `tree_distance` is exact and faster.
    """

    def nodes(tree: Tree) -> list[_Node]:
        made: list[_Node] = []
        for number, children in enumerate(tree.children):
            made.append(_Node(number, [made[child] for child in children]))
        return made

    return float(APTED(nodes(a)[-1], nodes(b)[-1], _Costs(rename)).compute_edit_distance())


class _Level(NamedTuple):
    """Subtrees of the second tree, none inside another's part that matters, side by side: [subtree, node]."""

    nodes: NDArray[np.int64]
    """Numbers of the nodes; too large ones, after the end of a shorter subtree, are cut to the last."""
    left: NDArray[np.bool_]
    """Whether the node is on the leftmost path of the subtree."""
    inside: NDArray[np.bool_]
    """Whether the node is in the subtree."""
    before: NDArray[np.int64]
    """The index, in a flat row [subtree, 1 + node], of the forest before the node's own subtree."""


def _key_roots(tree: Tree, first: NDArray[np.int64]) -> list[int]:
    """The inner nodes that are the root or have a sibling to their left, in postorder."""
    last = {int(leaf): node for node, leaf in enumerate(first)}
    return sorted(node for node in last.values() if tree.children[node])


def _levels(tree: Tree, first: NDArray[np.int64]) -> list[_Level]:
    """The subtrees of the key roots, those that lie inside others before them."""
    roots = _key_roots(tree, first)
    height: dict[int, int] = {}
    open_roots: list[int] = []  # those that are in no later one so far
    for root in roots:
        inner = 0
        while open_roots and open_roots[-1] >= first[root]:
            inner = max(inner, height[open_roots.pop()])
        height[root] = inner + 1
        open_roots.append(root)
    groups: dict[int, list[int]] = {}
    for root, level in height.items():
        groups.setdefault(level, []).append(root)
    return [_level(np.array(groups[level]), first) for level in sorted(groups)]


def _level(roots: NDArray[np.int64], first: NDArray[np.int64]) -> _Level:
    starts = first[roots]
    width = int((roots - starts).max()) + 1
    numbers = starts[:, None] + np.arange(width)
    inside = numbers <= roots[:, None]
    nodes = np.minimum(numbers, len(first) - 1)
    left = first[nodes] == starts[:, None]
    before = np.where(inside, first[nodes] - starts[:, None], 0) + np.arange(len(roots))[:, None] * (width + 1)
    return _Level(nodes, left, inside, before)


def tree_steps(a: Tree, b: Tree) -> int:
    """How much work `tree_distance` of these is, in units of about 5 ns: 4 for an entry of a table, 6,000 for a row."""
    first_a = a.first_leaves()
    rows = sum(int(root - first_a[root]) + 1 for root in _key_roots(a, first_a))
    first_b = b.first_leaves()
    return rows * sum(4 * level.nodes.size + 6000 for level in _levels(b, first_b))


def tree_distance(a: Tree, b: Tree, rename: NDArray[np.float64]) -> float:
    """The edit distance of two ordered trees (Zhang and Shasha 1989), `rename` [a, b] being the cost of mapping nodes.

    Insertions and deletions cost 1, renaming must cost at most 1. Computed for a whole row of the dynamic program and
    all subtrees of a level at once.
    """
    first_a, first_b = a.first_leaves(), b.first_leaves()
    distances = np.zeros((len(first_a), len(first_b)))
    sizes_a, sizes_b = np.arange(len(first_a)) - first_a + 1, np.arange(len(first_b)) - first_b + 1
    # A leaf is mapped to the node of the other tree where that costs least, and all others are inserted.
    leaves_a, leaves_b = np.flatnonzero(sizes_a == 1), np.flatnonzero(sizes_b == 1)
    for j, size in enumerate(sizes_b):
        distances[leaves_a, j] = rename[leaves_a, first_b[j] : j + 1].min(axis=1) + size - 1
    for i, size in enumerate(sizes_a):
        distances[i, leaves_b] = rename[first_a[i] : i + 1, leaves_b].min(axis=0) + size - 1
    levels = _levels(b, first_b)
    for root in _key_roots(a, first_a):
        for level in levels:
            _forests(root, level, first_a, rename, distances)
    return float(distances[-1, -1])


def _forests(
    root: int, level: _Level, first: NDArray[np.int64], rename: NDArray[np.float64], distances: NDArray[np.float64]
) -> None:
    """Distances of the forests of one subtree of the first tree and those of a level; writes those of subtrees."""
    start = int(first[root])
    subtrees, width = level.nodes.shape
    steps = np.arange(width + 1.0)
    forests = np.empty((root - start + 2, subtrees, width + 1))
    forests[0] = steps
    own = level.left & level.inside
    own_nodes = level.nodes[own]
    for row in range(1, len(forests)):
        node = start + row - 1
        costs = distances[node][level.nodes]
        matched = forests[first[node] - start].reshape(-1)[level.before] + costs
        if first[node] == start:
            matched = np.where(level.left, forests[row - 1][:, :-1] + rename[node][level.nodes], matched)
        current = forests[row]
        current[:, 0] = row
        np.minimum(forests[row - 1][:, 1:] + 1, matched, out=current[:, 1:])
        # Inserting costs 1 per node: the minimum over all earlier columns plus the nodes since then.
        current -= steps
        np.minimum.accumulate(current, axis=1, out=current)
        current += steps
        if first[node] == start:
            distances[node, own_nodes] = current[:, 1:][own]
