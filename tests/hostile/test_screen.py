"""Terminal and page: format characters are shown, flat curves have an axis, empty evaluations and losses are said."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpost.checks.report import Report
from mmpost.commands import list_plugins, show
from mmpost.core.display import fitted, visible
from mmpost.listeners import Curves, Progress, curves
from mmpost.report.page import write_report
from mmpost.runs import summary
from mmpost.studies.tables import write_results
from mmpost.tasks.visurf import ViSurf
from mmpost.training.context import TrainingContext
from mmpost.training.evaluation import Estimate, run_benches, table
from mmpost.types import Bench
from tests.commands.test_show import log_line, write_run as write_replies
from tests.report.test_report import needs_chromium, rendered_dom

HIDDEN = (
    "\u202e",
    "\u2066",
    "\u2069",
    "\u200b",
    "\u200f",
    "\u061c",
    "\ufeff",
    "\u00ad",
    "\u2028",
    "\U000e0041",
    "\ud83d",
)
"""Overrides, isolates, marks, zero-width characters, a separator, a tag, half of a surrogate pair."""
EVIL = "".join(f"a{c}b" for c in HIDDEN) + "\x1b[31m\x9bm"
SHOWN = "a<U+202E>ba<U+2066>b"


def assert_shown(text: str) -> None:
    flat = re.sub(r"[\s│]+", "", text)
    assert SHOWN in flat, text
    assert not {*HIDDEN, "\x1b", "\x9b"} & set(text)


def test_visible_keeps_every_character_that_is_seen() -> None:
    seen = "plain\n\ttext é \u05d0\u05d1 \u0627 \u65e5\u672c \U0001f600 e\u0301"
    assert visible(seen) == seen
    assert visible("\x00\x1b\x7f\x9b\u202e\U000e0041") == "\u2400\u241b\u2421\ufffd<U+202E><U+E0041>"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert fitted("short") == "short"
    lines = fitted("\n".join(map(str, range(1000))))
    assert (lines.split("\n")[0], lines.split("\n")[-1]) == ("0", "999")
    assert fitted("a" * 10_000 + "do this").endswith("do this")


def console() -> Console:
    return Console(file=io.StringIO(), width=300, color_system=None)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_show_check_tables_and_the_progress_line(tmp_path: Path) -> None:
    line = log_line(EVIL, uid=EVIL, origin=EVIL, truth=EVIL, scores={EVIL: 1.0})
    write_replies(tmp_path, line)
    shown = console()
    show.show_run(tmp_path, None, 1, shown)
    assert_shown(output(shown))
    assert output(shown).count("<U+202E>") >= 5

    report = Report(console())
    for say in (report.section, report.say, report.error, report.warn):
        say(EVIL)
    report.table("a", rows=[[EVIL]])
    assert_shown(output(report.console))

    out = console()
    out.print(table(EVIL, {EVIL: {f"{EVIL}[red]": {"value": 1.0, "n": 1.0, "low": 1.0, "high": 1.0}}}))
    assert_shown(output(out))
    assert "[red]" in output(out)

    progress = Progress(console=console())
    progress.on_start(tmp_path, {}, 1)
    progress.on_metrics({"step": 1, "stage": EVIL, "loss": 1e-9, f"eval/{EVIL}": -2e-9})
    assert_shown(output(progress.console))
    assert "loss 0" in output(progress.console)
    assert "e-09" not in output(progress.console)


def page_of(folder: Path, lines: list[dict[str, Any]], **summary: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({"status": "done", **summary}))
    write_replies(folder, log_line(EVIL, uid=EVIL, truth=EVIL, scores={"\u202escore": 1.0}, pieces=[EVIL, "<end>"]))
    return write_report(str(folder))


FLAT = {
    "loss": [1e-9, -1e-9, 0.0],
    "reward/total": [0.5, 0.5, 0.5],
    "entropy": [0.3, 0.3 + 1e-7, 0.3],
    "grad_norm": [5.0001, 5.0008, 5.0016],
}


@needs_chromium
def test_the_page_shows_format_characters_flat_curves_and_empty_evaluations(tmp_path: Path) -> None:
    lines = [{"step": i + 1, "stage": "rl", **{k: v[i] for k, v in FLAT.items()}} for i in range(3)]
    path = page_of(tmp_path / "run", lines, eval_before={}, reason=EVIL)
    dom = rendered_dom(path, tmp_path / "profile")
    assert 'data-ready="yes"' in dom
    body = dom[: dom.index('<script type="application/json"')]
    body = re.sub(r'<option value="[^"]*"', "<option", body)  # not seen, and compared with the data
    assert not {*HIDDEN, "\x1b", "\x9b"} & set(body)
    assert body.count("&lt;U+202E&gt;") >= 6
    assert "before: no rows, so nothing was measured" in body
    plots = dict(re.findall(r'<svg viewBox="0 0 320 150" role="img" aria-label="([^"]+)">(.*?)</svg>', body, re.S))
    labels = {name: re.findall(r'text-anchor="end">([^<]*)<', plot)[:-1] for name, plot in plots.items()}
    assert labels["loss"] == ["-1", "0", "1"]
    assert labels["reward/total"] == ["0.45", "0.5", "0.55"]
    assert len(set(labels["entropy"])) == len(labels["entropy"]) >= 2
    assert len(set(labels["grad_norm"])) == len(labels["grad_norm"]) >= 2
    assert '<span class="value">0</span>' in body


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (FLAT["loss"], (-1.0, 1.0)),
        (FLAT["reward/total"], (0.45, 0.55)),
        ([1e-6] * 3, (0.9e-6, 1.1e-6)),
        ([-2.0], (-2.2, -1.8)),
        ([0.0, 1e-6], None),
        ([5.0, 5.01], None),
    ],
)
def test_the_axis_of_a_flat_curve(values: list[float], limits: tuple[float, float] | None) -> None:
    assert curves.flat_limits(values) == (limits if limits is None else pytest.approx(limits))


def test_a_picture_of_flat_curves_is_drawn(tmp_path: Path, drawn_curves: None) -> None:
    page_of(tmp_path / "run", [{"step": 1, "loss": 0.0, "reward/total": 0.5}])
    listener = Curves()
    listener.on_start(tmp_path / "run", {}, 1)
    listener.on_end({})
    assert (tmp_path / "run" / "curves.png").is_file()


def test_an_evaluation_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def means(samples: Any) -> dict[str, float]:
        return {"f1": 1 / len(samples)}

    context = TrainingContext(None, None, 0)  # type: ignore[arg-type]
    scores = run_benches(context, [Bench("target", [], (), means)])
    assert scores == {}
    assert "evaluation target: no rows, so nothing was measured; set data.test" in capsys.readouterr().err
    out = console()
    out.print(table("test split", {"": scores}))
    assert "nothing was measured" in re.sub(r"\s+", " ", output(out))


def estimate(value: float, half: float) -> Estimate:
    return {"value": value, "n": 8.0, "low": value - half, "high": value + half}


@pytest.mark.parametrize(
    ("metric", "before", "after", "said"),
    [
        ("f1", estimate(64, 9), estimate(20, 9), "old knowledge was lost: old/f1 fell from 64 to 20"),
        ("f1", estimate(64, 9), estimate(60, 9), ""),
        ("f1", estimate(20, 9), estimate(64, 9), ""),
        ("-error", estimate(20, 9), estimate(64, 9), "old knowledge was lost: old/error rose from 20 to 64"),
        ("-error", estimate(64, 9), estimate(20, 9), ""),
        ("", estimate(64, 9), estimate(20, 9), ""),
    ],
)
def test_lost_knowledge_is_said_in_words(
    metric: str, before: Estimate, after: Estimate, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench("old", [], (), lambda samples: {}, earlier_knowledge=metric)
    name = f"old/{metric.removeprefix('-')}"
    content = {"status": "done", "eval_before": {name: before}, "eval_after": {name: after}}
    content |= summary.forgotten(content, [bench])
    summary.print_summary(tmp_path, content)
    text = capsys.readouterr().out
    assert [said in line for line in content.get("forgotten", [])] == [True] * bool(said)
    assert said in text if said else "old knowledge" not in text


@needs_chromium
def test_lost_knowledge_is_on_the_page(tmp_path: Path) -> None:
    sentence = "old knowledge was lost: old/f1 fell from 64 to 20"
    scores = {"eval_before": {"old/f1": estimate(64, 9)}, "eval_after": {"old/f1": estimate(20, 9)}}
    write_replies(tmp_path, log_line())
    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", **scores, "forgotten": [sentence]}))
    assert sentence in rendered_dom(write_report(str(tmp_path)), tmp_path / "profile")


def test_visurf_declares_what_its_base_model_knew() -> None:
    assert {bench.name: bench.earlier_knowledge for bench in ViSurf().benches("test")} == {"target": "", "old": "f1"}


HOSTILE_DOC = "Learns [red]colours[/red] \u202egnitpecca tuohtiw \x1b[31m."


def package(folder: Path, name: str, module: str, source: str) -> None:
    """An installed package with one task, which must not be imported to be listed."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mmpost.tasks]\n{name} = {module}\n")
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").write_text("raise SystemExit('imported')") if file.parent != folder else None
    file.write_text(source)


