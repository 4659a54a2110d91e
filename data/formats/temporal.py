"""Temporal grounding and video QA on user data: rows with time spans, answers, or both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpost.data.media.media import Media
from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Wrapped
from mmpost.errors import DataError
from mmpost.types import Part, Sample

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
"""Suffixes to try for videos that a row names without one, as the official files do."""

EXPECTED_SOLUTION = (
    'a solution like [0.1, 0.4] (fractions of the video), {"start_time": 3.0, "end_time": 7.5} or '
    '{"spans": [[3.0, 7.5]]} (seconds), each of these objects with "answer" or without, or an answer as text'
)


class Temporal(Wrapped):
    """Rows with a video, a question (`problem`) and a `solution` in one of the forms of `EXPECTED_SOLUTION`.

    A list of two numbers is a span relative to the duration, as in the training files of Temporal-R1. The duration is
    `video_length` (or `duration`) if the row has it, else that of the file; `options` are the choices. `prompts` holds
    a text for each of "qa", "grounding" and "grounded" (both) rows, in which {question} and {options} are replaced;
    `system` is the system prompt. Reading a row with a malformed solution raises DataError with its name.
    """

    def __init__(self, rows: UserData, prompts: Mapping[str, str], system: str = "") -> None:
        super().__init__(rows)
        self.prompts, self.system = prompts, system

    def sample(self, index: int) -> Sample:
        row = self.source[index]
        video = next((p for p in row.prompt if p.modality == "video"), None)
        if video is None:
            raise DataError(f"{row.uid}: wanted a video to ask about, found none; add the column `video`")
        medium = add_suffix(video.value)
        truth = _truth(row, medium)
        question_type = "qa" if not truth["spans"] else "grounding" if truth["answer"] is None else "grounded"
        question = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        text = (
            self.prompts[question_type]
            .replace("{options}", lettered_options(truth["options"]))
            .replace("{question}", question)
        )
        system = [Part("text", self.system, "system")] if self.system else [p for p in row.prompt if p.role == "system"]
        prompt = (*system, replace(video, value=medium), Part("text", text))
        meta = {**row.meta, "kind": question_type, "question": question}
        return replace(row, prompt=prompt, replies=(), truth=truth, meta=meta)


def lettered_options(options: Sequence[str]) -> str:
    """Format options as "A. one", one per line."""
    return "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))


def add_suffix(medium: Media) -> Media:
    """The medium with the first of `SUFFIXES` that gives an existing file, if its path has no suffix."""
    path = medium.source
    if not isinstance(path, Path) or path.suffix.lower() in SUFFIXES or path.exists():
        return medium
    file = next((p for s in SUFFIXES if (p := path.with_name(path.name + s)).exists()), None)
    return medium if file is None else replace(medium, source=file, name=str(file))


def answer_text(truth: Mapping[str, Any], thought: str | None = "look") -> str:
    """Format the truth as a reply: quoted seconds with one decimal, keys in the order of the format reward."""
    pairs = [] if truth["answer"] is None else [f'"answer": "{truth["answer"]}"']
    if truth["spans"]:
        start, end = truth["spans"][0]
        pairs += [f'"start_time": "{start:.1f}"', f'"end_time": "{end:.1f}"']
    content = "{" + ", ".join(pairs) + "}" if truth["spans"] else truth["answer"]
    answer = f"<answer>{content}</answer>"
    return answer if thought is None else f"<think>{thought}</think>{answer}"


def _truth(row: Sample, medium: Media) -> dict[str, Any]:
    solution = _decode_json(row.truth)
    stated = next((row.meta[name] for name in ("video_length", "duration") if name in row.meta), None)
    try:
        duration = float(medium.header()["duration"] if stated is None else stated)
        answer, spans = _answer_and_spans(solution, duration)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise DataError(f"{row.uid}: {error}") from error
        raise DataError(
            f"{row.uid}: wanted {EXPECTED_SOLUTION}, found {row.truth!r:.200} ({type(error).__name__}: {error})"
        ) from error
    invalid = [s for s in spans if not (math.isfinite(s[0]) and math.isfinite(s[1]) and s[0] < s[1])]
    if invalid or not duration > 0:
        raise DataError(f"{row.uid}: wanted a start before an end in a video with a length, found {row.truth!r:.200}")
    options = [str(o) for o in row.meta.get("options") or ()]
    return {"duration": duration, "spans": spans, "answer": answer, "options": options}


def _decode_json(solution: Any) -> Any:
    """Decode a solution that is the text of a JSON list or object; return any other unchanged."""
    if isinstance(solution, str) and solution.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(solution)
        except ValueError:
            return solution
    return solution


def _answer_and_spans(solution: Any, duration: float) -> tuple[str | None, list[list[float]]]:
    """The answer and the spans [start, end] in seconds."""
    if isinstance(solution, Mapping):
        spans = solution.get("spans")
        if spans is None:
            spans = [[solution["start_time"], solution["end_time"]]] if "start_time" in solution else []
        answer = solution.get("answer")
        if answer is None and not spans:
            raise KeyError("spans")
        return None if answer is None else str(answer), [[float(s), float(e)] for s, e in spans]
    if isinstance(solution, str | int) and not isinstance(solution, bool):
        return str(solution).removeprefix("<answer>").removesuffix("</answer>").strip(), []
    ends: Any = solution
    start, end = (float(v) for v in ends)
    if max(start, end) > 1.05:
        raise DataError(
            f"a list is a span divided by the duration, found {solution!r:.100}, which looks like seconds: "
            'write {"start_time": ..., "end_time": ...}'
        )
    return None, [[start * duration, end * duration]]
