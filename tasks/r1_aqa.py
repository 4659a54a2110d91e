"""R1-AQA: GRPO on multiple-choice questions about audio, with rewards for accuracy and format (arXiv 2503.11197)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

from pydantic import Field

import mmpost as mp
from mmpost.data.formats.choices import AUDIO_COLUMNS, NO_QUESTION, Choices
from mmpost.data.formats.spoken_digits import SpokenDigits
from mmpost.data.readers.user_data import user_data
from mmpost.data.sources.blanked import Blanked
from mmpost.data.worlds.sounds import Sounds
from mmpost.rewards import choice
from mmpost.rewards.text import answer, thinks
from mmpost.transforms.advantage import GlobalWhiten
from mmpost.transforms.generate import answer_with_short_thought


class R1Aqa(mp.PolicyGradientTask):
    """Multiple-choice audio QA by GRPO with a KL penalty, optionally after SFT on the answers (`sft_fraction`)."""

    best_metric = "target/accuracy"

    prompt: Literal["plain", "answer", "think"] = "answer"
    """Format that the prompt asks for: none (the paper's prompt 1), the answer in tags (2, its best), or reasoning and
    answer in tags (3). The format reward checks the same."""
    question: str = "{question} Please choose the answer from the following options: {choices}."
    """Template of the question; {question} and {choices} are replaced by those of the row."""
    answer: str = " Give the final answer in <answer> </answer>."
    """Appended to the question with prompt=answer."""
    think: str = " Give the thinking process in <think> </think> and the final answer in <answer> </answer>."
    """Appended to the question with prompt=think."""
    reward: Literal["strict", "released"] = "strict"
    """Accuracy and format. strict: the correct option's text in the first answer tags, and each block exactly once;
    released: R1-AQA's code (math-verify first, tags optional, several answers pass)."""
    ignore_case: bool = False
    """Ignore case when options are compared (strict reward only)."""
    question_types: tuple[str, ...] = ("last", "count", "absent")
    """Question types of the synthetic clips (data/worlds/sounds.py) to train on; the base has seen few of them."""
    old: tuple[str, ...] = ("which", "first", "pitch", "higher")
    """Question types that the base model has learned; only evaluated, to measure forgetting."""
    clips: int = Field(default=512, ge=0)
    """Synthetic training clips."""
    bench_clips: int = Field(default=256, ge=0)
    """Synthetic clips per bench."""
    noise: tuple[float, float] = (0.0, 0.0)
    """Minimum and maximum amplitude of the background noise in synthetic clips."""
    speech: str = ""
    """A folder of spoken digits (DIGIT_SPEAKER_NUMBER.wav) to recognize, instead of the synthetic clips."""
    test_speaker: str = ""
    """Speaker held out for test; by default the last one by name."""
    val_speaker: str = ""
    """Speaker held out for val; empty: none, and no evaluation on val."""
    channel: Literal["mean", "first"] = "mean"
    """How your own multi-channel clips become mono: the mean of the channels, or the first one (R1-AQA)."""
    sft_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps for SFT on the answers, before GRPO."""
    policy: mp.PolicyLoss = mp.PolicyLoss(beta=0.04, kl_gradient="plain")
    """The loss; as released, each rollout batch is used for one update, so nothing is clipped."""
    advantage: mp.GroupAdvantage | mp.LeaveOneOut | GlobalWhiten | None = mp.GroupAdvantage(eps=1e-4)
    """How rewards become advantages."""

    def stages(self) -> Iterator[mp.Stage]:
        source, gold = self._source("train", self.question_types, self.clips, seed=0), self.gold()
        if self.sft_fraction:
            answers = (mp.ReplyFromTruth(text=self.reply),)
            yield mp.Stage(
                "sft", source, mp.Likelihood(), self.prompts_per_step, answers, fraction=self.sft_fraction, gold=gold
            )
        if self.sft_fraction < 1:
            score = mp.Score(rewards=self.rewards())
            yield self.rl_stage("rl", source, score, fraction=1 - self.sft_fraction, gold=gold)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        if self.speech and split == "val" and not self.val_speaker:
            return []
        target = self._source(split, self.question_types, self.bench_clips, seed=5)
        sources = {"target": target, "silent": Blanked(target)}
        if isinstance(target, Sounds):
            sources["old"] = self._source(split, self.old, self.bench_clips, seed=5)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0))
        official = {"mmau": choice.mmau, "mmau_answer": choice.mmau_answer, "mmau_strict": choice.mmau_strict}
        metrics = {"thinks": thinks} if self.prompt == "think" else {}
        metrics |= official if isinstance(target, Choices) else {}
        scored = (greedy, mp.Score(rewards={**self.rewards(), **metrics}))
        return [mp.Bench(name, source, scored, choice.choice_summary) for name, source in sources.items()]

    def rewards(self) -> Mapping[str, mp.Reward]:
        """Accuracy, and format if the prompt asks for one; they add up to 0 to 2."""
        plain = self.prompt == "plain"
        if self.reward == "released":
            form = choice.released_think_format if self.prompt == "think" else choice.released_format
            return {"accuracy": choice.released_accuracy} | ({} if plain else {"format": form})
        accuracy = partial(choice.bare_accuracy if plain else choice.accuracy, ignore_case=self.ignore_case)
        form = choice.think_answer_format if self.prompt == "think" else choice.answer_format
        return {"accuracy": accuracy} | ({} if plain else {"format": form})

    def reply(self, sample: mp.Sample) -> str:
        """The correct option in the format of the prompt, after the sample's thought if it asks for one and has one."""
        if self.prompt == "plain":
            return str(sample.truth)
        thought = sample.meta.get("thought") if self.prompt == "think" else None
        answer_text = f"<answer>{sample.truth}</answer>"
        return f"<think>{thought}</think>{answer_text}" if thought else answer_text

    def gold(self) -> tuple[mp.Gold, ...]:
        """The correct reply, and its reward."""
        if self.prompt == "plain":
            return (mp.Gold(self.reply, 1.0),)

        def best(sample: mp.Sample) -> str:
            lacks_thought = self.prompt == "think" and not sample.meta.get("thought")
            return answer_with_short_thought(sample) if lacks_thought else self.reply(sample)

        return (mp.Gold(best, 2.0, is_parseable=lambda text: answer(text) is not None),)

    def template(self) -> str:
        """The prompt template, with placeholders for the question and the options."""
        return self.question + {"plain": "", "answer": self.answer, "think": self.think}[self.prompt]

    def _source(self, split: mp.Split, question_types: tuple[str, ...], n: int, seed: int) -> mp.Source:
        rows = user_data(self.data, split, loss="last", prompt=NO_QUESTION, media_columns=AUDIO_COLUMNS)
        if rows is not None:
            return Choices(rows, self.template(), self.channel)
        if self.speech:
            speakers = {"test": self.test_speaker, "val": self.val_speaker}
            return SpokenDigits(self.speech, split, speakers, template=self.template())
        return Sounds(split, question_types, n, seed, (self.template(),), self.noise)
