"""Whether prompts are made as they were when a checkpoint was written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

SHORT = 60
"""Characters of a value that is kept as it is; of a longer one (a template) its hash is."""


class Recipe(Protocol):
    """A dataclass of all that decides how prompts become tokens."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def hash(self) -> str: ...


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint keeps of a recipe: its hash, and each field, short or as a hash."""
    fields = {name: _short(json.dumps(value)) for name, value in asdict(recipe).items()}
    return {"recipe": recipe.hash, "recipe_fields": fields}


def changed(before: Mapping[str, Any], now: Recipe) -> list[str]:
    """What differs between the recipe that the state of a checkpoint describes and `now`, a phrase for each field.

    A checkpoint that kept the hash alone cannot say which.
    """
    if before.get("recipe", now.hash) == now.hash:
        return []
    old, new = before.get("recipe_fields", {}), as_dict(now)["recipe_fields"]
    told = [f"{name} (was {old[name]}, now {value})" for name, value in new.items() if old.get(name, value) != value]
    return told or [f"the recipe as a whole (was {before['recipe']}, now {now.hash}; its parts are not on record)"]


def warn(folder: str, now: Recipe) -> None:
    """Say on stderr how prompts differ from those of the run that wrote the weights in `folder`, if a run did."""
    state = Path(folder) / "trainer" / "state.json"
    other = changed(json.loads(state.read_text()), now) if state.is_file() else []
    if other:
        print(
            f"mmpost: {folder} was trained with prompts made otherwise, in {'; '.join(other)}: what it has learnt may "
            "not show. Leave model.system, model.min_pixels and model.max_pixels out to have them as they were",
            file=sys.stderr,
        )


def _short(text: str) -> str:
    return text if len(text) <= SHORT else hashlib.sha256(text.encode()).hexdigest()[:16]
