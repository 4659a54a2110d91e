"""RefCOCO+: phrases without words of place, such as left (arXiv 1608.00272)."""

from mmpost.tasks.benches.refcoco import referring

BENCHMARK = referring("refcoco+", ("val", "testA", "testB"), "1608.00272")
