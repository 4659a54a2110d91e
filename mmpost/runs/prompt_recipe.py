"""Detect changes to how prompts are built, between a checkpoint and now."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mmpost.runs import checkpoint

MAX_LENGTH = 60
"""Maximum length of stored field values, in characters; longer ones, such as chat templates, are stored as hashes."""


class Recipe(Protocol):
    """A dataclass of everything that determines how prompts become tokens."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def hash(self) -> str: ...


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as stored in a checkpoint: its hash, and the value (or the hash of a long value) of each field."""
    values = {name: json.dumps(value) for name, value in asdict(recipe).items()}
    fields = {
        name: value if len(value) <= MAX_LENGTH else hashlib.sha256(value.encode()).hexdigest()[:16]
        for name, value in values.items()
    }
    return {"recipe": recipe.hash, "recipe_fields": fields}


def changed(before: Mapping[str, Any], now: Recipe) -> list[str]:
    """The differences between the recipe in a checkpoint's state and `now`, as one phrase per field; empty if equal.

    Old checkpoints store only the hash; the only phrase is then about the whole recipe.
    """
    if before.get("recipe", now.hash) == now.hash:
        return []
    old, new = before.get("recipe_fields", {}), as_dict(now)["recipe_fields"]
    changes = [f"{name} (was {old[name]}, now {value})" for name, value in new.items() if old.get(name, value) != value]
    return changes or [f"the recipe as a whole (was {before['recipe']}, now {now.hash}; its fields were not recorded)"]


def warn(folder: str, now: Recipe) -> None:
    """Warn on stderr if prompts differ from those of the run that wrote the weights in `folder`."""
    state = Path(folder) / "trainer" / "state.json"
    changes = changed(checkpoint.read_state(Path(folder)), now) if state.is_file() else []
    if changes:
        print(
            f"mmpost: {folder} was trained with prompts built differently, in {'; '.join(changes)}: it may perform "
            "worse than in training. Remove model.system, model.min_pixels and model.max_pixels to restore its prompts",
            file=sys.stderr,
        )
