"""AstroM3: stages, a short run and its report, and the released dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_rows import save

import mmpost
from mmpost.config import run_config
from mmpost.data.worlds.stars.catalogue import CLASSES
from mmpost.errors import ConfigError
from mmpost.metrics.embeddings import EmbeddingClassifier
from mmpost.report.page import write_report
from mmpost.runs.configured_task import make_task
from mmpost.tasks.astrom3 import Astrom3
from mmpost.transforms.crop import Crop

SMALL = {
    "stars": 40,
    "bench_stars": 20,
    "batch_size": 8,
    "class_batch_size": 6,
    "anomaly_fraction": 0.2,
    "label_fraction": 0.5,
}


def make_astrom3(**fields: Any) -> Astrom3:
    run, _ = run_config.load([{"task": {"name": "astrom3", **SMALL, **fields}}])
    built = make_task(run)
    assert isinstance(built, Astrom3)
    return built


def test_stages() -> None:
    contrast, classify = make_astrom3().stages()
    assert (contrast.name, classify.name) == ("contrast", "classify")
    assert len(contrast.source) == 40
    assert len(classify.source) <= 20
    assert contrast.transforms == (Crop(modality="light_curve", length=200),)
    assert contrast.fraction + classify.fraction == pytest.approx(1.0)
    (only_stage,) = make_astrom3(pretrain=False, crop="centre", modalities=["spectrum"]).stages()
    assert (only_stage.name, only_stage.fraction, only_stage.transforms) == ("classify", 1.0, ())


def test_labels_are_capped_by_class() -> None:
    labels = [
        int(s.columns["label"])
        for s in next(iter(make_astrom3(pretrain=False, stars=400, label_fraction=0.1).stages())).source
    ]
    counts = [labels.count(c) for c in range(len(CLASSES))]
    assert max(counts) - sorted(counts)[-3] == 0
    assert sum(counts) <= 40
    assert min(counts) >= 1


def test_classifiers_are_fitted_on_every_class() -> None:
    benches = make_astrom3(stars=4096, label_fraction=1.0).benches("test")
    (classifier,) = [t for b in benches for t in b.transforms if isinstance(t, EmbeddingClassifier)]
    counts = np.bincount(
        [int(classifier.fit[i].columns["label"]) for i in range(len(classifier.fit))], minlength=len(CLASSES)
    )
    assert len(classifier.fit) <= classifier.max_fit_samples
    assert counts.min() > 30


def test_a_short_run_and_its_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    log = {"progress": False, "tensorboard": False, "samples_every": 1}
    settings = {"task": {"name": "astrom3", **SMALL}, "steps": 4, "log": log, "checkpoint": {"every": 2}}
    result = mmpost.train(settings, f"out={out}")
    metrics = result["eval_after"]
    assert {"class/accuracy", "centroid/balanced", "retrieval/recall@1", "search/precision"} <= set(metrics)
    assert {"unusual/outlier_auc", "unusual/mislabel_recall"} <= set(metrics)
    page = write_report(str(out)).read_text()
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert [m["bench"] for m in data["maps"]] == ["centroid"]
    assert len(data["maps"][0]["points"]) == 20
    modalities = {part["modality"] for prompt in data["prompts"] for part in prompt if part["image"] in data["images"]}
    assert modalities == {"light_curve", "spectrum", "record"}
    mmpost.evaluate(f"model={out}", {"task": {"name": "astrom3", **SMALL}})


def test_the_released_dataset_is_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "stars", 24)
    run, _ = run_config.load([{"task": {"name": "astrom3", **SMALL}, "data": {"train": folder}}])
    built = make_task(run)
    contrast, classify = built.stages()
    assert len(contrast.source) == 24
    assert len(classify.source) <= 12
    assert [b.name for b in built.benches("test")] == ["class", "centroid", "retrieval", "search"]
    for fields in ({"config": "full_42_norm"}, {"config": "some"}):
        invalid_run, _ = run_config.load([{"task": {"name": "astrom3", **fields}, "data": {"train": folder}}])
        with pytest.raises(ConfigError):
            list(make_task(invalid_run).stages())
