"""`mmpost show`: samples and replies in the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpost.commands import show
from mmpost.errors import ConfigError


def log_line(text: str = "[1]", group: int = 0, **extra: Any) -> dict[str, Any]:
    return {
        "uid": f"scene-{group}",
        "group": group,
        "origin": "policy",
        "prompt": [
            {"role": "user", "modality": "image", "media": "media/a.png", "name": "a.jpg", "sizes": {"width": 84}},
            {"role": "user", "modality": "text", "text": "Where is [bold]it[/bold]?"},
        ],
        "text": text,
        "parts": [],
        "token_ids": [5, 6],
        "pieces": [text, "<end>"],
        "scores": {"iou": 0.25},
        "columns": {"reward": 1.5, "advantage": -0.75},
        "truth": {"boxes": []},
        "frame": [1000, 1000],
        **extra,
    }


def write_run(folder: Path, *lines: dict[str, Any], step: int = 7) -> Path:
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / "samples" / f"step-{step:06d}.jsonl").write_text(text)
    return folder


def show_output(*arguments: str, colour: bool = False) -> str:
    out = io.StringIO()
    system = "truecolor" if colour else None
    show.main(arguments, Console(file=out, width=200, force_terminal=colour, color_system=system, legacy_windows=False))
    return out.getvalue()


def test_a_step_of_a_run_with_media_prompt_truth_scores_and_advantages(tmp_path: Path) -> None:
    write_run(tmp_path, log_line("[1]"), log_line("[2]", origin="truth"), log_line("far", group=1))
    text = show_output(f"run={tmp_path}", "step=7", "n=1")
    for expected in (
        "step 7: 1 of 2 prompts",
        "image  width=84  a.jpg",
        "Where is [bold]it[/bold]?",  # markup is escaped
        'truth {"boxes": []}',
        "frame coordinates in replies are in 1000 x 1000",
        "reward 1.5 advantage -0.75  iou 0.25  loss on 2 of 2 tokens",
        "[1]<end>",
    ):
        assert expected in text
    assert "far" not in text
    assert "\x1b" not in text


def test_marks_are_printed_with_their_labels(tmp_path: Path) -> None:
    gold = [["box", [0.125, 0, 0.5, 1], 0, f"r1 c{n}"] for n in range(1, 10)]
    write_run(tmp_path, log_line(truth_marks=gold, marks=[["point", [0.25, 0.75], 0, ""]]))
    text = " ".join(show_output(f"run={tmp_path}").split())
    assert "truth marks box r1 c1 (0.125, 0, 0.5, 1); box r1 c2 (" in text
    assert "; and 3 more" in text
    assert text.endswith("<end> marks point (0.25, 0.75)")
    assert "marks " not in show_output(f"run={write_run(tmp_path / 'other', log_line())}")


def test_tokens_are_green_above_zero_red_below_and_dim_where_they_do_not_train(tmp_path: Path) -> None:
    positive = log_line("good", columns={"advantage": 0.5})
    negative = log_line("bad", columns={"advantage": [-2.0, 0.25], "mask": [1, 0]})
    unweighted = log_line("told", columns={})
    assert [str(s.style) for s in show.coloured(positive).spans] == ["green", "green"]
    assert [str(s.style) for s in show.coloured(negative).spans] == ["bold red", "dim", "dim", "dim"]
    assert [str(s.style) for s in show.coloured(unweighted).spans] == ["blue", "blue"]
    assert show.coloured(negative).plain == "bad[[<end>]]"  # the mask is visible without colours
    write_run(tmp_path, negative)
    assert "loss on 1 of 2 tokens" in show_output(f"run={tmp_path}")
    assert "\x1b[1;31mbad" in show_output(f"run={tmp_path}", colour=True)


def test_a_reply_cannot_steer_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path, log_line("\x1b[2J\x9b31m\rgone\x7f"))
    text = show_output(f"run={tmp_path}")
    assert "\u241b[2J\ufffd31m\u240dgone\u2421" in text
    assert not {"\x1b", "\x9b", "\r"} & set(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run={}", "step=9"), "nearest is step=7"),
        (("run={}", "stpe=9"), "unknown argument 'stpe=9'"),
        (("run={}/nowhere",), "found nothing at"),
        (("run={}", "n=0"), "wanted a whole number"),
        (("task=visurf", "step=3"), "add run=RUN"),
    ],
)
def test_invalid_show_arguments_are_reported(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_run(tmp_path, log_line())
    with pytest.raises(ConfigError, match=message):
        show_output(*(argument.format(tmp_path) for argument in arguments))


def test_a_task_is_shown_without_a_run() -> None:
    text = show_output(
        "task=visurf", "model=random-tiny", "n=1", "task.num_generations=2", "task.sampling.max_tokens=4"
    )
    assert "stage rl: 1 of 512 samples" in text
    assert "image  width=84 height=84" in text
    assert "of them for media (no loss)" in text
    assert "<|im_start|>assistant" in text  # the prompt with chat template
    assert text.count("\npolicy ") == 2
    assert text.count("\ntruth  reward") == 1
    assert "advantage" in text
