"""Samples and replies in the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpost.commands import show
from mmpost.errors import ConfigError


def line(text: str = "[1]", group: int = 0, **extra: Any) -> dict[str, Any]:
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


def run_with(folder: Path, *lines: dict[str, Any], step: int = 7) -> Path:
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / "samples" / f"step-{step:06d}.jsonl").write_text(text)
    return folder


def shown(*words: str, colour: bool = False) -> str:
    out = io.StringIO()
    system = "truecolor" if colour else None
    show.main(words, Console(file=out, width=200, force_terminal=colour, color_system=system, legacy_windows=False))
    return out.getvalue()


def test_a_step_of_a_run_with_media_prompt_truth_scores_and_advantages(tmp_path: Path) -> None:
    run_with(tmp_path, line("[1]"), line("[2]", origin="truth"), line("far", group=1))
    text = shown(f"run={tmp_path}", "step=7", "n=1")
    for wanted in (
        "step 7: 1 of 2 prompts",
        "image  width=84  a.jpg",
        "Where is [bold]it[/bold]?",  # no markup is read
        'truth {"boxes": []}',
        "frame replies write coordinates in 1000 x 1000",
        "reward 1.5 advantage -0.75  iou 0.25  trains 2 of 2 tokens",
        "[1]<end>",
    ):
        assert wanted in text
    assert "far" not in text
    assert "\x1b" not in text


def test_tokens_are_green_above_zero_red_below_and_dim_where_they_do_not_train(tmp_path: Path) -> None:
    green = line("good", columns={"advantage": 0.5})
    strong = line("bad", columns={"advantage": [-2.0, 0.25], "mask": [1, 0]})
    told = line("told", columns={})
    assert [str(s.style) for s in show.coloured(green).spans] == ["green", "green"]
    assert [str(s.style) for s in show.coloured(strong).spans] == ["bold red", "dim", "dim", "dim"]
    assert [str(s.style) for s in show.coloured(told).spans] == ["blue", "blue"]
    assert show.coloured(strong).plain == "bad[[<end>]]"  # the mask shows without colours
    run_with(tmp_path, strong)
    assert "trains 1 of 2 tokens" in shown(f"run={tmp_path}")
    assert "\x1b[1;31mbad" in shown(f"run={tmp_path}", colour=True)


def test_a_reply_cannot_steer_the_terminal(tmp_path: Path) -> None:
    run_with(tmp_path, line("\x1b[2J\x9b31m\rgone\x7f"))
    text = shown(f"run={tmp_path}")
    assert "\u241b[2J\ufffd31m\u240dgone\u2421" in text
    assert not {"\x1b", "\x9b", "\r"} & set(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run={}", "step=9"), "nearest is step=7"),
        (("run={}", "stpe=9"), "unknown argument 'stpe=9'"),
        (("run={}/nowhere",), "found nothing at"),
        (("run={}", "n=0"), "wanted a whole number"),
        (("task=visurf", "step=3"), "add run=RUN"),
    ],
)
def test_what_cannot_be_shown_is_said(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    run_with(tmp_path, line())
    with pytest.raises(ConfigError, match=message):
        shown(*(word.format(tmp_path) for word in words))


def test_a_task_is_shown_as_it_would_train() -> None:
    text = shown("task=visurf", "model=random-tiny", "n=1", "task.num_generations=2", "task.sampling.max_tokens=4")
    assert "stage rl: 1 of 512 samples" in text
    assert "image  width=84 height=84" in text
    assert "of them for media (never trained)" in text
    assert "<|im_start|>assistant" in text  # the prompt as the model reads it
    assert text.count("\npolicy ") == 2
    assert text.count("\ntruth  reward") == 1
    assert "advantage" in text
