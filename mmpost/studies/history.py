"""The versions of a study in its folder: what was tried with which seeds, and how it came out.

A verdict needs seeds that no other version of the study has been run with; otherwise the study could be changed until
it says what was hoped for. Pilots, with seeds from 100, may be run with any version, and are recorded as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mmpost.core.run_files import read_lines, write
from mmpost.studies.study import Study

FILE = "history.jsonl"


class Version(BaseModel):
    """A line of history.jsonl."""

    study_hash: str
    seeds: list[int]
    pilot: bool
    study: dict[str, Any]
    outcome: dict[str, Any] = {}
    """Its claims (`mmpost.studies.claims.findings`), once its runs have ended."""


class History:
    """The versions in a study's folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self.versions = [Version.model_validate(line) for line in read_lines(self._file, Version)]

    def begin(self, study: Study, seeds: Sequence[int], pilot: bool) -> Version:
        """The entry of this version and these seeds, written before its first run unless it is there already."""
        content = study.model_dump(mode="json")
        digest = hashlib.sha256(json.dumps([content, list(seeds)], sort_keys=True).encode()).hexdigest()[:16]
        for version in self.versions:
            if version.study_hash == digest:
                return version
        version = Version(study_hash=digest, seeds=list(seeds), pilot=pilot, study=content)
        self.versions.append(version)
        self._write()
        return version

    def end(self, version: Version, outcome: Mapping[str, Any]) -> None:
        """Record how it came out."""
        version.outcome = dict(outcome)
        self._write()

    def conflict(self, version: Version) -> str:
        """Why there is no verdict: pilots have none, nor has a version whose seeds another one has used."""
        if version.pilot:
            return "a pilot, from which the study is designed"
        for other in self.versions:
            if other is not version and set(other.seeds) & set(version.seeds):
                return (
                    f"the study changed after its first run: version {other.study_hash} has used these seeds; "
                    "restore it, or choose new ones with first_seed="
                )
        return ""

    def last_pilot(self) -> Version | None:
        """The newest pilot with an outcome."""
        return next((v for v in reversed(self.versions) if v.pilot and v.outcome), None)

    def _write(self) -> None:
        write(self._file, "".join(version.model_dump_json() + "\n" for version in self.versions).encode())
