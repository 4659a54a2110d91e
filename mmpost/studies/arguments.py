"""The command line of `mmpost compare` and `mmpost continual`: options of the command, and settings of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpost.config import parsing, run_config
from mmpost.errors import ConfigError
from mmpost.studies.study import PILOT_SEED

OPTIONS = ("study", "arms", "seeds", "first_seed", "pilot", "tune_seeds", "out", "jobs", "launch", "keep")
"""Options of both commands."""


@dataclass(frozen=True)
class StudyArguments:
    """Parsed `key=value` arguments."""

    options: Mapping[str, str]
    settings: Mapping[str, Any]
    """All other arguments: settings of every run of the study."""

    @classmethod
    def parse(cls, arguments: Sequence[str], *more_options: str) -> StudyArguments:
        """Separate the options (OPTIONS and `more_options`) from the settings."""
        options: dict[str, str] = {}
        settings: dict[str, Any] = {}
        for argument in arguments:
            key, separator, value = argument.partition("=")
            if separator and key in (*OPTIONS, *more_options):
                options[key] = value
            else:
                settings = run_config.merge(settings, parsing.parse_argument(argument))
        return cls(options, settings)

    def get(self, option: str) -> str:
        """The option's text; empty if not given."""
        return self.options.get(option, "")

    def names(self, option: str) -> list[str] | None:
        """The names in a comma-separated option; None if not given."""
        return [name for name in self.options[option].split(",") if name] if option in self.options else None

    def count(self, option: str, default: int) -> int:
        """The option as a positive integer. Raises ConfigError for any other text."""
        text = self.options.get(option, str(default))
        if not text.isdigit() or not int(text):
            raise ConfigError(f"{option}={text}: wanted a positive integer")
        return int(text)

    @property
    def pilot(self) -> bool:
        """Whether to design the study on seeds and bases that no confirming run uses. Raises ConfigError for neither
        true nor false."""
        if self.options.get("pilot", "false") not in ("true", "false"):
            raise ConfigError(f"pilot={self.options['pilot']}: wanted true or false")
        return self.get("pilot") == "true"

    def seeds(self, default: int) -> list[int]:
        """The seeds of the runs, from `first_seed` on or, of a pilot, from 100 on."""
        text = self.options.get("first_seed", "0")
        if not text.isdigit() or int(text) + self.count("seeds", default) > PILOT_SEED:
            raise ConfigError(f"first_seed={text}: wanted seeds from 0 to {PILOT_SEED - 1}; the others are of pilots")
        first = PILOT_SEED if self.pilot else int(text)
        return list(range(first, first + self.count("seeds", default)))

    def folder(self, command: str, name: str) -> Path:
        """The study's output folder: `out`, by default runs/<command>/<name>."""
        return Path(self.get("out") or f"runs/{command}/{Path(name).stem}")
