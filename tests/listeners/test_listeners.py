"""Listeners: their output, and a failing one does not stop the run."""

from __future__ import annotations

import io
import json
import math
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpost.core.run_files import MetricsLine, read_lines
from mmpost.errors import ConfigError
from mmpost.listeners import (
    Curves,
    JsonlMetrics,
    Listener,
    Listeners,
    Progress,
    SamplesLog,
    TensorBoard,
    Trackio,
    Wandb,
)
from mmpost.listeners.curves import panels
from mmpost.types import CoordinateFrame, Part, Reply, Sample


def step(number: int, **values: float | int | str) -> dict[str, float | int | str]:
    return {"step": number, "stage": "rl", "rollout": number, **values}


class Broken(Listener):
    def on_metrics(self, metrics: Any) -> None:
        raise OSError("disk full")


class Recorder(Listener):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_metrics(self, metrics: Any) -> None:
        self.steps.append(metrics["step"])


def test_a_failing_listener_is_named_once_and_the_others_continue() -> None:
    recorder = Recorder()
    listeners = Listeners([Broken(), recorder, Broken()])
    with pytest.warns(RuntimeWarning) as caught:
        for number in (1, 2, 3):
            listeners.on_metrics(step(number))
    assert recorder.steps == [1, 2, 3]
    assert len(caught) == 2  # one for each broken listener, not one for each call
    assert "Broken failed in on_metrics (OSError: disk full)" in str(caught[0].message)


def test_a_keyboard_interrupt_is_not_caught() -> None:
    class Stopped(Listener):
        def on_end(self, summary: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Listeners([Stopped()]).on_end({})


def test_metrics_are_on_disk_after_each_step(tmp_path: Path) -> None:
    log = JsonlMetrics()
    log.on_start(tmp_path, {}, 2)
    log.on_metrics(step(1, loss=0.5))
    assert read_lines(tmp_path / "metrics.jsonl", MetricsLine) == [step(1, loss=0.5)]
    log.on_end({})


def test_numbers_that_are_not_finite_are_named_and_the_line_stays_json(tmp_path: Path) -> None:
    log = JsonlMetrics()
    log.on_start(tmp_path, {}, 1)
    log.on_metrics(step(1, loss=math.nan, grad_norm=math.inf, lr=1e-6))
    log.on_end({})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == step(1, lr=1e-6, nonfinite="loss,grad_norm")


def test_a_resumed_run_replaces_repeated_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(step(n, loss=float(n))) + "\n" for n in (1, 2, 3)) + '{"step": 4, "lo')
    log = JsonlMetrics()
    log.on_start(tmp_path, {}, 4)
    log.on_metrics(step(3, loss=30.0))
    log.on_metrics(step(4, loss=40.0))
    log.on_end({})
    assert [line["loss"] for line in read_lines(path, MetricsLine)] == [1.0, 2.0, 30.0, 40.0]


@dataclass
class Medium:
    hash: str
    modality: str = "image"
    name: str = "a.jpg"
    previews: int = 0

    def header(self) -> dict[str, float]:
        return {"width": 8, "height": 4}

    def sketch(self) -> str:
        return "▁█" if self.modality == "curve" else ""

    def preview(self) -> bytes:
        self.previews += 1
        return b"png of " + self.hash.encode()


def test_the_samples_log_contains_each_reply_and_each_preview_once(tmp_path: Path) -> None:
    medium = Medium("abc")
    prompt = (Part("text", "Be brief.", "system"), Part("image", medium), Part("text", "Where?"))
    replies = (
        Reply((Part("text", "[1, 2]"),), "policy", (5, 6), {"iou": 0.25}, {"old_logp": [-0.5, -math.inf], "credit": 2}),
        Reply((Part("text", "[3, 4]"),), "truth"),
    )
    samples = [
        Sample("a", prompt, replies, truth=[3, 4], frame=CoordinateFrame(84, 56)),
        Sample("b", prompt[1:], (Reply((Part("image", medium, "assistant"),), "policy"),)),
    ]
    log = SamplesLog(lambda ids: [f"<{i}>" for i in ids])
    log.on_start(tmp_path, {}, 1)
    log.on_samples(12, samples)

    lines = [json.loads(line) for line in (tmp_path / "samples" / "step-000012.jsonl").read_text().splitlines()]
    assert [(line["uid"], line["group"], line["origin"]) for line in lines] == [
        ("a", 0, "policy"),
        ("a", 0, "truth"),
        ("b", 1, "policy"),
    ]
    first, sizes = lines[0], {"width": 8, "height": 4}
    assert first["prompt"] == [
        {"role": "system", "modality": "text", "text": "Be brief."},
        {"role": "user", "modality": "image", "media": "media/abc.png", "name": "a.jpg", "sizes": sizes},
        {"role": "user", "modality": "text", "text": "Where?"},
    ]
    assert (first["text"], first["token_ids"], first["scores"]) == ("[1, 2]", [5, 6], {"iou": 0.25})
    assert first["columns"] == {"old_logp": [-0.5, None], "credit": 2}
    assert (first["truth"], first["frame"]) == ([3, 4], [84, 56])
    assert first["pieces"] == ["<5>", "<6>"]
    assert first["marks"] == first["truth_marks"] == []
    assert lines[1]["token_ids"] is lines[1]["pieces"] is None
    assert lines[2]["parts"] == [{**first["prompt"][1], "role": "assistant"}]
    assert [path.name for path in (tmp_path / "samples" / "media").iterdir()] == ["abc.png"]
    assert medium.previews == 1


