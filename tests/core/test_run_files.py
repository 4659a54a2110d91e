"""Reading run files, also of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpost.core import run_files
from mmpost.errors import DataError

REPLY = {"uid": "1", "group": 0, "prompt": [], "truth": None, "origin": "policy", "text": "", "parts": []}
REPLY |= {"token_ids": None, "scores": {"reward": 1.0}, "columns": {}}


def test_logs_of_earlier_versions_load_with_modality(tmp_path: Path) -> None:
    def line(key: str) -> str:
        part = {"role": "user", key: "image", "media": "media/a.png"}
        parts = {"prompt": [part, {"role": "user", key: "text", "text": "?"}], "parts": [part]}
        return json.dumps({**REPLY, **parts}) + "\n"

    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(line("kind"))
    new.write_text(line("modality"))
    assert run_files.read_samples(old) == run_files.read_samples(new) == run_files.read_lines(new, run_files.ReplyLine)


DAMAGED = {
    "[": r"is damaged \(Expecting value",
    "[" * 100_000: r"is damaged \(maximum recursion depth",
    "3": r"is damaged \(wanted an object, found int",
    json.dumps({**REPLY, "scores": {"reward": "high"}}): r"is damaged \(scores.reward: Input should be a valid number",
    json.dumps({k: v for k, v in REPLY.items() if k != "origin"}): r"is damaged \(origin: Field required\)",
}


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:30])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "step-000001.jsonl"
    file.write_text(f"{json.dumps(REPLY)}\n\n{line}\n")
    with pytest.raises(DataError, match=f"step-000001.jsonl:3 {DAMAGED[line]}"):
        run_files.read_samples(file)


def test_a_device_or_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl: wanted a file, found a folder or device"):
        run_files.read_metrics(tmp_path)
    with pytest.raises(DataError, match=r"summary\.json: wanted a file"):
        run_files.read_summary(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1]", "wanted an object, found list"),
        ('{"status": 3}', "status: Input should be a valid string"),
        ('{"eval_after": {"a/f1": {"value": 1, "n": 2, "low": 0}}}', r"eval_after\.a/f1\.high: Field required"),
    ],
)
def test_a_damaged_summary_is_named(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=rf"summary\.json is damaged \({reason}"):
        run_files.read_summary(tmp_path)
    assert run_files.read_summary(tmp_path / "none") == {}
