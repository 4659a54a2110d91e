"""Rewards for tables: TEDS and S-TEDS (arXiv 1911.10683), and whether a reply is complete and valid OTSL.

A reply is a table in HTML or OTSL, in answer tags or without. So is the truth of a sample, a text or
`{"html": text}` or `{"otsl": text}`. OTSL is read with the extension "otsl-html", which reads plain OTSL alike, except
that inline tags and escapes in cells are markup and not text. Rewards never raise because of a reply; they are None for
a truth without a table, among them `<table></table>`, which stands for "no label" in TRivia's data (arXiv 2512.01248).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmpost.config.settings import Settings
from mmpost.errors import DataError
from mmpost.rewards.text import answer_or_text
from mmpost.tables.grammar import END_OF_ROW, KINDS
from mmpost.tables.html import normalize, parse, read_html, write_html
from mmpost.tables.otsl import otsl_problems, read_otsl
from mmpost.tables.table import Table
from mmpost.tables.teds import compare_tables, released_teds
from mmpost.types import Reply, Reward, Sample

TAILS = (END_OF_ROW, "</table>", "</html>")
"""How complete tables end."""


def table_markup(text: str, *, strict: bool = False) -> str | None:
    """The first table of a text as HTML; None if it has none.

    HTML if `<table` occurs, else OTSL if one of its tokens does. With `strict`, a table that is not legal raises
    DataError, else it is read leniently; one that is too large always raises it.
    """
    if "<table" in text.lower():
        return write_html(read_html(text).table) if strict else text
    if not any(token in text for token in (*KINDS, END_OF_ROW)):
        return None
    return write_html(read_otsl(text, extension="otsl-html", strict=strict).table)


def _element(markup: str | None) -> Any:
    """The first element `table`, at any depth; None without one, or if nothing is in it."""
    root = None if markup is None else parse(markup).root
    table = None if root is None else next(root.iter("table"), None)
    return table if table is not None and len(table) else None


def truth_markup(sample: Sample) -> str | None:
    """The truth as HTML, or None without one; raises DataError for OTSL that is not valid."""
    truth = sample.truth
    if isinstance(truth, Mapping):
        truth = truth.get("html") or truth.get("otsl")
    if not isinstance(truth, str):
        return None
    try:
        return truth if "<table" in truth.lower() else table_markup(answer_or_text(truth), strict=True)
    except DataError as e:
        raise _unreadable(sample, e) from e


def truth_table(sample: Sample) -> Table | None:
    """The table of the truth, or None if it has none; raises DataError if it cannot be read."""
    markup = truth_markup(sample)
    try:
        table = None if markup is None else read_html(markup, strict=False).table
    except DataError as e:
        raise _unreadable(sample, e) from e
    return table if table is not None and table.sections else None


def _unreadable(sample: Sample, reason: DataError) -> DataError:
    return DataError(f"{sample.label}: wanted a table in HTML or valid OTSL as the truth; {reason}")


class TableSimilarity(Settings):
    """TEDS of the reply and the truth, 0 to 1; 0 without a table, None if the truth has none.

    Negative values are 0. Tables beyond the limits of `mmpost.tables.teds` get its lower bound.
    """

    structure_only: bool = False
    """S-TEDS: cells' contents do not count."""
    normalized: bool = True
    """Compare in the normal form of `mmpost.tables.html.normalize`: heads and some inline tags do not count."""
    count_markup: bool = True
    """Markup in the reply's cells adds to the size of the table, as by PubTabNet's definition. In training it must not:
    a wrong reply with enough empty tags in a cell would score close to 1."""
    strict: bool = False
    """A reply that is no legal OTSL or HTML gets 0; otherwise it is read by the rules of the readers."""

    def __call__(self, sample: Sample, reply: Reply) -> float | None:
        markup = truth_markup(sample)
        try:
            truth = _element(markup)
        except DataError as e:
            raise _unreadable(sample, e) from e
        if truth is None:
            return None
        try:
            predicted = _element(table_markup(answer_or_text(reply.text), strict=self.strict))
        except DataError:  # illegal, or too large to read
            return 0.0
        if predicted is None:
            return 0.0
        if self.normalized:
            normalize(truth)
            normalize(predicted)
        compared = compare_tables(predicted, truth, structure_only=self.structure_only)
        return max(0.0, compared.score if self.count_markup else compared.lower_score)


