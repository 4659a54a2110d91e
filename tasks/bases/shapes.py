"""The base model tiny-shapes: SFT on perception and arithmetic separately, not on questions that combine them."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.sources.mix import Mix
from mmpost.data.worlds.shapes.figures import Figures
from mmpost.data.worlds.shapes.scenes import LOOKS, Shapes
from mmpost.rewards.discrete import discrete_value


class ShapesBase(mp.Task):
    """SFT on answers to questions about single facts, with that fact as the thought."""

    question_types: tuple[str, ...] = ("name", "count", "name", "count", "second", "sum")
    """Question types about scenes (data/worlds/shapes/scenes.py)."""
    figures: float = 0.1
    """Fraction of questions about the sides of figures (data/worlds/shapes/figures.py)."""
    scenes: int = 100_000
    """Synthetic training samples, generated on demand."""
    prompts_per_step: int = 40
    """Samples per step."""

    def stages(self) -> Iterator[mp.Stage]:
        source = self._source("train", self.scenes, seed=1)
        yield mp.Stage(
            "sft", source, mp.Likelihood(), self.prompts_per_step, transforms=(mp.ReplyFromTruth(text=thoughtful),)
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=40, temperature=0))
        return [
            mp.Bench("known", self._source(split, 384, seed=2), (greedy, mp.Score(rewards={"right": right})), by_kind)
        ]

    def _source(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        return known(split, n, seed, self.question_types, self.figures)


def known(
    split: mp.Split,
    n: int,
    seed: int,
    question_types: Sequence[str] = ("name", "count", "name", "count", "second", "sum"),
    figures: float = 0.1,
) -> mp.Source:
    """The data of the base model: `n` questions about both looks, of which a fraction `figures` is about figures."""
    n_figures = round(n * figures)
    shapes = Shapes(split, question_types, n=n - n_figures, seed=seed)
    return Mix([shapes, Figures(split, ("width", "height"), tuple(LOOKS), n=n_figures, seed=seed)])


def thoughtful(sample: mp.Sample) -> str:
    """The answer after the fact that it follows from, in the form that chains of thought use."""
    return f"<think>{sample.meta['cot']}</think><answer>{sample.truth}</answer>"


right = discrete_value


def by_kind(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Accuracy in percent, overall and by question type."""
    return mean_by(
        (
            (name, reply.scores["right"])
            for sample in samples
            for reply in sample.replies
            for name in ("accuracy", str(sample.meta["kind"]))
        ),
        scale=100,
    )
