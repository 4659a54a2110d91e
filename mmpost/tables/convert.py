"""Conversions between OTSL and HTML, which say what they repaired and what was lost."""

from __future__ import annotations

from typing import NamedTuple

from mmpost.tables.html import read_html, write_html
from mmpost.tables.otsl import Extension, read_otsl, write_otsl


class Converted(NamedTuple):
    """Markup in the other language."""

    text: str
    repairs: tuple[str, ...]
    """What was illegal in the input, and how it was read; empty for legal input."""
    lost: tuple[str, ...]
    """What the input has and the output has not."""


def otsl_to_html(text: str, *, extension: Extension | None = None, strict: bool = True) -> Converted:
    """OTSL as an HTML table; nothing of valid OTSL is lost, except which kind of header a `th` is.

    Raises DataError for invalid OTSL if `strict`; else it is read by the rules of `read_otsl`.
    """
    reading = read_otsl(text, extension=extension, strict=strict)
    return Converted(write_html(reading.table), reading.repairs, reading.lost)


def html_to_otsl(markup: str, *, extension: Extension | None = None, strict: bool = True) -> Converted:
    """The first table of HTML as OTSL. Plain OTSL keeps texts and spans, the extension "otsl-html" also sections,
    header cells and inline tags; neither keeps captions, column groups and other attributes than spans.

    Raises DataError for illegal HTML if `strict`; else it is read by the rules of `read_html`.
    """
    reading = read_html(markup, strict=strict)
    written = write_otsl(reading.table, extension)
    return Converted(written.text, reading.repairs, (*reading.lost, *written.lost))
