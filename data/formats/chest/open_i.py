"""Open-i (IU X-Ray): chest X-ray reports as XML, one file per study, with the MeSH terms of human indexers."""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpost.errors import DataError

SECTIONS = ("findings", "impression", "indication", "comparison")


@dataclass(frozen=True)
class Report:
    """One study. Words that were removed for privacy read XXXX; a section that is missing is empty."""

    uid: str
    """CXR and the number of the study."""
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    mesh: tuple[str, ...] = ()
    """What indexers found, terms with qualifiers: `Pleural Effusion/right/small`; `normal` where they found nothing."""
    images: tuple[str, ...] = ()
    """Names of the study's images, without folder and ending."""

    @property
    def text(self) -> str:
        """Findings, then impression."""
        return " ".join(part for part in (self.findings, self.impression) if part)


def parse(xml: bytes, where: str) -> Report:
    """The report in one file's XML; raises DataError naming `where`."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as e:
        raise DataError(f"{where}: wanted a report as XML, found a file that cannot be read ({e})") from e
    uid = root.find("uId")
    if uid is None or not uid.get("id"):
        raise DataError(f"{where}: wanted an Open-i report with <uId id=...>, found <{root.tag}> without one")
    said: dict[str, str] = {}
    for part in root.iter("AbstractText"):
        name = (part.get("Label") or "").lower()
        text = " ".join("".join(part.itertext()).split())
        if name in SECTIONS and text:
            said[name] = f"{said[name]} {text}" if name in said else text
    return Report(
        uid=str(uid.get("id")),
        mesh=tuple(" ".join(term.text.split()) for term in root.iterfind("MeSH/major") if term.text),
        images=tuple(str(image.get("id")) for image in root.iter("parentImage") if image.get("id")),
        **said,
    )


def reports(path: Path) -> Iterator[Report]:
    """The reports of a file, of a folder with everything below it, or of a .tgz, by the numbers of their studies.

    Raises DataError where there is none.
    """
    found = sorted((parse(xml, where) for where, xml in _files(path)), key=lambda r: (len(r.uid), r.uid))
    if not found:
        raise DataError(f"{path}: wanted Open-i reports (.xml, a folder or .tgz of them), found none")
    yield from found


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((str(file), file.read_bytes()) for file in sorted(path.rglob("*.xml")))
    elif path.suffix == ".xml" and path.is_file():
        yield str(path), path.read_bytes()
    elif path.is_file():
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() and member.name.endswith(".xml") else None
                    if file is not None:
                        yield f"{path}:{member.name}", file.read()
        except (tarfile.TarError, EOFError, OSError) as e:
            raise DataError(f"{path}: wanted an archive of Open-i reports, found one that cannot be read ({e})") from e
