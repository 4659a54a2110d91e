"""`mmpost diff A B`: which of two evaluations on benchmarks is better, by how much, and on which questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmpost.benchmarks.diff import Difference, compare, flipped, read_results
from mmpost.core.display import visible
from mmpost.errors import ConfigError

SHOWN = 8
"""Questions named for each side."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost diff A B [rule=strict] [bench=NAME]`."""
    diff(arguments)
    return 0


def diff(arguments: Sequence[str]) -> list[Difference]:
    """Print the differences of two results (files or folders that `mmpost score` or `eval` wrote), B minus A.

    By the official rule, or by `rule=strict`; of the benchmarks that both have, or of `bench`. Raises ConfigError for
    other arguments, DataError for results that cannot be compared.
    """
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    places = [argument for argument in arguments if "=" not in argument]
    rule = options.pop("rule", "official")
    name = options.pop("bench", "")
    if len(places) != 2 or options or rule not in ("official", "strict"):
        raise ConfigError(
            f"wanted mmpost diff A B [rule=official or strict] [bench=NAME], found {' '.join(arguments)!r}"
        )
    a, b = (read_results(Path(place)) for place in places)
    if name:
        a = {key: value for key, value in a.items() if key == name}
    differences = compare(a, b, rule)
    table = Table(title=visible(f"{places[1]} minus {places[0]}, {rule}, in percent"), title_justify="left")
    for column in ("bench", "difference", "95 % interval", "p (Holm)", "test", "smallest seen in 80 %", "n"):
        table.add_column(column, justify="left" if column in ("bench", "test") else "right")
    for d in differences:
        cells = [f"{100 * d.value:+.1f}", f"{100 * d.low:+.1f} to {100 * d.high:+.1f}", f"{d.p:.2g}", d.test]
        table.add_row(Text(visible(d.bench)), *cells, f"{100 * d.detectable:.1f}", str(d.n))
    console = Console()
    console.print(table)
    for d in differences:
        for line in flipped(d, SHOWN):
            console.print(f"{d.bench}, {line}", highlight=False, soft_wrap=True, markup=False)
    return differences
