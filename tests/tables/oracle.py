"""TEDS from its definition, for small tables: neither the library's code nor apted."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from typing import Any, NamedTuple

VOID = ("br", "img", "hr", "wbr")


class Node(NamedTuple):
    tag: str
    spans: tuple[int, int]
    tokens: tuple[str, ...]
    children: tuple[Any, ...]


class _Builder(HTMLParser):
    """Trees of well-formed markup; counts the elements below the table."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, tuple[int, int], list[str], list[Node]]] = []
        self.cell: list[str] | None = None
        self.elements = 0
        self.root: Node | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("html", "body"):
            return
        self.elements += 1
        if self.cell is not None:
            self.cell.append(f"<{tag}>")
            if tag in VOID:
                self.cell.append(f"</{tag}>")
            return
        values = dict(attrs)
        spans = (int(values.get("colspan") or 1), int(values.get("rowspan") or 1)) if tag == "td" else (0, 0)
        self.open.append((tag, spans, [], []))
        if tag == "td":
            self.cell = self.open[-1][2]

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("html", "body"):
            return
        if self.cell is not None and tag != "td":
            self.cell.append(f"</{tag}>")
            return
        self.cell = None
        name, spans, tokens, children = self.open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"
        self.root = Node(name, spans, tuple(tokens), tuple(children))
        if self.open:
            self.open[-1][3].append(self.root)


def levenshtein(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@cache
def size(forest: tuple[Node, ...]) -> int:
    return sum(1 + size(node.children) for node in forest)


@cache
def rename(a: Node, b: Node, structure_only: bool) -> float:
    if (a.tag, a.spans) != (b.tag, b.spans):
        return 1.0
    longer = max(len(a.tokens), len(b.tokens))
    return 0.0 if structure_only or not longer else levenshtein(a.tokens, b.tokens) / longer


@cache
def distance(a: tuple[Node, ...], b: tuple[Node, ...], structure_only: bool) -> float:
    """The edit distance of two forests: the last root of one is deleted or inserted, or mapped to that of the other."""
    if not a or not b:
        return float(size(a) + size(b))
    last_a, last_b = a[-1], b[-1]
    return min(
        distance(a[:-1] + last_a.children, b, structure_only) + 1,
        distance(a, b[:-1] + last_b.children, structure_only) + 1,
        distance(a[:-1], b[:-1], structure_only)
        + distance(last_a.children, last_b.children, structure_only)
        + rename(last_a, last_b, structure_only),
    )


def teds(predicted: str, truth: str, structure_only: bool = False) -> float:
    """TEDS of two well-formed tables, by its definition."""
    built = []
    for markup in (predicted, truth):
        builder = _Builder()
        builder.feed(markup)
        builder.close()
        assert builder.root is not None
        built.append(builder)
    elements = max(builder.elements - 1 for builder in built)
    a, b = ((builder.root,) for builder in built)
    score = 1 - distance(a, b, structure_only) / elements
    for memory in (distance, rename, size):
        memory.cache_clear()
    return score
