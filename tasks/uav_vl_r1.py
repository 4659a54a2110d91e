"""UAV-VL-R1: questions about aerial pictures; SFT, then GRPO from easier to harder types (arXiv 2508.11196)."""

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
from mmpost.rewards.text import answer, think_format
from mmpost.rewards.vqa import Rule, no_answer, short_answer

SFT = "sft"


class UavVlR1(mp.PolicyGradientTask):
    """Short answers about pictures from above, learnt by type of question, stage after stage."""

    best_metric = "questions/accuracy"

    curriculum: dict[str, tuple[str, ...]] = {
        "attributes": ("color", "shape", "size"),
        "objects": ("number", "transportation", "sports"),
        "spatial": ("location", "scene"),
    }
    """The stages of GRPO in order, and the types of question of each (which type is where is not published)."""
    row_stage: bool = True
    """A row's own `stage` (a name, or a number from 1) comes before what its type says."""
    mixed: bool = False
    """One stage of GRPO over all types instead of the sequence."""
    sft_fraction: float = Field(default=0.25, ge=0, le=1)
    """Share of the steps that are supervised learning, before GRPO; 0: none, 1: nothing else."""
    sft_prompts_per_step: int = Field(default=64, ge=1)
    """Questions of each step of supervised learning, over all ranks; `prompts` are those of GRPO."""
    replay: float = Field(default=0.2, ge=0, lt=1)
    """Share of each later stage's samples that are of the stages before it."""
    reference: str = SFT
    """Weights that the KL penalty holds to: sft (as it ends), another stage, a model; empty: those at each start."""
    rules: dict[str, Rule] = {"number": Rule(match="number"), "location": Rule(match="words")}
    """How answers are compared, by type of question (in lower case); without a rule: as text, or as numbers."""
    weights: dict[str, float] = {"accuracy": 1.0, "format": 1.0}
    """Weights of the two rewards."""
    tiles: Tiles | None = None
    """Split large pictures into an overview and tiles; the token budget of each picture is model.max_pixels."""
    prompt: str = "{question}"
    """Instruction for your own data; {question} is replaced by the row's question."""
    thought: str = "look"
    """What supervised answers think where a row has no `cot`."""
    scenes: int = Field(default=1024, ge=1)
    """Built-in scenes to train on, over all types."""
    bench_scenes: int = Field(default=512, ge=1)
    """Built-in scenes to evaluate on, over all types."""
    size: int = 112
    """Width and height of the built-in scenes in pixels."""

    def stages(self) -> Iterator[mp.Stage]:
        pool = self._pool("train", self.scenes, seed=0)
        parts = {name: self._tiled(part) for name, part in self._parts(pool).items()}
        # Also without a step it comes first: its end, which others refer to, is then the base.
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
            share = (1 - self.sft_fraction) / len(parts)
            source = with_replay(parts, name, self.replay)
            stage = self.rl_stage(name, source, self._score(), fraction=share, gold=self.gold())
            yield replace(stage, reference=self.reference)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._tiled(self._pool(split, self.bench_scenes, seed=5))
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        score = mp.Score(rewards={**self._score().rewards, "no_answer": no_answer}, weights={"no_answer": 0.0})
        return [mp.Bench("questions", source, (mp.DropReplies(), mp.Generate(n=1, sampling=sampling), score), by_stage)]

    def accuracy(self, sample: mp.Sample, reply: mp.Reply) -> float | None:
        """How far the answer is the truth, by the rule of the question's type."""
        return short_answer(sample, reply, self.rules.get(str(sample.meta["task"]).casefold()))

    def answer(self, sample: mp.Sample) -> str:
        """The truth as a reply: after the row's chain of thought where it has one."""
        cot = str(sample.meta.get("cot") or self.thought).strip()
        if "<answer>" in cot:
            return cot
        return f"<think>{cot.removeprefix('<think>').removesuffix('</think>')}</think><answer>{sample.truth}</answer>"

    def gold(self) -> tuple[mp.Gold, ...]:
        """The truth, thought and bare."""
        bare = self.weights.get("accuracy", 1.0)
        thought = bare + self.weights.get("format", 1.0)
        short = mp.Gold(lambda s: f"<answer>{s.truth}</answer>", bare, "bare answer", is_parseable=answered)
        return mp.Gold(self.answer, thought, is_parseable=answered), short

    def _score(self) -> mp.Score:
        return mp.Score(rewards={"accuracy": self.accuracy, "format": think_format}, weights=self.weights)

    def _pool(self, split: mp.Split, n: int, seed: int) -> Curriculum:
        rows = user_data(self.data, split, loss="last")
        types = [kind for kinds in self.curriculum.values() for kind in kinds if kind in TYPES]
        source = Aerial(split, types, n, seed, self.size) if rows is None else ShortAnswers(rows, self.prompt)
        return Curriculum(source, self.curriculum, self.row_stage)

    def _parts(self, pool: Curriculum) -> dict[str, mp.Source]:
        """What each stage of GRPO learns."""
        return {"mixed": pool} if self.mixed else pool.parts()

    def _tiled(self, source: mp.Source) -> mp.Source:
        return source if self.tiles is None else Tiled(source, self.tiles)


def answered(text: str) -> bool:
    """Whether an answer can be read from a reply."""
    return answer(text) is not None


def by_stage(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Percent: right over all, of each stage and type of question, in the format, without an answer."""
    replies = [(sample, reply.scores) for sample in samples for reply in sample.replies]
    return mean_by(
        [
            *(("accuracy", scores["accuracy"]) for _, scores in replies),
            *((f"stage/{sample.meta['stage']}", scores["accuracy"]) for sample, scores in replies),
            *((f"type/{sample.meta['task']}", scores["accuracy"]) for sample, scores in replies),
            *((name, scores[name]) for name in ("format", "no_answer") for _, scores in replies),
        ],
        scale=100,
    )
