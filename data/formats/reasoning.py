"""Visual reasoning rows in the formats of Reason-RFT: CLEVR-Math, Super-CLEVR, GeoMath, Geometry3K, TRANCE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from mmpost.data.readers.user_data import UserData
from mmpost.data.sources.base import Indexed
from mmpost.errors import DataError
from mmpost.types import Part, Sample

Family = Literal["counting", "structure", "transformation"]

_TAGS = "Reason step by step inside <think> </think>, then give only {what} inside <answer> </answer>."
PROMPTS: Mapping[str, str] = {
    "counting": "{question}\n" + _TAGS.replace("{what}", "the number"),
    "structure": "{question}\n" + _TAGS.replace("{what}", "the value as a number, without its unit,"),
    "choice": "{question}\n" + _TAGS.replace("{what}", "the letter of the right choice"),
    "transformation": (
        "The first picture shows a scene before some edits, the second the same scene after them. Edits are calls of "
        "these functions, each with the id of an object and a new value:\n"
        "change_size(id, 'small' | 'medium' | 'large')\n"
        "change_color(id, 'yellow' | 'gray' | 'cyan' | 'blue' | 'brown' | 'green' | 'red' | 'purple')\n"
        "change_material(id, 'rubber' | 'metal' | 'glass')\n"
        "change_shape(id, 'cube' | 'sphere' | 'cylinder')\n"
        "change_position(id, direction and number of steps)\n"
        "The objects of the first picture, as (id, shape, size, color, material), and the task:\n{question}\n"
        "Between one and four edits were made. "
        + _TAGS.replace("{what}", "the calls, separated by commas,")
        + " Example: <think>...</think><answer>change_color(3, 'red'), change_size(0, 'large')</answer>"
    ),
}
"""Prompts by family; {question} is the text of the row. The family "structure" has two: "choice" and "structure"."""


class Reasoning(Indexed):
    """Rows with images, a question and its solution, with the prompt of their family.

    | file | keys |
    |---|---|
    | reinforcement learning | `id`, `image` (a path or a list), `problem`, `solution`; GeoMath also `answer` |
    | meta | `id`, `image`, `problem`, `cot`, `answer` |
    | supervised (ShareGPT) | `messages`, `image`: the assistant's turn is the target |

    The truth is the solution (else the answer) as text, without tags; a structure row is a choice if it is one of A to
    D. A question that itself asks for <answer> is not changed. Reading a row without an image or a solution raises
    DataError with its name.
    """

    def __init__(self, rows: UserData, family: Family, prompt: str = "", part: slice = slice(None)) -> None:
        """`prompt` replaces the prompt of the family; `part` selects rows, as in `rows[part]`."""
        self.rows, self.family, self.prompt, self.name = rows, family, prompt, rows.name
        self.part = range(*part.indices(len(rows)))

    def where(self, index: int) -> str:
        """File and row of a sample, for messages."""
        return self.rows.where(self.part[index])

    def __len__(self) -> int:
        return len(self.part)

    def sample(self, index: int) -> Sample:
        row = self.rows[self.part[index]]
        images = [p for p in row.prompt if p.modality == "image"]
        minimum = 2 if self.family == "transformation" else 1
        if len(images) < minimum:
            raise DataError(
                f"{row.uid}: wanted {minimum} image{'s' * (minimum > 1)} for task.family={self.family}, found "
                f"{len(images)}; correct the column `image`"
            )
        truth = row.meta.get("answer") if row.truth is None else row.truth
        if not isinstance(truth, str | int | float) or not _strip_tags(str(truth)):
            raise DataError(f"{row.uid}: wanted a solution as text or number, found {truth!r:.200}; add `solution`")
        truth = _strip_tags(str(truth))
        question = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        question_type = "choice" if self.family == "structure" and truth in ("A", "B", "C", "D") else self.family
        prompt = row.prompt
        if "<answer>" not in question:
            instruction = Part("text", (self.prompt or PROMPTS[question_type]).replace("{question}", question))
            prompt = (*(p for p in row.prompt if p.role == "system"), *images, instruction)
        return replace(row, prompt=prompt, truth=truth, meta={**row.meta, "family": self.family, "kind": question_type})


def _strip_tags(solution: str) -> str:
    """A solution without <answer> tags and surrounding white space."""
    tagged = re.search(r"<answer>(.*?)</answer>", solution, re.DOTALL)
    return (tagged[1] if tagged else solution).strip()