class TableScores(NamedTuple):
    """TEDS and S-TEDS of a reply."""

    teds: float
    s_teds: float


def pubtabnet_scores(sample: Sample, text: str) -> TableScores:
    """The scores that PubTabNet's script gives to the whole reply: 0 unless it is a document with a table in its body,
    so also for a table alone, in tags, in a fence of Markdown, or after any word; below 0 for some that share nothing.

    Raises DataError for a truth without a table.
    """
    truth = _required(sample)
    return TableScores(released_teds(text, truth), released_teds(text, truth, structure_only=True))


def strict_scores(sample: Sample, text: str) -> TableScores | None:
    """The scores of the first table in the answer, in HTML or OTSL, wherever it is, by PubTabNet's definition, 0 to 1;
    markup in its cells does not raise them. None without a table.

    Raises DataError for a truth without a table.
    """
    truth = _element(_required(sample))
    try:
        predicted = _element(table_markup(answer_or_text(text)))
    except DataError:  # too large to read
        return None
    if predicted is None:
        return None
    compared = [compare_tables(predicted, truth, structure_only=only) for only in (False, True)]
    return TableScores(*(max(0.0, each.lower_score) for each in compared))


def _required(sample: Sample) -> str:
    markup = truth_markup(sample)
    if markup is None:
        raise DataError(f"{sample.label}: wanted a table in HTML or OTSL as the truth, found {sample.truth!r:.60}")
    return markup


_TEDS, _S_TEDS = TableSimilarity(), TableSimilarity(structure_only=True)
_TEDS_LOWER_BOUND = TableSimilarity(count_markup=False)
_OFFICIAL_TEDS = TableSimilarity(normalized=False)
_OFFICIAL_S_TEDS = TableSimilarity(normalized=False, structure_only=True)


def teds(sample: Sample, reply: Reply) -> float | None:
    """TEDS in normal form, 0 to 1, as OmniDocBench and TRivia report it; None if the truth has no table."""
    return _TEDS(sample, reply)


def teds_lower_bound(sample: Sample, reply: Reply) -> float | None:
    """`teds` for training, 0 to 1: markup in the reply's cells does not raise it; without any, both are equal."""
    return _TEDS_LOWER_BOUND(sample, reply)


def s_teds(sample: Sample, reply: Reply) -> float | None:
    """S-TEDS in normal form, 0 to 1: rows, cells and spans, but not the contents of cells."""
    return _S_TEDS(sample, reply)


def official_teds(sample: Sample, reply: Reply) -> float | None:
    """TEDS as PubTabNet defines it, 0 to 1: head, body, header cells and all inline tags count."""
    return _OFFICIAL_TEDS(sample, reply)


def official_s_teds(sample: Sample, reply: Reply) -> float | None:
    """S-TEDS as PubTabNet defines it, 0 to 1: head, body and header cells count."""
    return _OFFICIAL_S_TEDS(sample, reply)


def pubtabnet(sample: Sample, reply: Reply) -> float:
    """TEDS of the whole reply as PubTabNet's script scores it, at most 1: 0 unless it is an HTML document."""
    return pubtabnet_scores(sample, reply.text).teds


def pubtabnet_strict(sample: Sample, reply: Reply) -> float:
    """TEDS of the answer's first table by PubTabNet's definition, 0 to 1; markup in its cells does not raise it."""
    scores = strict_scores(sample, reply.text)
    return 0.0 if scores is None else scores.teds


def table_complete(sample: Sample, reply: Reply) -> float:
    """1 if the reply ends as a table does, with `<nl>`, `</table>` or `</html>`, else 0: TRivia's test of a legal tail.

    Replies that were cut off do not. With answer tags, their content must end so.
    """
    return float(answer_or_text(reply.text).endswith(TAILS))


def otsl_valid(sample: Sample, reply: Reply) -> float:
    """1 if the reply, or the content of its answer tags, is valid plain OTSL and nothing else, else 0."""
    try:
        return float(not otsl_problems(answer_or_text(reply.text)))
    except DataError:  # too large to read
        return 0.0


REWARDS: Mapping[str, Reward] = {"teds": teds_lower_bound, "table_complete": table_complete}
"""Training rewards for labelled tables."""
