"""The base of model=tiny-shapes: it sees shapes and figures and knows sums, but no question that combines them."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_by
from mmpost.data.sources.mix import Mix
from mmpost.data.worlds.shapes.figures import Figures
from mmpost.data.worlds.shapes.scenes import LOOKS, Shapes
from mmpost.rewards.discrete import discrete_value


class ShapesBase(mp.Task):
    """Supervised answers, with one fact as thought, to questions about single facts."""

    question_types: tuple[str, ...] = ("name", "count", "name", "count", "second", "sum")
    """Kinds of question about scenes (data/shapes.py)."""
    figures: float = 0.1
    """Share of questions about the sides of figures (data/figures.py)."""
    scenes: int = 100_000
    """Samples to train on; they are made on demand."""
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
    kinds: Sequence[str] = ("name", "count", "name", "count", "second", "sum"),
    figures: float = 0.1,
) -> mp.Source:
    """What the base learns: `n` questions about both looks, of which a share `figures` is about figures."""
    many = round(n * figures)
    sources = [Shapes(split, kinds, n=n - many, seed=seed)]
    return Mix([*sources, Figures(split, ("width", "height"), tuple(LOOKS), n=many, seed=seed)])


def thoughtful(sample: mp.Sample) -> str:
    """The answer after the one fact that it rests on: what chains of thought are made of later."""
    return f"<think>{sample.meta['cot']}</think><answer>{sample.truth}</answer>"


right = discrete_value


def by_kind(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Right answers in percent: all, and for each kind of question."""
    return mean_by(
        (
            (name, reply.scores["right"])
            for sample in samples
            for reply in sample.replies
            for name in ("accuracy", str(sample.meta["kind"]))
        ),
        scale=100,
    )
