"""Where prompts and replies lie in a packed stream, and how that information reaches the attention layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class PromptGroup:
    """One group in a stream: the prompt in columns `start` to `fork`, its replies one after the other up to `stop`."""

    start: int
    lengths: tuple[int, ...]
    """Tokens of the prompt, then of each reply that is not empty."""

    @property
    def fork(self) -> int:
        """The column after the prompt, where the first reply starts."""
        return self.start + self.lengths[0]

    @property
    def stop(self) -> int:
        return self.start + sum(self.lengths)

    @property
    def reply_lengths(self) -> tuple[int, ...]:
        return self.lengths[1:]

    @property
    def equal_lengths(self) -> bool:
        """Whether all replies have the same length, so that a reshape separates them."""
        return len(set(self.reply_lengths)) <= 1

    def token_mask(self, device: torch.device) -> Bool[Tensor, "reply longest"]:
        """True at the tokens, False at the padding, of the replies as right-padded rows."""
        return _token_mask(self.reply_lengths, device)

    def token_index(self, device: torch.device) -> Int[Tensor, "reply longest"]:
        """The columns, counted from `fork`, of the replies as rows; padding repeats a reply's last token."""
        return _token_index(self.reply_lengths, device)


# Cached, since every layer of a forward asks for the same lengths.


@lru_cache(maxsize=256)
def _token_mask(lengths: tuple[int, ...], device: torch.device) -> Bool[Tensor, "reply longest"]:
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


@lru_cache(maxsize=256)
def _token_index(lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, "reply longest"]:
    size = torch.tensor(lengths, device=device)
    offset = torch.minimum(torch.arange(max(lengths), device=device), size[:, None] - 1)
    return offset + (size.cumsum(0) - size)[:, None]


@dataclass(frozen=True)
class Layout:
    """The groups of a packed stream [prompt | reply | .. | reply | prompt | ..], by their lengths.

    transformers passes a 4-D attention mask on to every layer unchanged; this is its documented way to bring a custom
    mask. `to_mask` writes the lengths into a 4-D tensor, so that the layout reaches every layer without a change to
    any model's signature, and gradient checkpointing keeps it as an argument of the layer.
    """

    groups: tuple[tuple[int, ...], ...]
    """For each group the length of its prompt, then those of its replies that are not empty."""

    @staticmethod
    def from_lengths(groups: Sequence[tuple[int, Sequence[int]]]) -> Layout:
        """From (prompt length, reply lengths) of each group."""
        return Layout(tuple((prompt, *(n for n in replies if n)) for prompt, replies in groups))

    @staticmethod
    def from_mask(mask: Int[Tensor, "1 1 1 _"]) -> Layout:
        """The layout that `to_mask` wrote."""
        return _decode(tuple(mask.flatten().tolist()))

    def to_mask(self) -> Int[Tensor, "1 1 1 _"]:
        """[number of groups, then for each group the number of its lengths and the lengths].

        Stays on the CPU, where attention reads it, so that no layer waits for a GPU.
        """
        return torch.tensor([len(self.groups), *(n for g in self.groups for n in (len(g), *g))])[None, None, None]

    @cached_property
    def prompt_groups(self) -> tuple[PromptGroup, ...]:
        """The groups with the columns where they start."""
        starts = accumulate((sum(group) for group in self.groups[:-1]), initial=0)
        return tuple(PromptGroup(start, lengths) for start, lengths in zip(starts, self.groups, strict=True))


@lru_cache(maxsize=64)
def _decode(numbers: tuple[int, ...]) -> Layout:
    groups, at = [], 1
    for _ in range(numbers[0]):
        groups.append(numbers[at + 1 : at + 1 + numbers[at]])
        at += 1 + numbers[at]
    return Layout(tuple(groups))
