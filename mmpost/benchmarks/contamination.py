"""Which questions of benchmarks are in training data: by their media, and by 13 words in a row.

Training samples are read one at a time; only what the benchmarks hold is kept in memory. Runs of words are compared as
in GPT-3's analysis (Brown et al. 2020, arXiv 2005.14165, appendix C), without markup, punctuation and case.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError

from mmpost.benchmarks.benchmark import Benchmark
from mmpost.data.media.media import Media, media
from mmpost.data.media.perceptual_hash import ALIKE, Hash, differing_bits, perceptual_hash
from mmpost.errors import DataError
from mmpost.types import Sample

WORDS = 13
"""Words in a row that a training text and a question must share."""
OWN = 7
"""How many different words of such a run must be the question's own, so that neither an instruction nor a row of zeros
in a table is a finding."""
PHRASE, COMMON = 5, 10
"""So many words in a row that more than `COMMON` clusters of questions have are the benchmark's, no question's own."""
KEPT = 3
"""Training rows named for each question and kind of finding."""

Kind = Literal["file", "look", "text"]
"""The same content of a medium; a picture that looks the same; words."""
KINDS: tuple[Kind, ...] = ("file", "look", "text")

# A CJK character is a word: these scripts do not separate words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_TAG = re.compile(r"<[^<>]*>")


class Finding(BaseModel):
    """A training row that has something of a question."""

    kind: Kind
    row: str
    """File and row of the training sample."""
    what: str
    """The medium in the training data, or the words."""


class Findings(BaseModel):
    """What was found of one benchmark."""

    release: str
    questions: int
    only_media: int
    """Questions without `WORDS` words that are enough their own: only their media are compared."""
    found: dict[str, list[Finding]]
    """By the id of the question."""


class FindingsFile(BaseModel):
    """What `mmpost check bench=` writes."""

    train: list[str]
    samples: int
    """Training samples that were read."""
    benches: dict[str, Findings]


def read_findings(path: Path, bench: str, release: str) -> Findings:
    """The findings of a benchmark in a file. Raises DataError for none, or those of another release."""
    try:
        written = FindingsFile.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as e:
        raise DataError(f"{path}: wanted what mmpost check bench={bench} out=FILE writes, found none ({e})") from e
    found = written.benches.get(bench)
    if found is None:
        raise DataError(f"{path}: wanted findings of {bench}, found those of {', '.join(written.benches)}; check it")
    if found.release != release:
        raise DataError(f"{path}: wanted findings of {bench} in {release}, found those of {found.release}; check again")
    return found


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without markup and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", _TAG.sub(" ", text)).casefold())


def runs(words: Sequence[str], length: int = WORDS) -> list[str]:
    """Every run of so many words, joined by blanks; the first begins at the first word."""
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


def text_of(sample: Sample) -> str:
    """All that a sample says: prompt, replies and the texts of its truth."""
    parts = [*sample.prompt, *(part for reply in sample.replies for part in reply.parts)]
    return " ".join([*(part.value for part in parts if part.modality == "text"), *_strings(sample.truth)])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(each)


def media_of(sample: Sample) -> list[Media]:
    """All media of a sample, in prompt and replies."""
    parts = [*sample.prompt, *(part for reply in sample.replies for part in reply.parts)]
    return [media(part.value, part.modality) for part in parts if part.modality != "text"]


class Question(NamedTuple):
    """A question of a benchmark."""

    bench: str
    uid: str


class Index:
    """What the questions of benchmarks hold, to look up training samples in."""

    def __init__(self, with_media: bool = True) -> None:
        self.with_media = with_media
        """Whether media are compared, and not words alone."""
        self.only_media: dict[str, int] = {}
        self._runs: dict[str, list[Question]] = defaultdict(list)
        self._files: dict[str, list[Question]] = defaultdict(list)
        self._looks: list[np.ndarray] = []
        self._looks_of: list[list[Question]] = []

    def add(self, name: str, benchmark: Benchmark, samples: Sequence[Sample]) -> None:
        """Add a benchmark's questions. Raises DataError for a medium that cannot be read."""
        words = [words_of(text_of(sample)) for sample in samples]
        phrases: dict[str, set[str]] = defaultdict(set)
        for sample, said in zip(samples, words, strict=True):
            for phrase in runs(said, PHRASE):
                if len(phrases[phrase]) <= COMMON:
                    phrases[phrase].add(benchmark.cluster(sample))
        common = {phrase for phrase, clusters in phrases.items() if len(clusters) > COMMON}
        self.only_media[name] = 0
        for sample, said in zip(samples, words, strict=True):
            own = _own_runs(said, common)
            self.only_media[name] += not own
            for run in own:
                self._runs[run].append(Question(name, sample.uid))
        for sample in samples if self.with_media else ():
            with _named(sample):
                for medium in media_of(sample):
                    same = self._files[medium.hash]
                    if not same and (look := _look(medium)) is not None:
                        self._looks.append(look)
                        self._looks_of.append(same)
                    same.append(Question(name, sample.uid))

    def search(self, samples: Iterable[Sample]) -> dict[Question, list[Finding]]:
        """The questions that training samples have something of, with `KEPT` of these at most for each kind.

        Raises DataError, with file and row, for a medium that cannot be read.
        """
        found: dict[Question, list[Finding]] = defaultdict(list)
        looks = np.stack(self._looks) if self._looks else np.empty((0, 4), np.uint64)
        for sample in samples:
            row = sample.where or sample.uid
            shared: dict[tuple[Question, Kind], str] = {
                (question, kind): what for kind, what, of in self._shared(sample, looks) for question in of
            }
            for (question, kind), what in shared.items():
                if sum(each.kind == kind for each in found[question]) < KEPT:
                    found[question].append(Finding(kind=kind, row=row, what=what))
        return dict(found)

    def _shared(self, sample: Sample, looks: np.ndarray) -> Iterator[tuple[Kind, str, Sequence[Question]]]:
        """What a training sample has of questions, and of which."""
        for run in runs(words_of(text_of(sample))):
            if run in self._runs:
                yield "text", run, self._runs[run]
        if not self._files:
            return
        with _named(sample):
            for medium in media_of(sample):
                if medium.hash in self._files:
                    yield "file", medium.name, self._files[medium.hash]
                elif len(looks) and (look := _look(medium)) is not None:
                    near = np.flatnonzero(differing_bits(look, looks) <= ALIKE)
                    yield "look", medium.name, [question for index in near for question in self._looks_of[index]]


def _own_runs(words: Sequence[str], common: Container[str]) -> set[str]:
    """The runs of a question in which enough words belong to no common phrase."""
    own = list(words)
    for start, phrase in enumerate(runs(words, PHRASE)):
        if phrase in common:
            own[start : start + PHRASE] = [""] * PHRASE
    return {
        run
        for start, run in enumerate(runs(words))
        if len({word for word in own[start : start + WORDS] if word}) >= OWN
    }


def _look(medium: Media) -> Hash | None:
    return perceptual_hash(medium.open()) if medium.modality == "image" else None


@contextmanager
def _named(sample: Sample) -> Iterator[None]:
    """Adds file and row of a sample, and what to do, to the message about an unreadable medium."""
    try:
        yield
    except DataError as e:
        raise DataError(f"{sample.label}: {e} To compare texts alone, add media=false.") from e
