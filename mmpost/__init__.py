"""mmpost: one post-training loop for multimodal models; encoders, rewards, objectives, selection and updates plug in.

The functions take what the command line takes, as nested arguments:

    summary = mmpost.train(task="visurf", optim={"lr": 1e-4}, out="runs/mine")
    scores = mmpost.evaluate(task="visurf", model="runs/mine")
    model = mmpost.load("runs/mine")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpost.types import Model

__all__ = ["evaluate", "load", "select", "train"]
__version__ = "0.1.0"


def train(*words: str | Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Train a task; returns the content of the run's summary.json."""
    from mmpost.runs import session

    return session.train([*words, settings])


def evaluate(*words: str | Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Evaluate a model on a task's test split; returns the content of eval.json."""
    from mmpost.runs import session

    return session.evaluate([*words, settings])


def load(model: str, **settings: Any) -> Model:
    """A model by name, folder, run or hub id, as `model=` takes it."""
    from mmpost.runs import session

    return session.load(model, **settings)


def select(*words: str | Mapping[str, Any], **settings: Any) -> dict[str, int]:
    """Measure a task's samples and write which to train on; returns how many there are, and how many are kept."""
    from mmpost.commands import select as select_data

    return select_data.select([*words, settings])
