"""Readers of released chest radiograph datasets, on miniature copies: parsed studies, errors on malformed files."""

from __future__ import annotations

import csv
import gzip
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from mmpost.config.settings import DataSettings
from mmpost.data.formats.chest.files import studies
from mmpost.data.formats.chest.sections import sections
from mmpost.data.formats.chest.studies import NO_QUESTION, ReportRows, Studies
from mmpost.data.readers.user_data import user_data
from mmpost.errors import DataError
from mmpost.types import Sample

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // eval for
 pneumonia

 COMPARISON:  None.

 FINDINGS:

 Frontal and lateral views: no
 focal consolidation.

 IMPRESSION:

 No acute process.
"""


def write_csv(file: Path, rows: Sequence[Mapping[str, str]], compressed: bool = False) -> None:
    with gzip.open(file, "wt", newline="") if compressed else file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 3), 99).save(path)


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """MIMIC-CXR in miniature: study 50000001 has three radiographs (train), 50000002 has one (test)."""
    radiographs = [
        ("a", "50000001", "PA"),
        ("b", "50000001", "LATERAL"),
        ("c", "50000001", ""),
        ("d", "50000002", "AP"),
    ]
    split = {"50000001": "train", "50000002": "test"}
    write_csv(
        tmp_path / "mimic-cxr-2.0.0-split.csv.gz",
        [{"dicom_id": d, "study_id": s, "subject_id": "10000032", "split": split[s]} for d, s, _ in radiographs],
        compressed=True,
    )
    write_csv(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv", [{"dicom_id": d, "ViewPosition": v} for d, _, v in radiographs]
    )
    patient_folder = tmp_path / "files" / "p10" / "p10000032"
    for name, study, _ in radiographs:
        write_image(patient_folder / f"s{study}" / f"{name}.jpg")
    (patient_folder / "s50000001.txt").write_text(REPORT)
    (patient_folder / "s50000002.txt").write_text("WET READ: clear\n FINDINGS:\n\n IMPRESSION: Normal.\n")
    return tmp_path


def prompt_text(sample: Sample) -> str:
    return "".join(p.value for p in sample.prompt if p.modality == "text")


def test_a_mimic_study_has_two_images_indication_and_findings(mimic: Path) -> None:
    (sample,) = Studies(str(mimic), "train")
    assert sample.uid == "mimic-s50000001"
    assert [Path(p.value.name).name for p in sample.prompt if p.modality == "image"] == ["a.jpg", "b.jpg"]
    assert sample.prompt[0].value.open().size == (4, 3)
    assert sample.truth == "Frontal and lateral views: no focal consolidation."
    assert '"___F with cough // eval for pneumonia"' in prompt_text(sample)
    assert sample.meta == {"indication": "___F with cough // eval for pneumonia", "views": ["PA", "LATERAL"]}


def test_a_report_without_the_section_is_named(mimic: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv\.gz:5: wanted a report with findings.*found the sections impress"):
        Studies(str(mimic), "test")[0]
    assert Studies(str(mimic), "test", section="both")[0].truth == "Normal."
    shutil.rmtree(mimic / "files")
    with pytest.raises(DataError, match=r"split\.csv\.gz:2: wanted a report at .*s50000001\.txt"):
        Studies(str(mimic), "train")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dicom_id,study_id\na,1\n", "found no subject_id, split"),
        (b"dicom_id,study_id,subject_id,split\na,1\n", r"split\.csv:2: wanted 4 columns"),
        (b"dicom_id,study_id,subject_id,split\na,1,x,train\n", r"split\.csv:2: wanted numbers"),
        (b"dicom_id,study_id,subject_id,split\na,1,2,dev\n", r"split\.csv:2: wanted numbers.*'dev'"),
        (b"\xff\xfe\x00bad", r"split\.csv: wanted a CSV file"),
    ],
)
def test_malformed_lists_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        studies(str(tmp_path))


def test_chexpert_plus_groups_images_by_study(tmp_path: Path) -> None:
    row = {"section_findings": "Clear\nlungs.", "section_impression": "", "section_clinical_history": "cough"}
    paths = ["valid/patient1/study1/view1_frontal.jpg", "valid/patient1/study1/view2_lateral.jpg"]
    rows = [{"path_to_image": p, "ap_pa": "AP", "split": "valid", **row} for p in paths]
    rows.append({**rows[0], "path_to_image": "valid/patient2/study1/view1_frontal.jpg", "section_findings": ""})
    write_csv(tmp_path / "df_chexpert_plus_240401.csv", rows)
    write_image((tmp_path / paths[0]).with_suffix(".png"))
    (sample,) = Studies(str(tmp_path), "test")
    assert (sample.uid, sample.truth) == ("chexpert-valid/patient1/study1", "Clear lungs.")
    assert [Path(p.value.name).name for p in sample.prompt[:2]] == ["view1_frontal.png", "view2_lateral.jpg"]
    with pytest.raises(DataError, match=r"view2_lateral\.jpg"):
        sample.prompt[1].value.open()
    with pytest.raises(DataError, match=r"wanted studies of the split train.*found none of 0"):
        Studies(str(tmp_path), "train")


def test_chexpert_plus_keeps_patients_in_one_split(tmp_path: Path) -> None:
    row = {"section_findings": "Clear.", "section_impression": "", "split": "train"}
    names = [f"train/patient{i}/study{j}/view1_frontal.jpg" for i in range(60) for j in (1, 2)]
    write_csv(tmp_path / "df_chexpert_plus_240401.csv", [{"path_to_image": name, **row} for name in names])
    splits_of_patient = {s.uid.rpartition("/")[0]: set() for s in studies(str(tmp_path))}
    for study in studies(str(tmp_path)):
        splits_of_patient[study.uid.rpartition("/")[0]].add(study.split)
    assert all(len(splits) == 1 for splits in splits_of_patient.values())
    assert set.union(*splits_of_patient.values()) == {"train", "val"}


XML = """<eCitation><uId id="CXR{0}"/><Abstract><AbstractText Label="INDICATION">cough</AbstractText>
<AbstractText Label="FINDINGS">Report {0}.</AbstractText></Abstract>
<parentImage id="CXR{0}_IM-1"/><parentImage id="CXR{0}_IM-2"/></eCitation>"""


@pytest.mark.parametrize("compressed", [False, True])
def test_open_i_reports_are_joined_with_their_images(
    tmp_path: Path, compressed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "ecgen-radiology"
    reports.mkdir()
    for number in range(1, 31):
        (reports / f"{number}.xml").write_text(XML.format(number))
        write_image(tmp_path / "png" / f"CXR{number}_IM-1.png")
    if compressed:
        with tarfile.open(tmp_path / "NLMCXR_reports.tgz", "w:gz") as archive:
            archive.add(reports, "ecgen-radiology")
        shutil.rmtree(reports)
    all_studies = [s for split in ("train", "val", "test") for s in Studies(str(tmp_path), split)]
    assert sorted(s.truth for s in all_studies) == sorted(f"Report {n}." for n in range(1, 31))
    assert all(
        [p.modality for p in s.prompt] == ["image", "text"] and s.meta["indication"] == "cough" for s in all_studies
    )
    assert f"30 of the 60 images that reports name are not in {tmp_path}" in capsys.readouterr().err


def test_open_i_without_images_says_where_to_put_them(tmp_path: Path) -> None:
    (tmp_path / "1.xml").write_text(XML.format(1))
    with pytest.raises(DataError, match=r"wanted the images of CXR1 \(CXR1_IM-1\.png\)"):
        studies(str(tmp_path))


def test_sections_are_recognized_by_titles_at_the_start_of_lines() -> None:
    parsed = sections(REPORT + " FINDINGS AND IMPRESSION: again\n NOTE: x\n")
    assert parsed == {
        "indication": "___F with cough // eval for pneumonia",
        "findings": "again",
        "impression": "No acute process.",
    }
    assert sections("Findings: in lower case, and no title") == {}
    with_subsections = (
        "FINDINGS:\nLUNGS AND PLEURA: Clear.\nHEART: Large.\nOTHER INFORMATION: none\nIMPRESSION: Large heart."
    )
    assert sections(with_subsections) == {
        "findings": "LUNGS AND PLEURA: Clear. HEART: Large.",
        "impression": "Large heart.",
    }


def test_user_rows_get_the_report_prompt(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(
        '{"image": "a.png", "solution": "Clear lungs.", "indication": "cough"}\n'
        '{"images": ["a.png", "a.png", "a.png"], "problem": "Report?", "solution": "Clear."}\n'
        '{"image": "a.png", "problem": "Report?"}\n'
    )
    rows = user_data(DataSettings(train=str(tmp_path / "rows.jsonl")), "train", "last", NO_QUESTION)
    assert rows is not None
    report_rows = ReportRows(rows)
    assert (report_rows[0].truth, report_rows[0].replies) == ("Clear lungs.", ())
    assert 'indication "cough"' in prompt_text(report_rows[0])
    assert [p.modality for p in report_rows[1].prompt] == ["image", "image", "text"]
    assert prompt_text(report_rows[1]).strip() == "Report?"
    with pytest.raises(DataError, match=r"rows\.jsonl:3: wanted an image and a report"):
        report_rows[2]
