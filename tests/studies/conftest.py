"""Shared by the tests of studies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forked import command

from mmpost.studies.cells import Runner


@pytest.fixture(scope="module")
def forked_cells() -> Iterator[None]:
    """The cells of a study are forks of the test process, which need not import torch again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "_start", lambda _, words, log, environment: command(words, log, environment))
        yield
