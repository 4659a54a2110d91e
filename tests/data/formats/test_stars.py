"""The released format of the AstroM3 dataset, on a synthetic copy: parsing and errors."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from published_rows import rows, save

from mmpost.data.formats.stars import PublishedStars, check_config, load
from mmpost.data.signals import preprocess
from mmpost.data.worlds.stars.catalogue import CLASSES, Stars
from mmpost.errors import ConfigError, DataError

MODALITIES = ("light_curve", "spectrum", "record")


def test_a_saved_folder_and_parquet_files(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(rows(6))
    save(tmp_path / "saved", 6)
    (tmp_path / "hub" / "full_42").mkdir(parents=True)
    data.to_parquet(str(tmp_path / "hub" / "full_42" / "validation-00000-of-00001.parquet"))
    for folder in ("saved", "hub"):
        source = PublishedStars(load(str(tmp_path / folder), "full_42", "val"), CLASSES, MODALITIES)
        synthetic = Stars("train", 64)
        assert len(source) == 6
        assert source.labels == [int(c) for c in synthetic.classes[:6]]
        for index in range(6):
            published, generated = source[index], synthetic[index]
            assert published.truth == generated.truth
            assert published.columns["label"] == generated.columns["label"]
            open_curve = {"length": 200, "channels": preprocess.PHOTO, "catalogue": True}
            for k, options in enumerate(
                (open_curve, {"grid": preprocess.GRID}, {"names": preprocess.META, "catalogue": True})
            ):
                a, b = (s.prompt[k].value.open(**options) for s in (published, generated))
                assert np.allclose(a, b, atol=1e-4)


def test_missing_modalities_have_no_part() -> None:
    row = rows(1)[0]
    source = PublishedStars(datasets.Dataset.from_list([row, {**row, "photometry": None}]), CLASSES, MODALITIES)
    assert [p.modality for p in source[1].prompt] == ["spectrum", "record"]
    spectrum_only = PublishedStars(datasets.Dataset.from_list([{**row, "spectra": []}]), CLASSES, ("spectrum",))
    with pytest.raises(DataError, match="AstroM3:1: Wanted one of spectrum, found none"):
        spectrum_only[0]


def test_a_row_without_metadata_has_no_record_and_labels_may_be_numbers() -> None:
    row = rows(1)[0]
    metadata = {"meta_cols": None, "photo_cols": None}
    data = datasets.Dataset.from_list([{**row, "metadata": metadata}, {**row, "metadata": None}, row])
    source = PublishedStars(data, CLASSES, ("spectrum", "record"))
    assert [[p.modality for p in source[i].prompt] for i in range(3)] == [
        ["spectrum"],
        ["spectrum"],
        ["spectrum", "record"],
    ]
    names = sorted(CLASSES)
    numbered = PublishedStars(data.cast_column("label", datasets.ClassLabel(names=names)), CLASSES, MODALITIES)
    assert numbered.labels == source.labels
    assert numbered[0].truth == row["label"]


def test_a_preprocessed_dataset_is_refused() -> None:
    flat = datasets.Dataset.from_list([{**rows(1)[0], "metadata": [0.1, 0.2]}])
    with pytest.raises(DataError, match=r"AstroM3:1: Wanted metadata with meta_cols.*found a list"):
        PublishedStars(flat, CLASSES, MODALITIES)[0]


def test_configurations_are_not_mixed(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(rows(2))
    for name in ("full_42", "sub10_0"):
        (tmp_path / name).mkdir()
        data.to_parquet(str(tmp_path / name / "train.parquet"))
    assert len(load(str(tmp_path), "sub10_0", "train")) == 2
    with pytest.raises(DataError, match=r"Wanted the configuration full_66 in .*, found full_42, sub10_0\."):
        load(str(tmp_path), "full_66", "train")


def test_broken_rows_are_named() -> None:
    row = rows(1)[0]
    unknown_label = {**row, "label": "QSO"}
    nan = {**row, "photometry": [[1.0, float("nan"), 0.1]]}
    one_column = {**row, "spectra": [[1.0], [2.0]]}
    source = PublishedStars(datasets.Dataset.from_list([unknown_label]), CLASSES, MODALITIES)
    with pytest.raises(DataError, match="AstroM3:1: wanted a label among EW"):
        _ = source.labels
    for broken, message in ((nan, "NaN or infinity in 1 of 1"), (one_column, r"shape \[2, 1\]")):
        with pytest.raises(DataError, match=message):
            PublishedStars(datasets.Dataset.from_list([broken]), CLASSES, MODALITIES)[0]


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="full_42 or sub10_123_norm"):
        check_config("half_42")
    assert check_config("sub25_66_norm")
    with pytest.raises(DataError, match="found nothing at"):
        load(str(tmp_path / "a" / "b" / "c"), "full_42", "train")
    with pytest.raises(DataError, match=r"Wanted train\*.parquet.*found nothing"):
        load(str(tmp_path), "full_42", "train")
    datasets.Dataset.from_list([{"photometry": [[1.0]], "label": "EW"}]).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(DataError, match="spectra, metadata is missing"):
        load(str(tmp_path), "full_42", "train")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="does not load"):
        load(str(tmp_path), "full_42", "train")
