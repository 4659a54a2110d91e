"""The report: data, escaping, and the rendered page if Chromium is installed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpost.core.annotations import Mark
from mmpost.data.media import modalities
from mmpost.data.media.media import media
from mmpost.errors import ConfigError
from mmpost.listeners.files import SamplesLog
from mmpost.report.collect import series
from mmpost.report.page import main, write_report
from mmpost.rewards import box
from mmpost.types import CoordinateFrame, Part, Reply, Sample

EVIL = '</script><script>document.body.dataset.evil = "yes"</script><img src=x onerror="document.body.dataset.evil=1">'


def image(shade: int) -> Any:
    return media(np.full((40, 60, 3), shade, np.uint8), "image")


def write_run(folder: Path, steps: int = 2, prompts: int = 2, group: int = 2) -> Path:
    """A run whose model writes coordinates in 1000 x 1000, with images of 60 x 40 pixels."""
    log = SamplesLog(lambda ids: [f"t{i} " for i in ids])
    log.on_start(folder, {}, steps)
    rng = random.Random(0)
    assert box.parse_items("") is None  # importing the module registers boxes
    for step in range(1, steps + 1):
        samples = []
        for p in range(prompts):
            prompt = (Part("image", image((step * prompts + p) % 200)), Part("text", f"find the cup {p} {EVIL}"))
            replies = []
            for r in range(group):
                items = [{"bbox_2d": [100, 200, 500 + r, 1000], "point_2d": [250, 750]}]
                columns = {"reward": rng.random(), "advantage": rng.uniform(-2, 2)}
                text = EVIL if r else f"<answer>{json.dumps(items)}</answer>"
                ids = tuple(rng.randrange(300) for _ in range(20))
                lists = {"behaviour_logp": [-rng.random() for _ in ids]}
                origin = "truth" if r == group - 1 else "policy"
                part = (Part("text", text, "assistant"),)
                replies.append(Reply(part, origin, ids, {"box_accuracy": rng.random()}, {**columns, **lists}))
            truth = {"boxes": [[6, 8, 30, 40]], "points": [[15, 30]], "frame": [60, 40]}
            samples.append(Sample(f"cup-{step}-{p}", prompt, tuple(replies), truth, frame=CoordinateFrame(1000, 1000)))
        log.on_samples(step, samples)
    lines = [{"step": s, "stage": "rl", "rollout": s, "reward/total": s / 7, "loss": 0.1} for s in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    score = {"value": 12.5, "n": 4, "low": 3, "high": 20}
    summary = {"status": "done", "steps": steps, "eval_before": {"cups/f1": score}, "eval_after": {"cups/f1": score}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text("task:\n  name: cups\nseed: 3\n")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = write_run(tmp_path_factory.mktemp("a run") / "it's #1")
    return write_report(str(run)).read_text()


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match
    return json.loads(match[1])


def test_the_page_contains_every_reply_and_each_image_prompt_and_token_string_once(page: str) -> None:
    data = data_of(page)
    assert (len(data["groups"]), len(data["replies"]), data["steps"]) == (4, 8, [1, 2])
    assert len(data["images"]) == page.count("data:image/png;base64,") == 4
    assert len(data["pieces"]) == len(set(data["pieces"]))
    first = data["replies"][0]
    assert [data["pieces"][i] for i in first["p"]] == [f"t{i} " for i in first["i"]]
    assert len(first["t"]["behaviour_logp"]) == len(first["i"])
    assert data["scores"] == ["box_accuracy"]
    assert data["numbers"] == ["reward", "advantage"]
    assert data["metrics"]["series"]["loss"] == [0.1, 0.1]


def test_boxes_of_reply_and_truth_agree_in_fractions_of_the_image(page: str) -> None:
    data = data_of(page)
    gold, predicted = data["groups"][0]["marks"], data["replies"][0]["m"]
    assert gold == [["box", [0.1, 0.2, 0.5, 1], 0, ""], ["point", [0.25, 0.75], 0, ""]]
    assert predicted == gold  # the truth is in pixels of 60 x 40, the reply in 1000 x 1000


def test_run_data_is_escaped_and_the_page_fetches_nothing(page: str) -> None:
    assert data_of(page)["replies"][1]["x"] == EVIL
    assert page.count("<script") == page.count("</script>") == 2
    script = re.findall(r"<script>(.*?)</script>", page, re.S)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    outside = page.replace("http://www.w3.org/2000/svg", "")  # a namespace, not a URL
    assert not re.search(r"https?://|//cdn|<link|@import|innerHTML|insertAdjacentHTML|document\.write", outside)


def test_coordinates_of_samples_become_maps(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    scored = [{"map/x": 1.0, "map/y": 2.123456}, {"map/x": 3.0, "map/y": 4.0}, {"right": 1.0}]
    lines = [
        {"bench": bench, "uid": "1", "origin": "policy", "truth": truth, "meta": {}, "frame": None}
        | {"reply": "a", "scores": scores, "columns": {}}
        for bench, truth, scores in zip(("one", "one", "two"), ("a", ["b"], "a"), scored, strict=True)
    ]
    (tmp_path / "eval" / "after.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "metrics.jsonl").write_text("")
    (point_map,) = data_of(write_report(str(tmp_path)).read_text())["maps"]
    assert (point_map["when"], point_map["bench"], point_map["names"]) == ("after", "one", ["a", '["b"]'])
    assert point_map["points"] == [[1, 2.1235, 0, "a"], [3, 4, 1, "a"]]


def test_missing_metrics_are_null() -> None:
    lines = [{"step": 1, "stage": "a", "rollout": 1, "loss": 1.23456789}, {"step": 2, "stage": "b", "kl": 2.0}]
    assert series(lines) == {"step": [1, 2], "stage": ["a", "b"], "series": {"loss": [1.2346, None], "kl": [None, 2]}}


def test_a_long_run_keeps_evenly_spaced_steps_and_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path, steps=9)
    data = data_of(write_report(str(run), str(tmp_path), replies=12).read_text())
    assert (data["steps"], data["left_out"]) == ([1, 5, 9], 6)


def test_an_unfinished_run_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "a", "loss": 0.5}\n{"step": 2, "sta')
    data = data_of(write_report(str(tmp_path)).read_text())
    assert (data["metrics"]["step"], data["replies"], data["summary"]) == ([1], [], {})


def test_bytes_in_the_configuration_are_shown_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_bytes(b"seed: \xae\n")
    assert data_of(write_report(str(run)).read_text())["config"] == "seed: \\xae\n"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", steps=1)
    assert main([str(run), f"out={tmp_path / 'new' / 'page.html'}"]) == 0
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "new" / "page.html").stat().st_size > 10_000
    for arguments, message in (
        ([], "wanted one run folder"),
        ([str(tmp_path / "no")], "found nothing"),
        ([str(run), "replies=x"], "replies"),
    ):
        with pytest.raises(ConfigError, match=message):
            main(arguments)


CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")

DRIVER = """
const seen = {};
const timed = (name, work) => {
  const start = performance.now();
  work();
  seen.height = document.body.offsetHeight;
  seen[name] = performance.now() - start;
};
seen.load = performance.now();
FILTERS.step = "all"; timed("all", refresh); seen.found_all = MATCHES.length;
seen.rows = document.querySelectorAll(".row").length;
FILTERS.sort = "advantage"; timed("sort", refresh);
seen.sorted = MATCHES.every((r, k) => !k || numberOf(MATCHES[k - 1], "advantage") >= numberOf(r, "advantage"));
FILTERS.text = "onerror"; timed("text", refresh);
FILTERS.text = "CUP 1 "; refresh(); seen.found_text = MATCHES.length;
FILTERS.origin = "truth"; refresh(); seen.found_truth = MATCHES.length;
FILTERS.text = ""; FILTERS.origin = "policy"; FILTERS.low = "0.5"; refresh();
seen.found_low = MATCHES.length; seen.low_right = MATCHES.every((r) => numberOf(r, "reward") >= 0.5);
[...document.querySelectorAll("#filters button")].find((b) => b.textContent === "reset").click();
const list = byId("list"); list.scrollTop = MATCHES.length * ROW / 2; timed("scroll", drawRows);
seen.middle = [...document.querySelectorAll(".row")].length;
pick(MATCHES[1]); seen.evil_text = byId("detail").textContent.includes("<" + "/script><script>");
pick(MATCHES[0]);
seen.boxes = document.querySelectorAll("#detail .mark rect").length;
seen.spans = document.querySelectorAll("#detail .mark .span").length;
seen.legend = (document.querySelector("#detail .legend") || {}).textContent || "";
seen.media = document.querySelectorAll("#detail img").length;
seen.tokens = document.querySelectorAll("#detail .tokens span").length;
seen.curves = document.querySelectorAll("#curves-body polyline").length;
seen.evil = document.body.dataset.evil || "";
const report = document.createElement("pre"); report.id = "seen"; report.textContent = JSON.stringify(seen);
document.body.append(report);
"""


def rendered_dom(path: Path, profile: Path) -> str:
    """The DOM of the page after its script has run, opened from disk without network."""
    off = [f"--disable-{name}" for name in ("gpu", "quic", "background-networking", "component-update", "sync")]
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--no-first-run",
        *off,
        f"--user-data-dir={profile}",
        "--dump-dom",
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def run_driver(page: str, tmp_path: Path) -> dict[str, Any]:
    """The results of DRIVER, on a copy of the page without content security policy, which would block DRIVER."""
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    path = tmp_path / "driven.html"
    path.write_text(without_policy.replace("</body>", f"<script>{DRIVER}</script></body>"))
    match = re.search(r'<pre id="seen">(.*?)</pre>', rendered_dom(path, tmp_path / "profile"), re.S)
    assert match
    return json.loads(match[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


@needs_chromium
def test_the_page_is_made_from_files_without_importing_the_task(page: str, tmp_path: Path) -> None:
    path = tmp_path / "a page.html"
    path.write_text(page)
    dom = rendered_dom(path, tmp_path / "profile")
    assert 'data-ready="yes"' in dom
    assert "data-evil" not in dom
    results = run_driver(page, tmp_path)
    assert results["evil"] == ""
    assert results["evil_text"]
    assert (results["found_all"], results["found_text"], results["found_truth"]) == (8, 4, 2)
    assert (results["boxes"], results["tokens"], results["curves"]) == (2, 20, 2)
    assert results["sorted"]
    assert results["low_right"]


@needs_chromium
def test_new_modalities_and_marks_need_no_change_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def times(sample: Sample, reply: Reply | None) -> list[Mark]:
        return [Mark("span", (0.25, 0.5)), Mark("cell", (3, 4), label="row 3")] if reply else []

    monkeypatch.setattr("mmpost.core.annotations._readers", {"times": times})
    monkeypatch.setitem(
        modalities._registry, "spectrum", modalities.Modality("spectrum", np.load, lambda file: {"bins": 64})
    )
    sound = Part("spectrum", media(np.sin(np.arange(64.0)), "spectrum"))
    reply = Reply((Part("text", "loud"), Part("spectrum", sound.value, "assistant")), "policy", None)
    log = SamplesLog()
    log.on_start(tmp_path / "run", {}, 1)
    log.on_samples(1, [Sample("a", (sound, Part("text", "when?")), (reply, reply))])
    results = run_driver(write_report(str(tmp_path / "run")).read_text(), tmp_path)
    assert (results["spans"], results["media"], results["tokens"]) == (1, 2, 0)
    assert "cell 3 4 row 3" in results["legend"]


@needs_chromium
def test_many_marks_are_thin_and_labels_are_tooltips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def boxes(sample: Sample, reply: Reply | None) -> list[Mark]:
        if reply is not None:
            return [Mark("box", (0, 0, 1, 1))]
        return [Mark("box", (n / 30, 0, (n + 1) / 30, 1), label=f"r1 c{n}") for n in range(30)]

    monkeypatch.setattr("mmpost.core.annotations._readers", {"boxes": boxes})
    picture = Part("image", media(np.zeros((40, 60, 3), np.uint8), "image"))
    log = SamplesLog()
    log.on_start(tmp_path / "run", {}, 1)
    log.on_samples(1, [Sample("a", (picture,), (Reply((Part("text", "x"),), "policy", None),))])
    dom = rendered_dom(write_report(str(tmp_path / "run")), tmp_path / "profile")
    assert dom.count('class="mark gold dense labelled"') == 30
    assert dom.count('class="mark predicted"') == 1
    assert dom.count("<title>gold: box r1 c7</title>") == 1


@pytest.mark.slow
@needs_chromium
def test_ten_thousand_replies_stay_usable(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=20, prompts=50, group=10)
    page = write_report(str(run)).read_text()
    results = run_driver(page, tmp_path)
    print({k: round(v, 1) if isinstance(v, float) else v for k, v in results.items()}, f"{len(page) / 1e6:.1f} MB")
    assert results["found_all"] == 10_000
    assert results["rows"] < 60
    assert results["middle"] < 60
    assert len(page) < 20e6
    # Generous limits: each takes tens of milliseconds on an idle machine.
    assert results["load"] < 10_000
    assert max(results[name] for name in ("all", "sort", "text", "scroll")) < 1_000
