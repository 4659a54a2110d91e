"""The base model tiny-tables: SFT on tables in the look "office"; it reads the look "paper" with mistakes."""

from collections.abc import Iterator, Sequence

import mmpost as mp
from mmpost.core.means import mean_scores
from mmpost.data.worlds.tables.pictures import SmallTables, TablePictures
from mmpost.rewards.table import s_teds, teds


class TablesBase(mp.Task):
    """SFT on pictures of a few cells, then on pictures of whole tables."""

    look: str = "office"
    """Look of the tables (data/worlds/tables/drawing.py)."""
    tables: int = 100_000
    """Training pictures, generated on demand."""
    reading_fraction: float = 0.3
    """Fraction of the steps for the first stage, on a few cells: there it is easier to learn where to read."""
    prompts_per_step: int = 24
    """Tables per step."""
    small_prompts_per_step: int = 48
    """Pictures per step of the first stage, which are smaller."""

    def stages(self) -> Iterator[mp.Stage]:
        targets = (mp.ReplyFromTruth(text=truth),)
        if self.reading_fraction:
            small = SmallTables("train", self.tables, seed=1, look=self.look)
            yield mp.Stage(
                "reading", small, mp.Likelihood(), self.small_prompts_per_step, targets, fraction=self.reading_fraction
            )
        tables = TablePictures("train", self.tables, seed=1, look=self.look)
        yield mp.Stage(
            "sft", tables, mp.Likelihood(), self.prompts_per_step, targets, fraction=1 - self.reading_fraction
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = TablePictures(split, n=256, seed=2, look=self.look)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=128, temperature=0))
        return [mp.Bench("known", source, (greedy, mp.Score(rewards={"teds": teds, "s_teds": s_teds})), similarity)]


def truth(sample: mp.Sample) -> str:
    """The table in OTSL."""
    return str(sample.truth)


def similarity(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """TEDS and S-TEDS in percent."""
    return mean_scores(samples, ("teds", "s_teds"), scale=100)
