"""Open-i reports: parsing, malformed files, and the real archive."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpost.data.formats.chest.open_i import Report, parse, reports
from mmpost.errors import DataError

XML = b"""<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR7"/><Abstract>
<AbstractText Label="FINDINGS">Small  right
effusion.</AbstractText><AbstractText Label="IMPRESSION"/><AbstractText Label="INDICATION">cough</AbstractText>
</Abstract><MeSH><major>Pleural Effusion/right/small</major><automatic>effusion</automatic></MeSH>
<parentImage id="CXR7_IM-1"><caption>PA</caption></parentImage></eCitation>"""


def test_parsing_one_report() -> None:
    report = parse(XML, "here")
    mesh, images = ("Pleural Effusion/right/small",), ("CXR7_IM-1",)
    assert report == Report("CXR7", "Small right effusion.", "", "cough", mesh=mesh, images=images)
    assert report.text == "Small right effusion."


@pytest.mark.parametrize(("xml", "message"), [(b"<a><b></a>", "cannot be read"), (b"<a/>", "wanted an Open-i report")])
def test_a_file_that_is_not_a_report_is_named(xml: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"here: .*{message}"):
        parse(xml, "here")


def test_external_entities_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    entity = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>'.encode()
    with pytest.raises(DataError, match="undefined entity"):
        parse(XML.replace(b"<eCitation>", entity + b"<eCitation>").replace(b"cough", b"&s;"), "here")


def test_file_folder_and_archive_give_the_same_reports(tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    folder.mkdir()
    for number in (10, 9):
        (folder / f"{number}.xml").write_bytes(XML.replace(b"CXR7", f"CXR{number}".encode()))
    with tarfile.open(tmp_path / "all.tgz", "w:gz") as archive:
        archive.add(folder, "xml")
    assert [r.uid for r in reports(folder)] == ["CXR9", "CXR10"]
    assert list(reports(tmp_path / "all.tgz")) == list(reports(folder))
    assert list(reports(folder / "9.xml")) == [next(reports(folder))]
    (tmp_path / "torn.tgz").write_bytes((tmp_path / "all.tgz").read_bytes()[:100])
    for invalid in (tmp_path / "torn.tgz", tmp_path / "empty"):
        with pytest.raises(DataError, match=invalid.name):
            list(reports(invalid))


def test_the_real_archive(real: Callable[[str], list[Path]]) -> None:
    (archive,) = real("chest-reports/NLMCXR_reports.tgz")
    all_reports = list(reports(archive))
    assert len(all_reports) == len({r.uid for r in all_reports}) == 3955
    assert sum(bool(r.findings) for r in all_reports) == 3425
    assert sum(bool(r.impression) for r in all_reports) == 3921
    assert sum("normal" in r.mesh for r in all_reports) == 1391
    assert sum(len(r.images) for r in all_reports) == 7470
