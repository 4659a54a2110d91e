"""Reason-RFT: thoughts are taught on few samples, then reinforced by what they lead to (arXiv 2503.20752)."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, cast

from pydantic import Field, model_validator

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.formats.reasoning import Family, Reasoning
from mmpost.data.readers.user_data import UserData, user_data
from mmpost.data.sources.mix import Mix
from mmpost.data.worlds.shapes.counting import Counting
from mmpost.data.worlds.shapes.figures import Figures
from mmpost.data.worlds.shapes.scenes import View
from mmpost.data.worlds.shapes.transformation import Transformation
from mmpost.rewards import calls
from mmpost.rewards.discrete import discrete_value
from mmpost.rewards.numeric import math_tolerance
from mmpost.rewards.text import answer, reasoning_steps, think_format
from mmpost.tasks.bases.shapes import by_kind, known
from mmpost.transforms.generate import answer_with_short_thought

Variant = Literal["paper", "released", "penalty"]

ACCURACY: Mapping[Family, Mapping[str, mp.Reward]] = {
    "counting": {"paper": discrete_value, "released": discrete_value},
    "structure": {"paper": math_tolerance, "released": discrete_value},
    "transformation": {
        "paper": calls.function_sequence,
        "released": calls.function_sequence_full,
        "penalty": calls.function_sequence_penalty,
    },
}
"""The reward for the answer, by family and variant: the released scripts differ from the paper in the last two."""

METRICS: Mapping[Family, Mapping[str, mp.Reward]] = {
    "counting": {"accuracy": discrete_value},
    "structure": {"accuracy": discrete_value, "near": math_tolerance},
    "transformation": {"accuracy": calls.function_sequence_metric, "full": calls.function_sequence_full},
}
"""What benches measure besides the format: "accuracy" is the benchmark's own measure."""

SHIFTS: Mapping[Family, tuple[str, ...]] = {
    "counting": ("shift",),
    "structure": ("shift",),
    "transformation": ("left", "right"),
}
"""Names of the benches in another domain: other shapes and colours, or another view after the edits."""


