"""The base of everything a user can configure, and the one section that tasks share."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A typed section of the configuration: unknown keys are refused, values decode laxly, fields are frozen.

    The string below a field is its documentation; the command line and the error messages show it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )


class DataSettings(Settings):
    """The user's own data; a task uses its built-in data for each split that is empty."""

    train: str | None = None
    """A file (.jsonl, .json, .parquet) or a folder of `datasets` to train on."""
    val: str | None = None
    """Chooses the best checkpoint; evaluated during training."""
    test: str | None = None
    """Evaluated before and after training, and by `mmpost eval`."""
    root: str | None = None
    """Folder that relative media paths start from; by default the folder of the data file."""
    loss: Literal["all", "last"] = "all"
    """Rows with several assistant turns: learn all of them, or the last."""
