"""Rows of visual reasoning sets in the formats of Reason-RFT: CLEVR-Math, Super-CLEVR, GeoMath, Geometry3K, TRANCE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from mmpost.data.readers.user_data import Own
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
"""What is asked, by family; {question} is the row's own text. Structure has two: one for choices, one for numbers."""


class Reasoning(Indexed):
    """Rows with pictures, a question and its solution, asked in the way of their family.

    | file | keys |
    |---|---|
    | training by reward | `id`, `image` (a path or a list), `problem`, `solution`; GeoMath also `answer` |
    | meta | `id`, `image`, `problem`, `cot`, `answer` |
    | supervised (ShareGPT) | `messages`, `image`: the assistant's turn is learnt as it stands |

    The truth is the solution (else the answer) as text, without tags; a structure row is a choice iff it is one of A
    to D. A question that asks for <answer> itself stays as it is. Raises DataError, naming the row, where a picture or
    the solution is missing.
    """

    def __init__(self, rows: Own, family: Family, prompt: str = "", part: slice = slice(None)) -> None:
        """`prompt` takes the place of the family's own; `part` of the rows are used, cut to what there is."""
        self.rows, self.family, self.prompt, self.name = rows, family, prompt, rows.name
        self.part = range(*part.indices(len(rows)))

    def where(self, index: int) -> str:
        """File and row of a sample, as its messages name them."""
        return self.rows.where(self.part[index])

    def __len__(self) -> int:
        return len(self.part)

    def sample(self, index: int) -> Sample:
        row = self.rows[self.part[index]]
        pictures = [p for p in row.prompt if p.modality == "image"]
        least = 2 if self.family == "transformation" else 1
        if len(pictures) < least:
            raise DataError(
                f"{row.uid}: wanted {least} picture{'s' * (least > 1)} for task.family={self.family}, found "
                f"{len(pictures)}; correct the column `image`"
            )
        truth = row.meta.get("answer") if row.truth is None else row.truth
        if not isinstance(truth, str | int | float) or not _bare(str(truth)):
            raise DataError(f"{row.uid}: wanted a solution as text or number, found {truth!r:.200}; add `solution`")
        truth = _bare(str(truth))
        said = "".join(p.value for p in row.prompt if p.modality == "text" and p.role == "user").strip()
        kind = "choice" if self.family == "structure" and truth in ("A", "B", "C", "D") else self.family
        prompt = row.prompt
        if "<answer>" not in said:
            asked = Part("text", (self.prompt or PROMPTS[kind]).replace("{question}", said))
            prompt = (*(p for p in row.prompt if p.role == "system"), *pictures, asked)
        return replace(row, prompt=prompt, truth=truth, meta={**row.meta, "family": self.family, "kind": kind})


def _bare(solution: str) -> str:
    """A solution without its tags and the white space around it."""
    found = re.search(r"<answer>(.*?)</answer>", solution, re.DOTALL)
    return (found[1] if found else solution).strip()
