"""The official files of chest film reports: MIMIC-CXR-JPG, Open-i (IU X-Ray) and CheXpert Plus.

| | how it is told | split | report |
|---|---|---|---|
| MIMIC-CXR-JPG | folder with mimic-cxr-2.0.0-split.csv(.gz) | its own (validate is val) | files/pXX/pX/sX.txt |
| CheXpert Plus | df_chexpert_plus_*.csv, or its folder | its own (valid is test, val a part of train) | columns |
| Open-i | folder or .tgz of XML; PNG in the folder | by a hash of the study's name: 8, 1 and 1 tenths | XML |

MIMIC-CXR's reports (mimic-cxr-reports.zip) are unpacked over the folder of the pictures, which are .jpg or .dcm.
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
class Filed:
    """One study in a set of files."""

    uid: str
    where: str
    """What messages call it."""
    split: Split
    images: tuple[Path, ...]
    """In the order of the set."""
    views: tuple[str, ...] = ()
    """Of each image, as the set names them."""
    said: Mapping[str, str] | None = None
    """Its sections; None where `report` must be read first."""
    report: Path | None = None

    def sections(self) -> Mapping[str, str]:
        """Findings, impression and indication, those that there are. Raises DataError where there is no report."""
        if self.said is not None:
            return self.said
        assert self.report is not None
        try:
            return sections(self.report.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.where}: wanted a report at {self.report}, found {error}") from error


def studies(name: str, limit: int = 2) -> list[Filed]:
    """The studies of an official set, each with its first `limit` images. Raises DataError, naming file and line."""
    place = Path(name).expanduser()
    if not place.exists():
        raise DataError(f"wanted a folder or file of chest film reports, found nothing at {place}; correct the path")
    lists = sorted(place.glob("df_chexpert_plus*.csv")) if place.is_dir() else []
    if place.is_dir() and _beside(place, "split") is not None:
        found = list(_mimic(place))
    elif lists or place.suffix == ".csv":
        found = list(_chexpert(lists[0] if lists else place))
    else:
        found = list(_open_i(place))
    return [
        Filed(s.uid, s.where, s.split, s.images[:limit], s.views[:limit], s.said, s.report) for s in found if s.images
    ]


def _mimic(root: Path) -> Iterator[Filed]:
    file = _beside(root, "split")
    assert file is not None
    views: dict[str, str] = {}
    about = _beside(root, "metadata")
    if about is not None:
        views = {row["dicom_id"]: row["ViewPosition"] for _, row in _rows(about, ("dicom_id", "ViewPosition"))}
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in _rows(file, ("dicom_id", "study_id", "subject_id", "split")):
        found.setdefault(row["study_id"], []).append((number, row))
    for study, rows in found.items():
        number, first = rows[0]
        where = f"{file.name}:{number}"
        if first["split"] not in _SPLITS or not first["subject_id"].isdigit() or not study.isdigit():
            raise DataError(
                f"{where}: wanted numbers as study_id and subject_id, and train, validate or test as split; found "
                f"{study!r}, {first['subject_id']!r} and {first['split']!r}"
            )
        person = root / "files" / f"p{first['subject_id'][:2]}" / f"p{first['subject_id']}"
        names = [row["dicom_id"] for _, row in rows]
        yield Filed(
            f"mimic-s{study}",
            where,
            _SPLITS[first["split"]],
            tuple(_picture(person / f"s{study}" / name, (".jpg", ".dcm")) for name in names),
            tuple(views.get(name, "") for name in names),
            report=person / f"s{study}.txt",
        )


def _chexpert(file: Path) -> Iterator[Filed]:
    needed = ("path_to_image", "section_findings", "section_impression", "split")
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in _rows(file, needed):
        found.setdefault(row["path_to_image"].rpartition("/")[0], []).append((number, row))
    for study, rows in found.items():
        number, first = rows[0]
        where = f"{file.name}:{number}"
        if not study or first["split"] not in _SPLITS:
            raise DataError(
                f"{where}: wanted a path PATIENT/STUDY/IMAGE and train or valid as split, found "
                f"{first['path_to_image']!r} and {first['split']!r}"
            )
        split = _SPLITS[first["split"]]
        if split == "train" and _tenths(study.rpartition("/")[0]) < 0.5:
            split = "val"
        said = {
            "findings": first["section_findings"],
            "impression": first["section_impression"],
            "indication": first.get("section_clinical_history") or first.get("section_history") or "",
        }
        yield Filed(
            f"chexpert-{study}",
            where,
            split,
            tuple(_picture(file.parent / row["path_to_image"], (".jpg", ".png", ".dcm")) for _, row in rows),
            tuple(row.get("ap_pa") or row.get("frontal_lateral") or "" for _, row in rows),
            {name: " ".join(text.split()) for name, text in said.items() if text.strip()},
        )


def _open_i(place: Path) -> Iterator[Filed]:
    folder = place if place.is_dir() else place.parent
    pictures = {file.stem: file for file in folder.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".dcm")}
    wanted = absent = 0
    archives = [] if any(folder.rglob("*.xml")) else sorted(folder.glob("*reports*.tgz"))
    for report in open_i.reports(archives[0] if place.is_dir() and archives else place):
        missing = [name for name in report.images if name not in pictures]
        if missing and not pictures:
            raise DataError(
                f"{place}: wanted the pictures of {report.uid} ({missing[0]}.png) in {folder}, found none; unpack "
                "NLMCXR_png.tgz there"
            )
        wanted, absent = wanted + len(report.images), absent + len(missing)
        at = _tenths(report.uid)
        said = {name: getattr(report, name) for name in ("findings", "impression", "indication")}
        yield Filed(
            f"open-i-{report.uid}",
            f"{place.name}:{report.uid}",
            "train" if at < 8 else "val" if at < 9 else "test",
            tuple(pictures[name] for name in report.images if name in pictures),
            said={name: text for name, text in said.items() if text},
        )
    if absent:
        print(f"{place}: {absent} of the {wanted} pictures that reports name are not in {folder}", file=sys.stderr)


def _beside(root: Path, name: str) -> Path | None:
    files = [root / (_MIMIC.format(name) + ending) for ending in ("", ".gz")]
    return next((file for file in files if file.exists()), None)


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file, packed or not; raises DataError for missing columns and short rows."""
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
                        f"{file}:{reader.line_num}: wanted {len(reader.fieldnames or ())} columns, found less"
                    )
                yield reader.line_num, {k: v or "" for k, v in row.items() if k is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: wanted a CSV file, found one that cannot be read ({error})") from error


def _picture(path: Path, endings: tuple[str, ...]) -> Path:
    """The file with one of these endings; the first, where none is there, so that reading it says what is missing."""
    stem = path.with_suffix("") if path.suffix in endings else path
    files = [stem.with_name(stem.name + ending) for ending in endings]
    return next((file for file in files if file.exists()), files[0])


def _tenths(name: str) -> float:
    """A number in [0, 10) that depends on `name` alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48 * 10
