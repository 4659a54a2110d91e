"""UAV-VL-R1: aerial VQA by SFT, then GRPO on a curriculum of question types, easy to hard (arXiv 2508.11196)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import Field

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.formats.short_answers import ShortAnswers
from mmpost.data.readers.user_data import user_data
from mmpost.data.sources.curriculum import Curriculum, with_replay
from mmpost.data.sources.tiles import Tiled, Tiles
from mmpost.data.worlds.aerial.questions import TYPES, Aerial
from mmpost.rewards.text import answer, think_format, thinks
from mmpost.rewards.vqa import Rule, no_answer, short_answer

SFT = "sft"


class UavVlR1(mp.PolicyGradientTask):
    """Short answers about aerial images: SFT, then one GRPO stage per group of question types."""

    best_metric = "questions/accuracy"

    curriculum: dict[str, tuple[str, ...]] = {
        "attributes": ("color", "shape", "size"),
        "objects": ("number", "transportation", "sports"),
        "spatial": ("location", "scene"),
    }
    """GRPO stages in order, with their question types (the assignment is not published)."""
    row_stage: bool = True
    """A row's `stage` (a name, or a number from 1) takes precedence over that of its question type."""
    mixed: bool = False
    """One GRPO stage over all question types instead of the curriculum."""
    sft_fraction: float = Field(default=0.25, ge=0, le=1)
    """Fraction of the steps for SFT, before GRPO; 1: SFT only."""
    sft_prompts_per_step: int = Field(default=64, ge=1)
    """Questions per SFT step, over all ranks; `prompts_per_step` are those of GRPO."""
    replay: float = Field(default=0.2, ge=0, lt=1)
    """Fraction of each later stage's samples that comes from earlier stages."""
    reference: str = SFT
    """Reference policy of the KL penalty: the end of sft or of another stage, or a model; empty: each stage's start."""
    rules: dict[str, Rule] = {"number": Rule(match="number"), "location": Rule(match="words")}
    """How answers are compared, by question type (in lower case); by default as text or as numbers."""
    weights: dict[str, float] = {"accuracy": 1.0, "format": 1.0}
    """Weights of the two rewards."""
    tiles: Tiles | None = None
    """Split large images into an overview and tiles, each with a budget of model.max_pixels."""
    prompt: str = "{question}"
    """Instruction for your own data; {question} is replaced by the row's question."""
    thought: str = "look"
    """The reasoning in SFT targets of rows without `cot`."""
    scenes: int = Field(default=1024, ge=1)
    """Synthetic training scenes, over all question types."""
    bench_scenes: int = Field(default=512, ge=1)
    """Synthetic scenes for evaluation, over all question types."""
    size: int = Field(default=112, ge=1)
    """Width and height of the synthetic scenes in pixels."""

    def stages(self) -> Iterator[mp.Stage]:
        pool = self._pool("train", self.scenes, seed=0)
        parts = {name: self._tiled(part) for name, part in self._parts(pool).items()}
        # With sft_fraction=0 the stage has no steps, but `reference=sft` still refers to it: its end is the base model.
        yield mp.Stage(
            SFT,
            self._tiled(pool),
            mp.Likelihood(),
            self.sft_prompts_per_step,
            (mp.DropReplies(), mp.ReplyFromTruth(text=self.answer)),
            fraction=self.sft_fraction,
            gold=self.gold(),
        )
        for name in parts:
            fraction = (1 - self.sft_fraction) / len(parts)
            source = with_replay(parts, name, self.replay)
            stage = self.rl_stage(name, source, self._score(), fraction=fraction, gold=self.gold())
            yield replace(stage, reference=self.reference)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._tiled(self._pool(split, self.bench_scenes, seed=5))
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        rewards = {**self._score().rewards, "thinks": thinks, "no_answer": no_answer}
        score = mp.Score(rewards=rewards, weights={"thinks": 0.0, "no_answer": 0.0})
        return [mp.Bench("questions", source, (mp.DropReplies(), mp.Generate(n=1, sampling=sampling), score), by_stage)]

    def accuracy(self, sample: mp.Sample, reply: mp.Reply) -> float | None:
        """Agreement of the answer with the truth, 0 to 1, by the rule of the question type."""
        return short_answer(sample, reply, self.rules.get(str(sample.meta["task"]).casefold()))

    def answer(self, sample: mp.Sample) -> str:
        """The truth as a reply, after the row's chain of thought (by default `thought`)."""
        cot = str(sample.meta.get("cot") or self.thought).strip()
        if "<answer>" in cot:
            return cot
        return f"<think>{cot.removeprefix('<think>').removesuffix('</think>')}</think><answer>{sample.truth}</answer>"

    def gold(self) -> tuple[mp.Gold, ...]:
        """The truth as a reply, with and without a thought."""
        bare = self.weights.get("accuracy", 1.0)
        thought = bare + self.weights.get("format", 1.0)
        short = mp.Gold(lambda s: f"<answer>{s.truth}</answer>", bare, "bare answer", is_parseable=answered)
        return mp.Gold(self.answer, thought, is_parseable=answered), short

    def _score(self) -> mp.Score:
        return mp.Score(rewards={"accuracy": self.accuracy, "format": think_format}, weights=self.weights)

    def _pool(self, split: mp.Split, n: int, seed: int) -> Curriculum:
        rows = user_data(self.data, split, loss="last")
        known = [name for names in self.curriculum.values() for name in names if name in TYPES]
        source = Aerial(split, known, n, seed, self.size) if rows is None else ShortAnswers(rows, self.prompt)
        return Curriculum(source, self.curriculum, self.row_stage)

    def _parts(self, pool: Curriculum) -> dict[str, mp.Source]:
        """The samples of each GRPO stage."""
        return {"mixed": pool} if self.mixed else pool.parts()

    def _tiled(self, source: mp.Source) -> mp.Source:
        return source if self.tiles is None else Tiled(source, self.tiles)


def answered(text: str) -> bool:
    """Whether an answer can be parsed from a reply."""
    return answer(text) is not None


def by_stage(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """In percent: accuracy, overall and by stage and question type; format; thinks; replies without an answer."""
    replies = [(sample, reply.scores) for sample in samples for reply in sample.replies]
    return mean_by(
        [
            *(("accuracy", scores["accuracy"]) for _, scores in replies),
            *((f"stage/{sample.meta['stage']}", scores["accuracy"]) for sample, scores in replies),
            *((f"type/{sample.meta['task']}", scores["accuracy"]) for sample, scores in replies),
            *((name, scores[name]) for name in ("format", "thinks", "no_answer") for _, scores in replies),
        ],
        scale=100,
    )
