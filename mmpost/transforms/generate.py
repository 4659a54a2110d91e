"""Where replies come from: sampled from the policy, given with the data, or written from the ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, cast

from mmpost.config.settings import Settings
from mmpost.core.columns import with_columns
from mmpost.errors import DataError
from mmpost.types import Context, Part, Reply, Sample, Sampling, Transform


class Generate(Transform, Settings):
    """Append n sampled replies to each sample; logs their length in tokens and the fraction that was truncated."""

    makes: ClassVar[tuple[str, ...]] = ("behaviour_logp", "temperature", "truncated")
    timer: ClassVar[str] = "rollout"

    n: int
    """Replies per prompt."""
    sampling: Sampling
    """Sampling parameters."""

    def max_reply_tokens(self) -> int:
        return self.sampling.max_tokens

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        samples = context.generate(samples, self.n, self.sampling)
        for reply in (r for s in samples for r in s.replies[-self.n :]):
            assert reply.token_ids is not None
            context.log("reply/length", len(reply.token_ids))
            context.log("reply/truncated", float(reply.columns["truncated"]))  # type: ignore[arg-type]
        return samples


def greedy(max_tokens: int) -> Generate:
    """Greedy decoding of one reply per sample with at most `max_tokens` tokens: what benches usually evaluate."""
    return Generate(n=1, sampling=Sampling(max_tokens=max_tokens, temperature=0))


class EncodeReplies(Transform, Settings):
    """Tokenize the replies that come with the data, as assistant turns in the model's own format.

    Of preference data, only the preferred replies are kept (column `label` not negative). Raises DataError for a
    sample without a reply to learn from.
    """

    or_truth: bool = False
    """Learn the truth of a sample without replies, if it is text."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            preferred = [r for r in sample.replies if float(cast(float, r.columns.get("label", 1.0))) >= 0]
            if self.or_truth and not sample.replies and isinstance(sample.truth, str):
                preferred = [Reply((Part("text", sample.truth, "assistant"),))]
            if not preferred:
                raise DataError(
                    f"{sample.label}: wanted a reply to learn from, found only a prompt; give the row an assistant "
                    "turn (or `response`), or choose a task that samples its replies"
                )
            out.append(replace(sample, replies=tuple(with_token_ids(r, context) for r in preferred)))
        return out


class DropReplies(Transform, Settings):
    """Drop the replies that come with the data, so that groups consist of rollouts only."""

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        return [replace(s, replies=()) for s in samples]


class ReplyFromTruth(Transform, Settings):
    """Replace each sample's replies by one written from its truth; samples without usable truth are dropped.

    Logs the fraction of dropped samples as "truth/missing".
    """

    text: Callable[[Sample], str | None]
    """Writes the reply to learn; None where the sample has no usable truth."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            text = self.text(sample)
            context.log("truth/missing", float(text is None))
            if text is not None:
                out.append(replace(sample, replies=(context.encode_reply(text, "data"),)))
        return out


def answer_with_short_thought(sample: Sample) -> str:
    """The truth in answer tags, after a minimal thought: the simplest reply that satisfies `think_format`."""
    return f"<think>look</think><answer>{sample.truth}</answer>"


def with_token_ids(reply: Reply, context: Context) -> Reply:
    """The reply, tokenized by the model unless it has token ids already."""
    if reply.token_ids is not None:
        return reply
    return replace(reply, token_ids=context.encode_reply(reply.text, reply.origin).token_ids)


class InjectTruth(Transform, Settings):
    """Append the ground truth of each sample as a reply of origin "truth".

    Samples without usable truth get none. Writes "injected" (1 for the truth, 0 for rollouts) on every reply. The truth
    is never truncated, and its log-probs are computed at the temperature of the rollouts. Since it was not sampled, it
    has no behaviour_logp: the transform that computes old_logp copies it there (OldLogprobs).
    """

    makes: ClassVar[tuple[str, ...]] = ("injected", "truncated", "temperature")

    text: Callable[[Sample], str | None]
    """Writes the truth in the format that the prompt asks for (tags, separators and key order as in its example), since
    every deviation is imitated, too; None where the sample has no usable truth."""

    def gold_text(self) -> Callable[[Sample], str | None]:
        return self.text

    def __call__(self, samples: list[Sample], context: Context) -> list[Sample]:
        out = []
        for sample in samples:
            replies = tuple(with_columns(reply, injected=0.0) for reply in sample.replies)
            text = self.text(sample)
            context.log("truth/injected", float(text is not None))
            if text is not None:
                truth = with_columns(context.encode_reply(text, "truth"), injected=1.0, truncated=0.0)
                if replies and "temperature" in replies[0].columns:
                    truth = with_columns(truth, temperature=replies[0].columns["temperature"])
                replies = (*replies, truth)
            out.append(replace(sample, replies=replies))
        return out
