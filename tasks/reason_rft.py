"""Reason-RFT: SFT on a few chains of thought, then GRPO with outcome rewards (arXiv 2503.20752)."""

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
from mmpost.rewards.text import answer, reasoning_steps, think_format, thinks
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
"""The accuracy reward by family and variant; the released scripts differ from the paper for the last two families."""

METRICS: Mapping[Family, Mapping[str, mp.Reward]] = {
    "counting": {"accuracy": discrete_value},
    "structure": {"accuracy": discrete_value, "near": math_tolerance},
    "transformation": {"accuracy": calls.function_sequence_metric, "full": calls.function_sequence_full},
}
"""Metrics of the benches besides the format; "accuracy" is that of the benchmark."""

SHIFTS: Mapping[Family, tuple[str, ...]] = {
    "counting": ("shift",),
    "structure": ("shift",),
    "transformation": ("left", "right"),
}
"""Out-of-domain benches of the synthetic data: other shapes and colors, or another view after the edits."""


class ReasonRFT(mp.PolicyGradientTask):
    """SFT on chains of thought, then GRPO; `sft_fraction=0` is RFT-Zero, `1` CoT-SFT, or ANS-SFT with `answer_only`."""

    best_metric = "id/accuracy"

    family: Family = "counting"
    """The reasoning task: counting, geometry, or the edits between two images. The last two have the paper's steps with
    config=reason_rft_structure and config=reason_rft_transformation."""
    reward: Variant = "paper"
    """The accuracy reward. paper: partial credit for near numbers and partly correct calls; released: exact answers
    only, as in the released scripts; penalty: partly correct calls are penalized (an ablation of transformation)."""
    reasoning: float = Field(default=0.0, ge=0)
    """Weight of the reward for markers of reasoning steps; 0 leaves it out."""
    sft_fraction: float = Field(default=0.04, ge=0, le=1)
    """Fraction of the steps for SFT."""
    cot: int = Field(default=1600, ge=0)
    """Samples with chains of thought, for SFT."""
    cot_data: str = ""
    """Your file for SFT (meta rows with `cot` and `answer`, or conversations); by default the first `cot` rows of
    data.train."""
    answer_only: bool = False
    """SFT on the answers alone, of all training samples."""
    reuse: bool | None = None
    """Train on the SFT samples in GRPO too; by default as published: only for structure."""
    layout: str = "<think>\n{cot}\n</think>\n<answer>\n{answer}\n</answer>"
    """Template of the SFT targets."""
    prompt: str = ""
    """Prompt for your own data, by default that of the family; {question} is replaced by the row's question."""
    shifted: dict[str, str] = {}
    """Your out-of-domain files, by the name of their bench; evaluated on test only."""
    sft_prompts_per_step: int = Field(default=16, ge=1)
    """Samples per SFT step, over all ranks."""
    problems: int = Field(default=3000, ge=1)
    """Synthetic training problems, besides those for SFT."""
    bench_problems: int = Field(default=256, ge=1)
    """Synthetic problems per bench."""

    @model_validator(mode="after")
    def _consistent(self) -> "ReasonRFT":
        if self.reward not in ACCURACY[self.family]:
            raise ValueError(f"reward={self.reward} goes with family=transformation only; choose paper or released")
        if not {"{cot}", "{answer}"} <= set(re.findall(r"\{\w+\}", self.layout)) or "<answer>" not in self.layout:
            raise ValueError(f"layout: wanted {{cot}}, then <answer> with {{answer}}, found {self.layout!r}")
        return self

    def stages(self) -> Iterator[mp.Stage]:
        # Both stages exist even without steps, so that stages.sft and stages.rl are always valid settings.
        sft_source, rl_source = self._sources()
        text = self.bare if self.answer_only else self.thoughtful
        yield mp.Stage(
            "sft",
            sft_source,
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
        yield self.rl_stage("rl", rl_source, score, fraction=1 - self.sft_fraction, gold=self.gold())

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        rows = user_data(self.data, split, loss="last")
        sources: dict[str, mp.Source] = {}
        if rows is not None:
            sources["id"] = Reasoning(rows, self.family, self.prompt)
        else:
            sources["id"] = self._synthetic(split, self.bench_problems, seed=5)
        if split == "test":
            sources |= self._shifted(split, builtin=rows is None)
        metrics = {**METRICS[self.family], "think_format": think_format, "thinks": thinks}
        benches = [self._bench(name, source, metrics, percent) for name, source in sources.items()]
        if rows is None:
            base_skills = known(split, self.bench_problems, seed=6)
            benches.append(self._bench("known", base_skills, {"right": discrete_value}, by_kind))
        return benches

    def thoughtful(self, sample: mp.Sample) -> str | None:
        """The sample's chain of thought and answer, or its reply if that has answer tags; None if it has neither."""
        cot = sample.meta.get("cot")
        if cot:
            return self.layout.replace("{cot}", str(cot)).replace("{answer}", str(sample.truth))
        reply = sample.replies[0].text if sample.replies else ""
        return reply if answer(reply) is not None else None

    def bare(self, sample: mp.Sample) -> str:
        """The answer alone, in the last part of the layout."""
        return self.layout[self.layout.index("<answer>") :].replace("{answer}", str(sample.truth))

    def gold(self) -> tuple[mp.Gold, ...]:
        """The correct answer after a thought; accuracy and format give one each."""
        reward = None if self.reasoning else 2.0
        return (
            mp.Gold(
                lambda s: self.thoughtful(s) or answer_with_short_thought(s),
                reward,
                is_parseable=lambda text: answer(text) is not None,
            ),
        )

    def _sources(self) -> tuple[mp.Source, mp.Source]:
        """The samples of SFT and of GRPO."""
        reuse = self.family == "structure" if self.reuse is None else self.reuse
        rows = user_data(self.data, "train", loss="last")
        with_cot: mp.Source
        if rows is None:
            with_cot, rest = self._synthetic("train", self.cot, seed=1), self._synthetic("train", self.problems, seed=0)
            everything: mp.Source = Mix([with_cot, rest]) if self.cot else rest
        else:
            read = partial(Reasoning, rows, self.family, self.prompt)
            everything = read()
            with_cot, rest = read(slice(self.cot)), read(slice(self.cot, None))
            if self.cot_data:
                cot_rows = _file(self.data, self.cot_data)
                with_cot, rest = Reasoning(cot_rows, self.family, self.prompt, slice(self.cot)), everything
        rl_only = not self.sft_fraction
        return everything if self.answer_only else with_cot, everything if reuse or rl_only else rest

    def _synthetic(self, split: mp.Split, n: int, seed: int, shift: str = "") -> mp.Source:
        """Synthetic problems of the family."""
        look = "shifted" if shift == "shift" else "plain"
        if self.family == "counting":
            return Counting(split, look=look, n=n, seed=seed)
        if self.family == "structure":
            return Figures(split, looks=(look,), n=n, seed=seed)
        return Transformation(split, view=cast(View, shift or "front"), n=n, seed=seed)

    def _shifted(self, split: mp.Split, builtin: bool) -> dict[str, mp.Source]:
        if self.shifted or not builtin:
            files = {name: _file(self.data, path) for name, path in self.shifted.items()}
            return {name: Reasoning(rows, self.family, self.prompt) for name, rows in files.items()}
        return {name: self._synthetic(split, self.bench_problems, 5, name) for name in SHIFTS[self.family]}

    def _bench(
        self,
        name: str,
        source: mp.Source,
        metrics: Mapping[str, mp.Reward],
        summary: Callable[[Sequence[mp.Sample]], Mapping[str, float]],
    ) -> mp.Bench:
        greedy = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        return mp.Bench(name, source, (mp.Generate(n=1, sampling=greedy), mp.Score(rewards=metrics)), summary)


def _file(data: mp.DataSettings, path: str) -> UserData:
    """The rows of another file, read with the settings of `data`."""
    rows = user_data(data.model_copy(update={"train": path, "split": None}), "train", loss="last")
    if rows is None:
        raise mp.ConfigError(f"wanted the path of a data file, found {path!r}; name one")
    return rows


def percent(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """The mean of each metric, in percent."""
    return mean_by((pair for sample in samples for reply in sample.replies for pair in reply.scores.items()), scale=100)
