"""Fixtures for tests of studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Forked, command

from mmpost.studies import cells


def _popen(argv: Sequence[str], stdout: Any, stderr: Any, env: Mapping[str, str]) -> Forked:
    assert list(argv[1:4]) == ["-m", "mmpost.cli", "train"]
    return command(argv[3:], Path(stdout.name), env)


@pytest.fixture(scope="module")
def forked_cells() -> Iterator[None]:
    """Run the cells of a study as forks of the test process, which avoids importing torch again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "subprocess", SimpleNamespace(Popen=_popen))
        yield
