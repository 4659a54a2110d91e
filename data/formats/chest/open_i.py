"""Open-i (IU X-Ray): chest X-ray reports as XML, one file per study, with MeSH terms by human indexers."""

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
    """One study. Words removed for privacy read XXXX; missing sections are empty."""

    uid: str
    """The study: CXR followed by its number."""
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    mesh: tuple[str, ...] = ()
    """Findings as MeSH terms with qualifiers, `Pleural Effusion/right/small`; `normal` if there are none."""
    images: tuple[str, ...] = ()
    """File names of the images, without folder and suffix."""

    @property
    def text(self) -> str:
        """Findings, then impression."""
        return " ".join(part for part in (self.findings, self.impression) if part)


def parse(xml: bytes, where: str) -> Report:
    """Parse the XML of one report. Raises DataError, naming `where`, for malformed files."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as e:
        raise DataError(f"{where}: wanted a report as XML, found a file that cannot be read ({e})") from e
    uid = root.find("uId")
    if uid is None or not uid.get("id"):
        raise DataError(f"{where}: wanted an Open-i report with <uId id=...>, found <{root.tag}> without one")
    sections: dict[str, str] = {}
    for part in root.iter("AbstractText"):
        name = (part.get("Label") or "").lower()
        text = " ".join("".join(part.itertext()).split())
        if name in SECTIONS and text:
            sections[name] = f"{sections[name]} {text}" if name in sections else text
    return Report(
        uid=str(uid.get("id")),
        mesh=tuple(" ".join(term.text.split()) for term in root.iterfind("MeSH/major") if term.text),
        images=tuple(str(image.get("id")) for image in root.iter("parentImage") if image.get("id")),
        **sections,
    )


def reports(path: Path) -> Iterator[Report]:
    """Read the reports in a file, a folder (recursively) or a .tgz, ordered by study number.

    Raises DataError if there are none.
    """
    parsed = sorted((parse(xml, where) for where, xml in _files(path)), key=lambda r: (len(r.uid), r.uid))
    if not parsed:
        raise DataError(f"{path}: wanted Open-i reports (.xml, a folder or .tgz of them), found none")
    yield from parsed


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
