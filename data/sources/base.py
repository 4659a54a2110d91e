"""Base classes of data sources: checked indexing, wrappers, subsets and generated (synthetic) data."""

from __future__ import annotations

import operator
import random
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, overload

from mmpost.errors import ConfigError
from mmpost.types import Sample, Source, Split


class Indexed(Sequence[Sample]):
    """A source that builds each sample on demand; subclasses implement `__len__` and `sample`.

    Negative indices and slices work as in a list; an index out of range raises IndexError.
    """

    name: str | None = None
    """How messages refer to the source."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Return the sample at `index`, with 0 <= index < len(self)."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.sample(i) for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        position = position + len(self) if position < 0 else position
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}" + (f" in {self.name}" if self.name else ""))
        return self.sample(position)


class Generated(Indexed):
    """`n` synthetic samples, where sample i depends only on the constructor's arguments and i.

    Subclasses implement `generate` and take all randomness from `rng(index)`, so that samples can be generated in any
    order, by any process, with the same result. Raises ConfigError for an unknown split.
    """

    uid_prefix: str = ""
    """First part of every uid. Together with `seed_prefix` it identifies the data: never change either."""
    seed_prefix: str = ""
    """First word of the string that seeds `rng`."""
    cache_size: ClassVar[int] = 0
    """How many generated samples stay in memory, so that further epochs do not render them again."""

    def __init__(self, split: Split, n: int, seed: int) -> None:
        if split not in ("train", "val", "test"):
            raise ConfigError(f"split must be train, val or test; found {split!r}; choose one of them.")
        self.split: Split = split
        self.n, self.seed = n, seed
        self._cache: dict[int, Sample] = {}

    @abstractmethod
    def generate(self, index: int) -> Sample:
        """Generate sample `index`; `sample` adds the cache."""

    def __len__(self) -> int:
        return self.n

    def rng(self, index: int, stream: str = "") -> random.Random:
        """Return a new random generator for sample `index`.

        `stream` replaces `seed_prefix`; generators of different streams are independent.
        """
        # Seeded by a string, not by hash((...)): strings give the same numbers in every process.
        prefix = stream or self.seed_prefix
        return random.Random(f"{prefix} " * bool(prefix) + f"{self.split} {self.seed} {index}")

    def uid(self, index: int) -> str:
        """The unique name of sample `index`."""
        return f"{self.uid_prefix}-" * bool(self.uid_prefix) + f"{self.split}-{self.seed}-{index}"

    def sample(self, index: int) -> Sample:
        sample = self._cache.get(index) or self.generate(index)
        if len(self._cache) < self.cache_size:
            self._cache[index] = sample
        return sample


class GeneratedQuestions(Generated):
    """Synthetic questions whose types alternate: sample i has type `question_types[i % len(question_types)]`.

    Repeat a type in `question_types` to generate it more often. Raises ConfigError for a type that is not in `known`.
    """

    def __init__(
        self, split: Split, n: int, seed: int, question_types: Sequence[str], known: Iterable[str] = ()
    ) -> None:
        super().__init__(split, n, seed)
        check_names("question_types", question_types, known)
        self.question_types = tuple(question_types)

    def question_type(self, index: int) -> str:
        """The type of question `index`, without generating the sample."""
        return self.question_types[index % len(self.question_types)]


def check_names(option: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raise ConfigError unless `names` holds at least one name and all of them are in `known`."""
    known = tuple(known)
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise ConfigError(
            f"{option} must be some of {', '.join(known)}; found {', '.join(unknown) or 'none'}; name only those."
        )


class Wrapped(Indexed):
    """The samples of another source, index by index; subclasses change them in `sample`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def where(self, index: int) -> str:
        """The location of a sample for messages, such as file and row."""
        where = getattr(self.source, "where", None)
        return where(index) if where else f"sample {index}"


class Subset(Wrapped):
    """Selected samples of a source, in the order of `indices` (positions in that source)."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source)
        self.indices = array("q", indices)
        self.name = f"a part of {getattr(source, 'name', None) or type(source).__name__}"

    def __len__(self) -> int:
        return len(self.indices)

    def where(self, index: int) -> str:
        return super().where(self.indices[index])

    def medium(self, index: int, value: Any, modality: str) -> Any:
        """Resolve a medium that a row names in a non-standard column, as the wrapped source would."""
        return self.source.medium(self.indices[index], value, modality)  # type: ignore[attr-defined]

    def sample(self, index: int) -> Sample:
        return self.source[self.indices[index]]
