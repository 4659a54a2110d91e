"""ViSurf: find what a question means; the truth joins the rollouts as one more reply (arXiv 2510.10606)."""

from collections.abc import Iterator

import mmpost as mp
from mmpost.data.formats.grounding import Grounding
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.digits.scenes import Scenes, answer_text
from mmpost.rewards.box import REWARDS, detection, detection_summary, parse_answer
from mmpost.tasks.bases.digits import boxes_with_short_thought


class ViSurf(mp.PolicyGradientTask):
    """Boxes and points for a question, with the truth among the rollouts; without `inject` it is plain GRPO."""

    best_metric = "target/f1"

    target: tuple[str, ...] = ("last from the top",)
    """Kinds of question to learn on the built-in scenes (data/digits.py)."""
    old: tuple[str, ...] = ("single", "all", "leftmost", "top")
    """Kinds that the base knows; only evaluated, to see what is forgotten."""
    scenes: int = 512
    """Built-in scenes to train on."""
    bench_scenes: int = 256
    """Built-in scenes to evaluate on, of each kind of bench."""
    prompt: str = "{question}"
    """Instruction for your own data; {question} is replaced by the row's question."""
    inject: bool = True
    """Add the truth to each group."""
    smooth: bool = True
    """Lower the truth's reward to the rollouts' mean once one of them reaches it."""
    think_for_truth: bool = False
    """Also give the truth the reward for its thinking format."""
    aligned: bool = True
    """Write the truth as the model writes it; off: JSON without spaces."""
    sft_fraction: float = 0.0
    """Share of the steps that are supervised learning of the truth, before the others."""

    def stages(self) -> Iterator[mp.Stage]:
        source = self._source("train", self.target, self.scenes, seed=0)
        if self.sft_fraction:
            yield mp.Stage(
                "sft",
                source,
                mp.Likelihood(),
                self.prompts_per_step,
                (mp.ReplyFromTruth(text=self.truth),),
                fraction=self.sft_fraction,
                gold=self.gold(),
            )
        if self.sft_fraction < 1:
            score = mp.Score(rewards=REWARDS, zero_for_truth=() if self.think_for_truth else ("think_format",))
            truth = self.truth if self.inject else None
            yield self.rl_stage("rl", source, score, truth, self.smooth, 1 - self.sft_fraction, self.gold())

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        sampling = mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0)
        scored = (mp.Generate(n=1, sampling=sampling), mp.Score(rewards=detection))
        rows = user_data(self.data, split, loss="last")
        kinds = {"target": self.target} if rows else {"target": self.target, "old": self.old}
        sources = {name: self._source(split, k, self.bench_scenes, seed=5) for name, k in kinds.items()}
        return [mp.Bench(name, source, scored, detection_summary) for name, source in sources.items()]

    def truth(self, sample: mp.Sample) -> str:
        """The label as a reply: the model's own form and separators, with nothing thought."""
        text = answer_text(sample.truth, sample.frame, thought="")
        return text if self.aligned else text.replace(", ", ",").replace(": ", ":")

    def gold(self) -> tuple[mp.Gold, ...]:
        """The label, which is not paid for thinking, and the same as a rollout might write it."""
        paid = 7.0 if self.think_for_truth else 6.0
        label = mp.Gold(self.truth, paid, "label", origin="truth", is_parseable=readable)
        return label, mp.Gold(boxes_with_short_thought, 7.0, "label with a thought", is_parseable=readable)

    def _source(self, split: mp.Split, kinds: tuple[str, ...], n: int, seed: int) -> mp.Source:
        rows = user_data(self.data, split, loss="last")
        return Scenes(split, kinds, n=n, seed=seed) if rows is None else Grounding(rows, self.prompt)


def readable(text: str) -> bool:
    """Whether boxes and points can be read from a reply."""
    return parse_answer(text) is not None
