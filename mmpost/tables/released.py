"""OTSL as TRivia's released converter reads it, for reproducing its numbers; use `mmpost.tables.convert` otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, takewhile

from mmpost.errors import DataError
from mmpost.tables.grammar import END_OF_ROW, KINDS, token_pattern
from mmpost.tables.html import MAX_CHARACTERS
from mmpost.tables.table import MAX_POSITIONS, too_large


def released_otsl_to_html(text: str) -> str:
    """OTSL as HTML by the rules of TRivia's code (arXiv 2512.01248); for valid OTSL, as `otsl_to_html` without escapes.

    Short rows are filled up with `<ecel>`, and rows without tokens vanish. Spans count `<lcel>` or `<xcel>` to the
    right and `<ucel>` or `<xcel>` below, whatever lies between, so that cells may overlap; where no cell is, an empty
    one begins. Texts are not escaped, those after `<ecel>` are dropped, and where tokens and texts once differ from
    what the rows say (a text before the first token, a row that vanished), all later texts are lost. "" without tokens.
    Raises DataError for a table that is too large to read.
    """
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"OTSL: wanted at most {MAX_CHARACTERS} characters, found {len(text)}; read one table at a time"
        )
    pattern = token_pattern(None)
    tokens = pattern.findall(text)
    rows = [list(group) for is_end, group in groupby(tokens, lambda token: token == END_OF_ROW) if not is_end]
    width = max(map(len, rows), default=0)
    if len(rows) * width > MAX_POSITIONS:
        raise too_large(len(rows) * width)
    if not tokens:
        return ""
    rows = [row + ["<ecel>"] * (width - len(row)) for row in rows]
    texts = _texts(text, rows)
    covered: set[tuple[int, int]] = set()
    lines = []
    for r, row in enumerate(rows):
        line = []
        for c, token in enumerate(row):
            rowspan = colspan = 1
            starts = KINDS[token] == "C"
            if starts:
                colspan += _run(row[c + 1 :], "LX")
                rowspan += _run([below[c] for below in rows[r + 1 :]], "UX")
                covered.update((r + i, c + j) for i in range(rowspan) for j in range(colspan))
            if starts or (r, c) not in covered:
                spans = (("rowspan", rowspan), ("colspan", colspan))
                attributes = "".join(f' {name}="{span}"' for name, span in spans if span > 1)
                line.append(f"<td{attributes}>{texts[r][c] if token == '<fcel>' else ''}</td>")
        lines.append(f"<tr>{''.join(line)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _run(tokens: Sequence[str], kinds: str) -> int:
    return sum(1 for _ in takewhile(lambda token: KINDS[token] in kinds, tokens))


def _texts(text: str, rows: list[list[str]]) -> list[list[str]]:
    """The text after each token, as long as the tokens and texts of `text` follow the rows."""
    pattern = token_pattern(None)
    parts, end = [], 0
    for match in pattern.finditer(text):
        parts += (text[end : match.start()].strip(), match[0])
        end = match.end()
    parts = [part for part in (*parts, text[end:].strip()) if part]
    place, texts = 0, []
    for row in rows:
        texts.append([])
        for token in row:
            follows = ""
            if place < len(parts) and parts[place] == token:
                place += 1
                if place < len(parts) and not pattern.fullmatch(parts[place]):
                    follows = parts[place]
                    place += 1
            texts[-1].append(follows)
        if place < len(parts) and parts[place] == END_OF_ROW:
            place += 1
    return texts
