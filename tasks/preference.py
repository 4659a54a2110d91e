"""Preference learning on your pairs: data.train=FILE with prompt, chosen and rejected, or with a reply and a label.

Without data, it trains on synthetic scenes: the correct digit is preferred to another one in the image.
"""

from collections.abc import Iterator

from pydantic import Field

import mmpost as mp
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.digits.pairs import PreferencePairs
from mmpost.data.worlds.digits.scenes import answer_text
from mmpost.methods.preference import pair_bench
from mmpost.rewards.box import detection, detection_summary
from mmpost.tasks.bases.digits import boxes_with_short_thought
from mmpost.transforms.pairs import WritePairs


def rejected_answer(sample: mp.Sample) -> str:
    """The boxes and points of another digit in the image, in the format of the correct answer."""
    return answer_text(sample.meta["rival"], sample.frame, thought="look")


BUILT_IN = (WritePairs(chosen=boxes_with_short_thought, rejected=rejected_answer),)
"""Writes the replies of the synthetic pairs, in the coordinate frame of the model."""


class OwnPreferences(mp.PreferenceTask):
    """DPO, IPO, KTO, SimPO, ORPO and other preference losses, selected by `task.loss.loss_type`."""

    best_metric = "pairs/accuracy"

    question_types: tuple[str, ...] = ("last from the top",)
    """Question types of the synthetic pairs (data/worlds/digits/scenes.py)."""
    scenes: int = Field(default=2000, ge=0)
    """Synthetic training pairs."""
    bench_scenes: int = Field(default=256, ge=0)
    """Synthetic pairs for evaluation."""

    def stages(self) -> Iterator[mp.Stage]:
        rows = user_data(self.data, "train", loss="last")
        if rows is not None:
            yield self.preference_stage("preference", rows, gold=(mp.Gold(preferred),))
            return
        source = PreferencePairs("train", self.question_types, self.scenes, seed=0)
        yield self.preference_stage("preference", source, BUILT_IN, gold=(mp.Gold(boxes_with_short_thought),))

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        rows = user_data(self.data, split, loss="last")
        if rows is not None:
            return [pair_bench("pairs", rows)]
        source: mp.Source = PreferencePairs(split, self.question_types, self.bench_scenes, seed=5)
        greedy = mp.Generate(n=1, sampling=mp.Sampling(max_tokens=48, temperature=0))
        answers = (mp.DropReplies(), greedy, mp.Score(rewards=detection))
        return [pair_bench("pairs", source, BUILT_IN), mp.Bench("target", source, answers, detection_summary)]


def preferred(sample: mp.Sample) -> str | None:
    """The preferred reply of the data; None without one."""
    good = [r for r in sample.replies if float(r.columns.get("label", 1.0)) > 0]  # type: ignore[arg-type]
    return good[0].text if good else None