def test_a_sample_without_replies_has_a_line_and_a_sketch(tmp_path: Path) -> None:
    log = SamplesLog()
    log.on_start(tmp_path, {}, 1)
    log.on_samples(1, [Sample("a", (Part("curve", Medium("abc", "curve")),), truth="x")])
    (line,) = [json.loads(text) for text in (tmp_path / "samples" / "step-000001.jsonl").read_text().splitlines()]
    assert (line["uid"], line["text"], line["token_ids"], line["truth"]) == ("a", "", None, "x")
    assert (line["prompt"][0]["sketch"], line["prompt"][0]["media"]) == ("▁█", "media/abc.png")


def progress_output(listener: Progress, stream: io.StringIO, steps: int, **values: float) -> str:
    listener.on_start(Path("runs/one"), {}, steps)
    for number in range(1, steps + 1):
        listener.on_metrics(step(number, **values))
    listener.on_end({})
    return stream.getvalue()


def test_progress_writes_plain_lines_into_a_pipe() -> None:
    stream = io.StringIO()
    text = progress_output(Progress(every=4, console=Console(file=stream)), stream, 10, loss=0.1234)
    lines = text.splitlines()
    assert [line.split(" left")[0].split("  ")[0] for line in lines[1:]] == [
        "[rl] step 1/10",
        "[rl] step 4/10",
        "[rl] step 8/10",
        "[rl] step 10/10",
    ]
    assert "loss 0.123" in lines[1]
    assert "left" in lines[2]
    assert "\x1b" not in text


def test_progress_shows_reward_and_evaluation_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=150)
    text = progress_output(Progress(console=console), stream, 2, **{"reward/total": 0.75, "eval/boxes/iou": 0.5})
    assert "reward 0.75" in text
    assert "2/2" in text
    assert "eval/boxes/iou 0.5" in text


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard()
    board.on_start(tmp_path, {"seed": 1}, 2)
    board.on_metrics(step(1, loss=0.5, grad_norm=math.nan))
    board.on_metrics(step(2, loss=0.25))
    board.on_end({})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert "grad_norm" not in events.Tags()["scalars"]


class FakeTracker(types.ModuleType):
    """A fake of wandb and trackio that records calls."""

    def __init__(self) -> None:
        super().__init__("tracker")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.run = types.SimpleNamespace(summary={})

    def init(self, **options: Any) -> None:
        self.calls.append(("init", options))

    def define_metric(self, name: str, **options: Any) -> None:
        self.calls.append(("define_metric", {"name": name, **options}))

    def log(self, values: dict[str, float], **options: Any) -> None:
        self.calls.append(("log", {"values": values, **options}))

    def finish(self, **options: Any) -> None:
        self.calls.append(("finish", options))


@pytest.mark.parametrize(("package", "listener"), [("wandb", Wandb), ("trackio", Trackio)])
def test_a_tracker_that_is_not_installed_is_rejected_with_the_command_that_installs_it(
    package: str, listener: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'mmpost\[{package}\]'"):
        listener()


def test_wandb_resumes_under_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    for number in (1, 2):  # the second is the resumed run
        listener = Wandb(project="boxes")
        listener.on_start(tmp_path, {"seed": 1}, 2)
        listener.on_metrics(step(number, loss=0.5, lr=math.nan))
        listener.on_end({"status": "failed" if number == 1 else "done", "steps": number})
    inits = [options for name, options in tracker.calls if name == "init"]
    assert inits[0]["id"] == inits[1]["id"]
    assert (inits[0]["project"], inits[0]["name"]) == ("boxes", tmp_path.name)
    assert [o["values"] for name, o in tracker.calls if name == "log"] == [
        {"step": 1.0, "rollout": 1.0, "loss": 0.5},
        {"step": 2.0, "rollout": 2.0, "loss": 0.5},
    ]
    assert [o["exit_code"] for name, o in tracker.calls if name == "finish"] == [1, 0]
    assert tracker.run.summary == {"status": "done", "steps": 2}


def test_trackio_logs_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    listener = Trackio(name="first")
    listener.on_start(tmp_path, {}, 1)
    listener.on_metrics(step(7, loss=0.5))
    listener.on_end({})
    assert [name for name, _ in tracker.calls] == ["init", "log", "finish"]
    assert tracker.calls[0][1]["name"] == "first"
    assert tracker.calls[1][1] == {"values": {"rollout": 7.0, "loss": 0.5}, "step": 7}


def test_curves_show_only_logged_metrics(tmp_path: Path, drawn_curves: None) -> None:
    log, curves = JsonlMetrics(), Curves()
    for listener in (log, curves):
        listener.on_start(tmp_path, {}, 40)
    for n in range(1, 41):
        values: dict[str, float] = {"loss": 1 / n, "time/step": 0.5, "time/rollout": 0.3}
        if n > 20:
            values |= {
                "reward/total": n / 40,
                "reward/iou": n / 80,
                "reward/format": 1.0,
                "reward/zero_std_groups": 0.1,
            }
        log.on_metrics({"step": n, "stage": "warm" if n <= 20 else "rl", "rollout": n, **values})
    for listener in (log, curves):
        listener.on_end({})
    image_bytes = (tmp_path / "curves.png").read_bytes()
    assert image_bytes.startswith(b"\x89PNG")
    assert len(image_bytes) > 10_000
    curve_panels = panels(read_lines(tmp_path / "metrics.jsonl", MetricsLine))
    assert list(curve_panels) == ["reward", "reward components", "zero-variance groups", "loss", "time per step"]
    assert set(curve_panels["reward components"]) == {"iou", "format"}
    assert curve_panels["reward"]["reward/total"][0] == list(range(21, 41))


def test_curves_of_a_run_without_a_step_are_not_drawn(tmp_path: Path) -> None:
    curves = Curves()
    curves.on_start(tmp_path, {}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.on_end({})
    assert not (tmp_path / "curves.png").exists()
