"""`mmpost doctor`: every problem with a remedy, and no crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmpost.commands import doctor


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def by_name(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def test_this_environment_passes(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    output = capsys.readouterr().out
    for name in ("torch and torchvision", "tiny model", "mmpost cache", "vllm"):
        assert name in output
    assert "All required checks passed." in output


def test_every_failed_line_has_a_remedy(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("qwen_vl_utils", "decord", "torchvision", "av"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(doctor, "_tiny", lambda: 1 / 0)
    checks = by_name(doctor.doctor())
    assert checks["qwen-vl-utils"].status == "missing"
    assert checks["qwen-vl-utils"].todo == "pip install qwen-vl-utils"
    assert checks["torch and torchvision"].todo == doctor.REINSTALL
    assert (checks["tiny model"].status, checks["tiny model"].needed) == ("broken", True)
    assert "ZeroDivisionError" in checks["tiny model"].found
    assert (checks["decord"].needed, checks["decord"].status) == (False, "missing")
    assert "PyAV" in checks["decord"].found
    assert all(check.todo for check in checks.values() if check.status != "ok" and check.needed)


def test_a_missing_requirement_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passing = doctor.Check("one", "ok", "1.0")
    optional = doctor.Check("two", "missing", "optional", "pip install two", needed=False)
    required = doctor.Check("three", "missing", "nothing", "pip install three")
    monkeypatch.setattr(doctor, "doctor", lambda: [passing, optional])
    assert doctor.main([]) == 0
    monkeypatch.setattr(doctor, "doctor", lambda: [passing, optional, required])
    assert doctor.main([]) == 1
    assert "until this is fixed: three" in capsys.readouterr().out


def test_an_unwritable_cache_is_reported(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folders / "file").write_text("in the way")
    monkeypatch.setenv("MMPOST_CACHE", str(folders / "file" / "cache"))
    check = by_name(doctor.doctor())["mmpost cache"]
    assert check.status == "broken"
    assert "MMPOST_CACHE" in check.todo


def test_mismatched_torch_and_torchvision_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def incompatible(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", incompatible)
    check = doctor._torch()
    assert (check.status, check.todo) == ("broken", doctor.REINSTALL)
    assert "torchvision::nms does not exist" in check.found
