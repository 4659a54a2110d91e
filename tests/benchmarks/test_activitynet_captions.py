"""ActivityNet Captions: its sentences are questions about moments, as those of Charades-STA."""

from __future__ import annotations

from pathlib import Path

from mmpost.benchmarks.benchmark import benchmark
from tests.benchmarks.by_rule import official, strict
from tests.benchmarks.small_benches import write_questions


def test_sentences_of_activitynet_captions(tmp_path: Path) -> None:
    write_questions("activitynet_captions", tmp_path / "activitynet_captions")
    bench = benchmark("activitynet_captions")
    samples = list(bench.rows(bench.paths(tmp_path, "activitynet_captions")))
    assert [bench.cluster(s) for s in samples] == ["v_uqiMw7tQ1Cc", "v_uqiMw7tQ1Cc", "v_bXdq2zI1Ms0"]
    assert samples[1].truth == {"spans": [[13.79, 54.32]], "answer": None, "duration": 55.15}
    assert "The coach helps the guy in red." in samples[1].prompt[1].value


def test_quirks_of_activitynet_captions() -> None:
    truth, name = {"spans": [[13, 54]], "answer": None}, "activitynet_captions"
    assert (official(name, truth, "54 - 13"), strict(name, truth, "54 - 13")) == (1, 0)
    assert (official(name, truth, "13 to 54"), strict(name, truth, "13 to 54")) == (0, 1)