class ReasonRFT(mp.PolicyGradientTask):
    """Supervised thoughts, then GRPO; `sft_fraction=0` is RFT-Zero, `1` CoT-SFT, with `answer_only` ANS-SFT."""

    best_metric = "id/accuracy"

    family: Family = "counting"
    """What is asked: how many, a number in a figure, or the edits between two pictures."""
    reward: Variant = "paper"
    """paper: near numbers and near calls get credit; released: exact answers alone, as the published scripts train;
    penalty: near calls cost (transformation, an ablation)."""
    reasoning: float = Field(default=0.0, ge=0)
    """Weight of a reward for marks of steps in the reply; 0 leaves it out."""
    sft_fraction: float = Field(default=0.04, ge=0, le=1)
    """Share of the steps that are supervised learning."""
    cot: int = Field(default=1600, ge=0)
    """Samples that bring thoughts: those of the supervised stage."""
    cot_data: str = ""
    """Your file for the supervised stage (meta rows with `cot` and `answer`, or conversations); by default the first
    `cot` rows of data.train."""
    answer_only: bool = False
    """The supervised stage learns the bare answers, of all training samples."""
    reuse: bool | None = None
    """Reinforce on the samples of the supervised stage, too; by default as published: only for structure."""
    layout: str = "<think>\n{cot}\n</think>\n<answer>\n{answer}\n</answer>"
    """How thought and answer are written for the supervised stage."""
    prompt: str = ""
    """Instruction for your own data in place of the family's; {question} is replaced by the row's question."""
    shifted: dict[str, str] = {}
    """Your files in another domain, by the name of their bench; evaluated on test only."""
    sft_prompts_per_step: int = Field(default=16, ge=1)
    """Samples per step of the supervised stage."""
    problems: int = Field(default=3000, ge=1)
    """Built-in problems to train on, besides those with thoughts."""
    bench_problems: int = Field(default=256, ge=1)
    """Built-in problems of each bench."""

    @model_validator(mode="after")
    def _possible(self) -> "ReasonRFT":
        if self.reward not in ACCURACY[self.family]:
            raise ValueError(f"reward={self.reward} goes with family=transformation alone; choose paper or released")
        if not {"{cot}", "{answer}"} <= set(re.findall(r"\{\w+\}", self.layout)) or "<answer>" not in self.layout:
            raise ValueError(f"layout: wanted {{cot}}, then <answer> with {{answer}}, found {self.layout!r}")
        return self

    def stages(self) -> Iterator[mp.Stage]:
        # Also without a step: settings of a stage then stay settings of a stage.
        first, rest = self._sources()
        text = self.bare if self.answer_only else self.thoughtful
        yield mp.Stage(
            "sft",
            first,
            mp.Likelihood(),
            self.sft_prompts_per_step,
            (mp.ReplyFromTruth(text=text),),
            fraction=self.sft_fraction,
            gold=self.gold(),
        )
        rewards: dict[str, mp.Reward] = {"accuracy": ACCURACY[self.family][self.reward], "think_format": think_format}
        if self.reasoning:
            rewards["reasoning_steps"] = reasoning_steps
        score = mp.Score(rewards=rewards, weights={"reasoning_steps": self.reasoning})
        yield self.rl_stage("rl", rest, score, fraction=1 - self.sft_fraction, gold=self.gold())

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        rows = user_data(self.data, split, loss="last")
        sources: dict[str, mp.Source] = {}
        if rows is not None:
            sources["id"] = Reasoning(rows, self.family, self.prompt)
        else:
            sources["id"] = self._drawn(split, self.bench_problems, seed=5)
        if split == "test":
            sources |= self._shifted(split, builtin=rows is None)
        measures = {**METRICS[self.family], "think_format": think_format}
        benches = [self._bench(name, source, measures, percent) for name, source in sources.items()]
        if rows is None:
            old = known(split, self.bench_problems, seed=6)
            benches.append(self._bench("known", old, {"right": discrete_value}, by_kind))
        return benches

    def thoughtful(self, sample: mp.Sample) -> str | None:
        """The thought that the sample brings, and the answer; None where it brings none."""
        cot = sample.meta.get("cot")
        if cot:
            return self.layout.replace("{cot}", str(cot)).replace("{answer}", str(sample.truth))
        said = sample.replies[0].text if sample.replies else ""
        return said if answer(said) is not None else None

    def bare(self, sample: mp.Sample) -> str:
        """The answer alone, as the layout ends."""
        return self.layout[self.layout.index("<answer>") :].replace("{answer}", str(sample.truth))

    def gold(self) -> tuple[mp.Gold, ...]:
        """A right answer after a thought: one for the answer, one for the form."""
        earns = None if self.reasoning else 2.0
        return (
            mp.Gold(
                lambda s: self.thoughtful(s) or answer_with_short_thought(s),
                earns,
                is_parseable=lambda text: answer(text) is not None,
            ),
        )

    def _sources(self) -> tuple[mp.Source, mp.Source]:
        """What the supervised stage learns, and what is reinforced."""
        reuse = self.family == "structure" if self.reuse is None else self.reuse
        rows = user_data(self.data, "train", loss="last")
        taught: mp.Source
        if rows is None:
            taught, rest = self._drawn("train", self.cot, seed=1), self._drawn("train", self.problems, seed=0)
            everything: mp.Source = Mix([taught, rest]) if self.cot else rest
        else:
            read = partial(Reasoning, rows, self.family, self.prompt)
            everything = read()
            taught, rest = read(slice(self.cot)), read(slice(self.cot, None))
            if self.cot_data:
                found = _file(self.data, self.cot_data)
                taught, rest = Reasoning(found, self.family, self.prompt, slice(self.cot)), everything
        alone = not self.sft_fraction
        return everything if self.answer_only else taught, everything if reuse or alone else rest

    def _drawn(self, split: mp.Split, n: int, seed: int, shift: str = "") -> mp.Source:
        """Built-in problems of the family."""
        look = "shifted" if shift == "shift" else "plain"
        if self.family == "counting":
            return Counting(split, look=look, n=n, seed=seed)
        if self.family == "structure":
            return Figures(split, looks=(look,), n=n, seed=seed)
        return Transformation(split, view=cast(View, shift or "front"), n=n, seed=seed)

    def _shifted(self, split: mp.Split, builtin: bool) -> dict[str, mp.Source]:
        if self.shifted or not builtin:
            named = {name: _file(self.data, path) for name, path in self.shifted.items()}
            return {name: Reasoning(rows, self.family, self.prompt) for name, rows in named.items()}
        return {name: self._drawn(split, self.bench_problems, 5, name) for name in SHIFTS[self.family]}

    def _bench(
        self,
        name: str,
        source: mp.Source,
        measures: Mapping[str, mp.Reward],
        summary: Callable[[Sequence[mp.Sample]], Mapping[str, float]],
    ) -> mp.Bench:
        greedy = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        return mp.Bench(name, source, (mp.Generate(n=1, sampling=greedy), mp.Score(rewards=measures)), summary)


def _file(data: mp.DataSettings, path: str) -> UserData:
    """The rows of one more file, read with the settings of the others."""
    rows = user_data(data.model_copy(update={"train": path, "split": None}), "train", loss="last")
    if rows is None:
        raise mp.ConfigError(f"wanted a file of rows, found {path!r}; name one")
    return rows


def percent(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """The mean of each measure, in percent."""
    return mean_by((pair for sample in samples for reply in sample.replies for pair in reply.scores.items()), scale=100)
