"""Reading run files, also of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

from mmpost.core import run_files


def test_logs_of_earlier_versions_load_with_modality(tmp_path: Path) -> None:
    def line(key: str) -> str:
        part = {"role": "user", key: "image", "media": "media/a.png"}
        return json.dumps({"prompt": [part, {"role": "user", key: "text", "text": "?"}], "parts": [part]}) + "\n"

    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(line("kind"))
    new.write_text(line("modality"))
    assert run_files.read_samples(old) == run_files.read_samples(new) == run_files.read_lines(new)
