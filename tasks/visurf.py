"""ViSurf: GRPO for referring expressions with the ground truth as one more reply per group (arXiv 2510.10606)."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

import mmpost as mp
from mmpost.data.formats.grounding import Grounding
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.digits.scenes import Scenes, answer_text, listing_thought
from mmpost.rewards.box import (
    REWARDS,
    box_accuracy_inclusive,
    detection,
    detection_summary,
    max_reward,
    parse_answer,
)
from mmpost.tasks.bases.digits import boxes_with_short_thought


class ViSurf(mp.PolicyGradientTask):
    """Boxes and points for a question, with the truth added to the rollouts; `inject=false` is plain GRPO."""

    best_metric = "target/f1"

    target: tuple[str, ...] = ("last from the top",)
    """Question types of the synthetic scenes (data/worlds/digits/scenes.py) to train on."""
    old: tuple[str, ...] = ("single", "all", "leftmost", "top")
    """Question types that the base model has learned; only evaluated, to measure forgetting."""
    scenes: int = Field(default=512, ge=0)
    """Synthetic training scenes."""
    bench_scenes: int = Field(default=256, ge=0)
    """Synthetic scenes per bench."""
    prompt: str = "{question}"
    """Prompt for your own data; {question} is replaced by the row's question. What it asks for is up to you: of rows
    without points, ask for boxes only (config=visurf_boxes)."""
    inclusive_iou: bool = False
    """Take coordinates for pixel indices in the IoU of `box_accuracy`, as released: sides are one pixel longer."""
    inject: bool = True
    """Add the truth to each group of rollouts."""
    smooth: bool = True
    """Lower the truth's reward to the mean of the rollouts once one of them reaches it."""
    label: Literal["bare", "empty", "thought"] = "bare"
    """The truth as a reply: the answer alone, as annotators give it; after empty think tags; or after a thought, the
    row's column `cot`."""
    thought: str = ""
    """With label=thought: the thought of rows without `cot`; empty: such a row is an error."""
    listing: bool = False
    """With label=thought and synthetic scenes: the thought lists every digit, as the base `tiny-listing` thinks."""
    think_for_truth: bool = False
    """With label=thought: give the truth the reward for the thinking format too."""
    aligned: bool = True
    """Format the truth like the model's own answers; false: JSON without spaces."""
    measure_kl: bool = False
    """Measure how far the model has moved from its start on the target's prompts (bench `moved`, `KlFromStart`)."""
    sft_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps for SFT on the truth, before GRPO."""

    def stages(self) -> Iterator[mp.Stage]:
        source = self._source("train", self.target, self.scenes, seed=0)
        if self.sft_fraction:
            yield mp.Stage(
                "sft",
                source,
                mp.Likelihood(),
                self.prompts_per_step,
                (mp.ReplyFromTruth(text=self.truth),),
                fraction=self.sft_fraction,
                gold=self.gold(),
            )
        if self.sft_fraction < 1:
            score = mp.Score(
                rewards=self._rewards(REWARDS), zero_for_truth=() if self.think_for_truth else ("think_format",)
            )
            truth = self.truth if self.inject else None
            yield self.rl_stage("rl", source, score, truth, self.smooth, 1 - self.sft_fraction, self.gold())

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        scored = (mp.Generate(n=1, sampling=sampling), mp.Score(rewards=self._rewards(detection)))
        rows = user_data(self.data, split, loss="last")
        question_types = {"target": self.target} if rows else {"target": self.target, "old": self.old}
        sources = {name: self._source(split, t, self.bench_scenes, seed=5) for name, t in question_types.items()}
        known = {"old": "f1"}
        benches = [
            mp.Bench(name, source, scored, summary_by_type, known.get(name, "")) for name, source in sources.items()
        ]
        if self.measure_kl:
            kl = mp.KlFromStart(max_tokens=self.sampling.max_tokens)
            benches.append(mp.Bench("moved", sources["target"], (kl,), mean_kl))
        return benches

    @model_validator(mode="after")
    def _thought_to_reward(self) -> "ViSurf":
        if self.think_for_truth and self.label != "thought":
            raise ValueError("think_for_truth=true wants a label with a thought: set label=thought")
        return self

    def truth(self, sample: mp.Sample) -> str:
        """The label as a reply, in the model's frame and JSON style.

        Raises DataError with label=thought for a row without one.
        """
        listed = self.listing and "centers" in sample.meta
        thought = listing_thought(sample) if listed else str(sample.meta.get("cot") or self.thought)
        if self.label == "thought" and not thought:
            raise mp.DataError(
                f"{sample.label}: wanted a thought for label=thought, found none in the column `cot`; write one, or "
                "set task.thought for all"
            )
        thoughts = {"bare": None, "empty": "", "thought": thought}
        text = answer_text(sample.truth, sample.frame, thoughts[self.label])
        return text if self.aligned else text.replace(", ", ",").replace(": ", ":")

    def gold(self) -> tuple[mp.Gold, ...]:
        """The label, which by default gets no reward for thinking, and the same with a thought."""
        unpaid = 0.0 if self.think_for_truth else 1.0
        label = mp.Gold(self.truth, lambda s: max_reward(s) - unpaid, "label", origin="truth", is_parseable=readable)
        return label, mp.Gold(boxes_with_short_thought, max_reward, "label with a thought", is_parseable=readable)

    def _rewards(self, rewards: Mapping[str, mp.Reward]) -> Mapping[str, mp.Reward]:
        return {**rewards, "box_accuracy": box_accuracy_inclusive} if self.inclusive_iou else rewards

    def _source(self, split: mp.Split, question_types: tuple[str, ...], n: int, seed: int) -> mp.Source:
        rows = user_data(self.data, split, loss="last")
        return Scenes(split, question_types, n=n, seed=seed) if rows is None else Grounding(rows, self.prompt)


def readable(text: str) -> bool:
    """Whether boxes and points can be parsed from a reply."""
    return parse_answer(text) is not None


def summary_by_type(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """`detection_summary`, and the F1 of each question type if there are several, as f1_<type>."""
    by_type: dict[str, list[mp.Sample]] = {}
    for sample in samples:
        by_type.setdefault(str(sample.meta.get("kind", "")).replace(" ", "_"), []).append(sample)
    types = by_type if len(by_type) > 1 else {}
    return detection_summary(samples) | {f"f1_{name}": detection_summary(of)["f1"] for name, of in types.items()}


def mean_kl(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """The mean of `KlFromStart` over replies, in nats."""
    return {"kl": fmean(reply.scores["kl"] for sample in samples for reply in sample.replies)}
