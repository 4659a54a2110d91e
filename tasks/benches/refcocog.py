"""RefCOCOg: longer phrases, in the splits of UMD (arXiv 1511.02283)."""

from mmpost.tasks.benches.refcoco import referring

BENCHMARK = referring("refcocog", ("val", "test"), "1511.02283")