def test_docstrings_of_plugins_are_shown_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "far_away", "far_package.tasks", f'"""{HOSTILE_DOC}\n\nMore."""')
    package(tmp_path, "far_alone", "far_module", '"""Stands alone."""')
    package(tmp_path, "far_broken", "far_broken", "def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    list_plugins.list_plugins(console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    rows = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in printed.splitlines() if "far_" in line}
    assert rows == {
        "far_away": "Learns [red]colours[/red] <U+202E>gnitpecca tuohtiw ␛[31m.",
        "far_alone": "Stands alone.",
        "far_broken": "from far_broken",
    }


def test_docstrings_of_a_task_are_shown_not_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    doc = HOSTILE_DOC.replace("\x1b", "\\x1b")
    file.write_text(
        f"import mmpost as mp\n\n\nclass Own(mp.Task):\n    '''{doc}'''\n\n    size: int = 3\n    '''{doc}'''\n\n"
        "    def stages(self):\n        yield from ()\n"
    )
    console = Console(file=io.StringIO(), width=200)
    list_plugins.list_task(str(file), console)
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert printed.count("Learns [red]colours[/red] <U+202E>gnitpecca tuohtiw ␛[31m.") == 2


def test_names_in_the_tables_of_a_study_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, {}, "| arm |\n| a\u202eb\x1b[2J |\n", lambda result, file: None)
    expected = "| arm |\n| a<U+202E>b␛[2J |\n"
    assert capsys.readouterr().out.startswith(expected)
    assert (tmp_path / "study.md").read_text() == expected
