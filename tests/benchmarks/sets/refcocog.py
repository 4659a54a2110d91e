"""RefCOCOg: a few phrases in the form of its files; all else is that of RefCOCO."""

from tests.benchmarks.sets.refcoco import (
    REPOSITORY as REPOSITORY,
    files,
    gold as gold,
    scored_officially as scored_officially,
)

FILES = files("refcocog", ("val", "test"))
