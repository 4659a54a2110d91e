"""Official files of chest X-ray reports: MIMIC-CXR-JPG, Open-i (IU X-Ray) and CheXpert Plus.

| | recognized by | split | report |
|---|---|---|---|
| MIMIC-CXR-JPG | folder with mimic-cxr-2.0.0-split.csv(.gz) | its own (validate is val) | files/pXX/pX/sX.txt |
| CheXpert Plus | df_chexpert_plus_*.csv, or its folder | its own (valid is test, val a part of train) | columns |
| Open-i | folder or .tgz of XML; PNG in the folder | by a hash of the study's name: 8, 1 and 1 tenths | XML |

Unpack MIMIC-CXR's reports (mimic-cxr-reports.zip) into the folder of the images, which are .jpg or .dcm.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpost.data.formats.chest import open_i
from mmpost.data.formats.chest.sections import sections
from mmpost.errors import DataError
from mmpost.types import Split

_MIMIC = "mimic-cxr-2.0.0-{}.csv"
_SPLITS: Mapping[str, Split] = {"train": "train", "validate": "val", "valid": "test", "val": "val", "test": "test"}


@dataclass(frozen=True)
class StudyFiles:
    """One study of a collection: its images, and its report or the path of the report."""

    uid: str
    where: str
    """File and row for messages."""
    split: Split
    images: tuple[Path, ...]
    """In the order of the collection."""
    views: tuple[str, ...] = ()
    """The view of each image, as the collection names it."""
    report_sections: Mapping[str, str] | None = None
    """Sections of the report; None if they must be read from the file `report`."""
    report: Path | None = None

    def sections(self) -> Mapping[str, str]:
        """Findings, impression and indication, as far as present. Raises DataError if the report cannot be read."""
        if self.report_sections is not None:
            return self.report_sections
        assert self.report is not None
        try:
            return sections(self.report.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.where}: wanted a report at {self.report}, found {error}") from error


def studies(name: str, limit: int = 2) -> list[StudyFiles]:
    """List the studies of a collection, each with its first `limit` images. Raises DataError with file and line."""
    place = Path(name).expanduser()
    if not place.exists():
        raise DataError(f"wanted a folder or file of chest X-ray reports, found nothing at {place}; correct the path")
    tables = sorted(place.glob("df_chexpert_plus*.csv")) if place.is_dir() else []
    if place.is_dir() and _mimic_table(place, "split") is not None:
        collection = list(_mimic(place))
    elif tables or place.suffix == ".csv":
        collection = list(_chexpert(tables[0] if tables else place))
    else:
        collection = list(_open_i(place))
    return [
        StudyFiles(s.uid, s.where, s.split, s.images[:limit], s.views[:limit], s.report_sections, s.report)
        for s in collection
        if s.images
    ]


def _mimic(root: Path) -> Iterator[StudyFiles]:
    file = _mimic_table(root, "split")
    assert file is not None
    views: dict[str, str] = {}
    metadata = _mimic_table(root, "metadata")
    if metadata is not None:
        views = {row["dicom_id"]: row["ViewPosition"] for _, row in _rows(metadata, ("dicom_id", "ViewPosition"))}
    studies: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in _rows(file, ("dicom_id", "study_id", "subject_id", "split")):
        studies.setdefault(row["study_id"], []).append((number, row))
    for study, rows in studies.items():
        number, first = rows[0]
        where = f"{file.name}:{number}"
        if first["split"] not in _SPLITS or not first["subject_id"].isdigit() or not study.isdigit():
            raise DataError(
                f"{where}: wanted numbers as study_id and subject_id, and train, validate or test as split; found "
                f"{study!r}, {first['subject_id']!r} and {first['split']!r}"
            )
        patient = root / "files" / f"p{first['subject_id'][:2]}" / f"p{first['subject_id']}"
        names = [row["dicom_id"] for _, row in rows]
        yield StudyFiles(
            f"mimic-s{study}",
            where,
            _SPLITS[first["split"]],
            tuple(_image_path(patient / f"s{study}" / name, (".jpg", ".dcm")) for name in names),
            tuple(views.get(name, "") for name in names),
            report=patient / f"s{study}.txt",
        )


def _chexpert(file: Path) -> Iterator[StudyFiles]:
    columns = ("path_to_image", "section_findings", "section_impression", "split")
    studies: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in _rows(file, columns):
        studies.setdefault(row["path_to_image"].rpartition("/")[0], []).append((number, row))
    for study, rows in studies.items():
        number, first = rows[0]
        where = f"{file.name}:{number}"
        if not study or first["split"] not in _SPLITS:
            raise DataError(
                f"{where}: wanted a path PATIENT/STUDY/IMAGE and train or valid as split, found "
                f"{first['path_to_image']!r} and {first['split']!r}"
            )
        split = _SPLITS[first["split"]]
        # CheXpert Plus has no official test split: "valid" serves as test, and 5 % of the training patients as val.
        if split == "train" and _hash_to_tenths(study.rpartition("/")[0]) < 0.5:
            split = "val"
        sections = {
            "findings": first["section_findings"],
            "impression": first["section_impression"],
            "indication": first.get("section_clinical_history") or first.get("section_history") or "",
        }
        yield StudyFiles(
            f"chexpert-{study}",
            where,
            split,
            tuple(_image_path(file.parent / row["path_to_image"], (".jpg", ".png", ".dcm")) for _, row in rows),
            tuple(row.get("ap_pa") or row.get("frontal_lateral") or "" for _, row in rows),
            {name: " ".join(text.split()) for name, text in sections.items() if text.strip()},
        )


def _open_i(place: Path) -> Iterator[StudyFiles]:
    folder = place if place.is_dir() else place.parent
    images = {file.stem: file for file in folder.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".dcm")}
    expected = absent = 0
    archives = [] if any(folder.rglob("*.xml")) else sorted(folder.glob("*reports*.tgz"))
    for report in open_i.reports(archives[0] if place.is_dir() and archives else place):
        missing = [name for name in report.images if name not in images]
        if missing and not images:
            raise DataError(
                f"{place}: wanted the images of {report.uid} ({missing[0]}.png) in {folder}, found none; unpack "
                "NLMCXR_png.tgz there"
            )
        expected, absent = expected + len(report.images), absent + len(missing)
        tenth = _hash_to_tenths(report.uid)
        sections = {name: getattr(report, name) for name in ("findings", "impression", "indication")}
        yield StudyFiles(
            f"open-i-{report.uid}",
            f"{place.name}:{report.uid}",
            "train" if tenth < 8 else "val" if tenth < 9 else "test",
            tuple(images[name] for name in report.images if name in images),
            report_sections={name: text for name, text in sections.items() if text},
        )
    if absent:
        print(f"{place}: {absent} of the {expected} images that reports name are not in {folder}", file=sys.stderr)


def _mimic_table(root: Path, name: str) -> Path | None:
    files = [root / (_MIMIC.format(name) + suffix) for suffix in ("", ".gz")]
    return next((file for file in files if file.exists()), None)


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read (line number, row) from a CSV file, gzipped or not. Raises DataError for missing columns or short rows."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as raw:
            reader = csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig", newline=""))
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{file}: wanted the columns {', '.join(columns)}; found no {', '.join(missing)} among "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise DataError(
                        f"{file}:{reader.line_num}: wanted {len(reader.fieldnames or ())} columns, found fewer"
                    )
                yield reader.line_num, {k: v or "" for k, v in row.items() if k is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: wanted a CSV file, found one that cannot be read ({error})") from error


def _image_path(path: Path, suffixes: tuple[str, ...]) -> Path:
    """The existing file with one of these suffixes, else the first candidate: reading it reports what is missing."""
    stem = path.with_suffix("") if path.suffix in suffixes else path
    files = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    return next((file for file in files if file.exists()), files[0])


def _hash_to_tenths(name: str) -> float:
    """Hash `name` to a number in [0, 10)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48 * 10
