"""R1-AQA: multiple-choice questions about a clip, learnt by GRPO on the answer's text and format (arXiv 2503.11197)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import mmpost as mp
from mmpost.data.formats.choices import NO_QUESTION, Choices
from mmpost.data.formats.spoken_digits import SpokenDigits
from mmpost.data.readers.user_data import user_data
from mmpost.data.sources.blanked import Blanked
from mmpost.data.worlds.sounds import Sounds
from mmpost.rewards import choice
from mmpost.rewards.text import answer
from mmpost.transforms.advantage import GlobalWhiten


class R1Aqa(mp.PolicyGradientTask):
    """Questions about sound with options: GRPO with a KL penalty; `sft_fraction` begins with supervised answers."""

    best_metric = "target/accuracy"

    prompt: Literal["plain", "answer", "think"] = "answer"
    """What is asked for besides the question: nothing (the paper's prompt 1), the answer in tags (2, its best), or a
    thought and the answer in tags (3). The format that is rewarded follows."""
    question: str = "{question} Please choose the answer from the following options: {choices}."
    """The question: {question} and {choices} are replaced by the row's own."""
    answer: str = " Give the final answer in <answer> </answer>."
    """Follows the question where the answer is wanted in tags."""
    think: str = " Give the thinking process in <think> </think> and the final answer in <answer> </answer>."
    """Follows the question where a thought is wanted, too."""
    reward: Literal["strict", "released"] = "strict"
    """Accuracy and format: the right option's text in the first answer tags and one block of each, or R1-AQA's own
    code (math-verify first, also without tags, two answers pass)."""
    ignore_case: bool = False
    """An option in another case is right, too (strict reward alone)."""
    question_types: tuple[str, ...] = ("last", "count", "absent")
    """Kinds of question to learn on the built-in sounds (data/sounds.py); the base has met them, no more."""
    old: tuple[str, ...] = ("which", "first", "pitch", "higher")
    """Kinds that the base knows; only evaluated, to see what is forgotten."""
    clips: int = 512
    """Built-in clips to train on."""
    bench_clips: int = 256
    """Built-in clips to evaluate on, of each bench."""
    noise: tuple[float, float] = (0.0, 0.0)
    """Least and largest amplitude of the noise behind built-in clips."""
    speech: str = ""
    """A folder of spoken digits (DIGIT_SPEAKER_NUMBER.wav): learn which is said, instead of the built-in sounds."""
    test_speaker: str = ""
    """Who is heard in the test alone; by default the last speaker by name."""
    val_speaker: str = ""
    """Who is heard in val alone; empty: nobody, and val has no spoken digits."""
    channel: Literal["mean", "first"] = "mean"
    """Your own clips of several channels: their mean, or the first alone (R1-AQA)."""
    sft_fraction: float = 0.0
    """Share of the steps that are supervised learning of the answer, before the others."""
    policy: mp.PolicyLoss = mp.PolicyLoss(beta=0.04, kl_gradient="plain")
    """The loss; as released, each prompt's rollouts serve one update, so nothing is clipped."""
    advantage: mp.GroupAdvantage | mp.LeaveOneOut | GlobalWhiten | None = mp.GroupAdvantage(eps=1e-4)
    """From rewards to advantages."""

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
        official = {"mmau": choice.mmau, "mmau_strict": choice.mmau_strict} if isinstance(target, Choices) else {}
        scored = (greedy, mp.Score(rewards={**self.rewards(), **official}))
        return [mp.Bench(name, source, scored, choice.choice_summary) for name, source in sources.items()]

    def rewards(self) -> Mapping[str, mp.Reward]:
        """Accuracy, and format where the prompt asks for one: 0 to 2 together."""
        plain = self.prompt == "plain"
        if self.reward == "released":
            form = choice.released_think_format if self.prompt == "think" else choice.released_format
            return {"accuracy": choice.released_accuracy} | ({} if plain else {"format": form})
        accuracy = partial(choice.bare_accuracy if plain else choice.accuracy, ignore_case=self.ignore_case)
        form = choice.think_answer_format if self.prompt == "think" else choice.answer_format
        return {"accuracy": accuracy} | ({} if plain else {"format": form})

    def reply(self, sample: mp.Sample) -> str:
        """The right option as the prompt asks for it, after what the sample says that may be thought."""
        if self.prompt == "plain":
            return str(sample.truth)
        thought = f"<think>{sample.meta.get('thought', '')}</think>" if self.prompt == "think" else ""
        return f"{thought}<answer>{sample.truth}</answer>"

    def gold(self) -> tuple[mp.Gold, ...]:
        """The right reply, and its reward."""
        if self.prompt == "plain":
            return (mp.Gold(self.reply, 1.0),)
        return (mp.Gold(self.reply, 2.0, is_parseable=lambda text: answer(text) is not None),)

    def template(self) -> str:
        """The whole instruction, with places for the question and the options."""
        return self.question + {"plain": "", "answer": self.answer, "think": self.think}[self.prompt]

    def _source(self, split: mp.Split, kinds: tuple[str, ...], n: int, seed: int) -> mp.Source:
        rows = user_data(self.data, split, loss="last", prompt=NO_QUESTION)
        if rows is not None:
            return Choices(rows, self.template(), self.channel)
        if self.speech:
            speakers = {"test": self.test_speaker, "val": self.val_speaker}
            return SpokenDigits(self.speech, split, speakers, template=self.template())
        return Sounds(split, kinds, n, seed, (self.template(),), self.noise)
