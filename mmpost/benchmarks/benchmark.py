"""What a benchmark is: official files, how replies are scored, and how scores become numbers.

A benchmark is a module of `mmpost.tasks.benches` with a `BENCHMARK`. Every reply is scored twice: by the rule of the
official script, bug for bug, whose numbers may be compared with published ones; and strictly, without free credit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from mmpost.benchmarks.files import Row
from mmpost.config import registry
from mmpost.errors import ConfigError, DataError
from mmpost.types import Reply, Sample, Source

PACKAGE = f"mmpost.tasks.{registry.BENCHES}"
"""Where benchmarks are found; installed packages add theirs by entry points of this group."""
Numbers = Float[np.ndarray, " *replicate"]


@dataclass(frozen=True)
class Rule:
    """How a reply is scored: what is read from it, and what that earns. As it is called, it is a reward."""

    read: Callable[[Sample, str], Any]
    """What is understood of a reply; None if it cannot be parsed."""
    score: Callable[[Sample, Any], float]
    """What a reading earns, 0 to 1; an official rule may go below 0."""
    read_all: Callable[[Sequence[tuple[Sample, str]]], list[Any]] | None = None
    """Reads all replies of an evaluation in the order of the data, where the official script lets one depend on those
    before it; None: each on its own, by `read`."""
    missing: Literal["wrong", "left out"] = "wrong"
    """What becomes of a question without a prediction."""
    unread: Literal["wrong", "left out"] = "wrong"
    """What becomes of a reply from which nothing is read."""

    def readings(self, replies: Sequence[tuple[Sample, str]]) -> list[Any]:
        """What is read from each reply, in the order of the data."""
        if self.read_all is not None:
            return self.read_all(replies)
        return [self.read(sample, text) for sample, text in replies]

    def scored(self, sample: Sample, reading: Any) -> float | None:
        """What a reading earns; None where the rule leaves its question out."""
        return None if reading is None and self.unread == "left out" else self.score(sample, reading)

    def __call__(self, sample: Sample, reply: Reply) -> float:
        return self.score(sample, self.read(sample, reply.text))


class Scored(NamedTuple):
    """A reply by one rule."""

    sample: Sample
    reply: str
    reading: Any
    score: float


class Metric(NamedTuple):
    """A metric on the whole evaluation and on every resample of it."""

    value: Numbers
    n: Numbers
    """The number of questions behind it."""
    is_share: bool = False
    """Whether each question counts 0 or 1 in it, and all alike."""


class Summary(Protocol):
    """How scores become metrics, by way of sums: clusters can be drawn again, and shards add up."""

    def count(self, cluster: Sequence[Scored]) -> Mapping[str, float]:
        """What the questions of one cluster contribute to each sum."""
        ...

    def metrics(self, sums: Mapping[str, Numbers]) -> dict[str, Metric]:
        """The metrics of these sums, the most important one first; sums that nothing contributed to are absent."""
        ...


class HubFiles(NamedTuple):
    """Where a data hub has official files."""

    repo: str
    """owner/name of the dataset."""
    folder: str = ""
    """The folder in it where the files are."""
    revision: str = ""
    """"": the newest at the first fetch, which is kept."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark with its official files."""

    files: tuple[str, ...]
    """Names of the official files of questions, in the benchmark's folder."""
    rows: Callable[[Sequence[Path]], Source]
    """Reads them: samples with prompt and truth. Media are opened when they are needed."""
    official: Rule
    strict: Rule
    summary: Summary
    paper: str
    """arXiv id, or address."""
    license: str
    """Of the questions."""
    source: str
    """Where the official files are from, and where their media lie."""
    reading: str
    """What the official rule reads from a reply, in words."""
    metrics: str
    """The metrics, in words."""
    hub: HubFiles | None = None
    """The hub that has them with their media (`data.benches=hub`); None: none has, in this form."""
    versions: tuple[tuple[str, ...], ...] = ()
    """Official files of other versions, languages or settings in the same form, one set of which may be there in place
    of `files`."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of known releases of all files together (`content_hash`), and what they are called."""
    by_key: Mapping[str, Rule] = field(default_factory=dict)
    """Official rules for what files of predictions hold under certain keys in place of replies, such as answers that a
    language model has extracted."""
    cluster: Callable[[Sample], str] = lambda sample: sample.uid
    """What belongs together: questions about one picture or video, or the turned copies of one question."""
    row_id: Callable[[Mapping[str, Any]], str] | None = None
    """The id of a question in a row of predictions in the official form, where it is not in one key."""
    uid_in: Callable[[Path, str], str] = lambda path, uid: uid
    """The id of a question whose id in a file of predictions is this one, where each split has a file and ids of its
    own."""
    coordinates: bool = False
    """Whether replies have places in pictures. They are read in the frame in which the model writes coordinates
    (`Sample.frame`), where that is known, and compared with a truth as in `rewards.box`."""
    row_reply: Callable[[Row], str] | None = None
    """The reply in a row of predictions in the official form, as a text, where it is none that a model has written:
    what a detector found in a picture, say. Such replies can be scored, not sampled."""
    max_tokens: int = 1024
    """Tokens of a reply, at most, unless the user sets another limit."""
    quirks: tuple[str, ...] = ()
    """What is odd about the official rule; each is shown by a test."""

    def paths(self, folder: Path, name: str) -> list[Path]:
        """The official files, of one version, in `folder/name` or in `folder` itself. Raises DataError with what is
        missing, and where files of two versions lie together."""
        versions, places = (self.files, *self.versions), [folder / name, folder]
        begun = [(p, files) for p in places for files in versions if any((p / file).exists() for file in files)]
        place, files = begun[0] if begun else (places[0], self.files)
        others = [other for other_place, other in begun if other_place == place and other != files]
        if others:
            raise DataError(
                f"bench={name}: wanted files of one version in {place}, found some of {files[0]} and of "
                f"{others[0][0]}; move those of one elsewhere"
            )
        missing = [file for file in files if not (place / file).exists()]
        if missing:
            names = " or ".join([missing[0], *(other[0] for other in versions if other != files and not begun)])
            raise DataError(
                f"bench={name}: wanted its official file {names} in {place}, found none; get it from "
                f"{self.source} ({self.license}), or set data.benches=FOLDER"
            )
        return [place / file for file in files]

    def release(self, paths: Sequence[Path]) -> str:
        """The name of the release that these files are, or that it is none of the known ones."""
        digest = content_hash(paths)
        return self.hashes.get(digest, f"unverified, sha256 {digest[:16]}")


def content_hash(paths: Sequence[Path]) -> str:
    """SHA-256 of the contents of files, one after the other."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name, or in a file of the user. Raises ConfigError if it is none."""
    module = registry.module(name, PACKAGE)
    found = getattr(module, "BENCHMARK", None)
    if not isinstance(found, Benchmark):
        raise ConfigError(f"bench={name}: wanted a module with a Benchmark called BENCHMARK, found {found!r}")
    return found
