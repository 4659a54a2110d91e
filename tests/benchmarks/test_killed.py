"""An evaluation that is killed again and again ends with the ledger and the scores of an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mmpost.benchmarks.benchmark import benchmark
from mmpost.data.media.media import Media
from tests.benchmarks.small_benches import write_questions

BENCHES = ("pope", "mathvista", "ocrbench")
KILLS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    for name in BENCHES:
        write_questions(name, folder / name)
        bench = benchmark(name)
        for number, sample in enumerate(bench.rows(bench.paths(folder, name))):
            for part in sample.prompt:
                if isinstance(part.value, Media):
                    path = Path(str(part.value.source))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (56, 56), number).save(path)
    return folder


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    arguments = [
        *(f"bench={','.join(BENCHES)}", "model=random-tiny", f"data.benches={folder}", f"out={out}"),
        *("sampling.max_tokens=6", "sampling.temperature=1", "compute.rollout_batch_size=1"),
    ]
    return subprocess.Popen([sys.executable, "-m", "mmpost.cli", "eval", *arguments], stdout=subprocess.DEVNULL)


def replies(out: Path) -> list[tuple[str, str, str]]:
    lines = [line for file in (out / "replies").glob("*.jsonl") for line in file.read_bytes().split(b"\n")[:-1]]
    return sorted((row["key"], row["uid"], row["reply"]) for row in map(json.loads, lines))


def size(out: Path) -> int:
    return sum(file.stat().st_size for file in (out / "replies").glob("*.jsonl"))


def results(out: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in out.glob("random-tiny-*/*.json")}


@pytest.mark.slow
def test_killed_at_twenty_moments(folder: Path, tmp_path: Path) -> None:
    assert start(folder, tmp_path / "whole").wait() == 0
    whole, total = replies(tmp_path / "whole"), size(tmp_path / "whole")
    rng, out = random.Random(0), tmp_path / "killed"
    for kill in range(KILLS):
        process = start(folder, out)
        while size(out) < total * (kill + rng.random()) / (KILLS + 1):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = replies(out)
    assert 0 < len(kept) < len(whole)
    assert start(folder, out).wait() == 0
    assert replies(out) == whole
    assert results(out) == results(tmp_path / "whole")
    assert set(kept) <= set(whole)
