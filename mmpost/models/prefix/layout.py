"""Where the prompts and replies of several groups lie in one stream without padding, and how models carry that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class PromptGroup:
    """One group in a stream: the prompt in columns `start` to `fork`, its replies one after the other up to `stop`."""

    start: int
    lengths: tuple[int, ...]
    """Of the prompt, then of each reply that has tokens here."""

    @property
    def fork(self) -> int:
        return self.start + self.lengths[0]

    @property
    def stop(self) -> int:
        return self.start + sum(self.lengths)

    @property
    def replies(self) -> tuple[int, ...]:
        return self.lengths[1:]

    @property
    def even(self) -> bool:
        """Whether all replies have the same length."""
        return len(set(self.replies)) <= 1

    def real(self, device: torch.device) -> Bool[Tensor, "reply longest"]:
        """Where a table of the replies, padded to the longest, holds a token."""
        return _real(self.replies, device)

    def table(self, device: torch.device) -> Int[Tensor, "reply longest"]:
        """Columns after `fork` of the tokens of each reply; the padding repeats the reply's last token."""
        return _table(self.replies, device)


@lru_cache(maxsize=256)
def _real(lengths: tuple[int, ...], device: torch.device) -> Bool[Tensor, "reply longest"]:
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


@lru_cache(maxsize=256)
def _table(lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, "reply longest"]:
    size = torch.tensor(lengths, device=device)
    inside = torch.minimum(torch.arange(max(lengths), device=device), size[:, None] - 1)
    return inside + (size.cumsum(0) - size)[:, None]


@dataclass(frozen=True)
class Layout:
    """The groups of a stream [prompt | reply | .. | reply | prompt | ..], by their lengths.

    A model hands its attention mask on as it is when it has four dimensions (transformers' documented way to bring an
    own mask). `tensor` has four, and holds the lengths: so the layout reaches the attention of every layer, is an
    argument of it that checkpointing keeps, and needs no place of its own in anybody's signature.
    """

    groups: tuple[tuple[int, ...], ...]
    """For each group the length of its prompt, then those of its replies; empty replies are left out."""

    @staticmethod
    def of(groups: Sequence[tuple[int, Sequence[int]]]) -> Layout:
        """From (prompt length, reply lengths) of each group."""
        return Layout(tuple((prompt, *(n for n in replies if n)) for prompt, replies in groups))

    @cached_property
    def runs(self) -> tuple[PromptGroup, ...]:
        return tuple(self._runs())

    def _runs(self) -> Iterator[PromptGroup]:
        start = 0
        for lengths in self.groups:
            yield PromptGroup(start, lengths)
            start += sum(lengths)

    def tensor(self) -> Int[Tensor, "1 1 1 _"]:
        """Stays on the CPU, so that no layer waits for a device to read it."""
        return torch.tensor([len(self.groups), *(n for g in self.groups for n in (len(g), *g))])[None, None, None]


def read(tensor: Int[Tensor, "1 1 1 _"]) -> Layout:
    """What `Layout.tensor` wrote."""
    return _read(tuple(tensor.flatten().tolist()))


@lru_cache(maxsize=64)
def _read(numbers: tuple[int, ...]) -> Layout:
    groups, at = [], 1
    for _ in range(numbers[0]):
        groups.append(numbers[at + 1 : at + 1 + numbers[at]])
        at += 1 + numbers[at]
    return Layout(tuple(groups))
