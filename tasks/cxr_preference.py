"""CheXalign: preference learning on pairs of the policy's own reports, ranked by a judge instead of radiologists."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

import mmpost as mp
from mmpost.core.means import mean_scores
from mmpost.data.formats.chest.sections import INDICATED, PROMPT
from mmpost.data.formats.chest.studies import NO_QUESTION, ReportRows, Section, Studies
from mmpost.data.media.limits import Limits
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.edits.freeze import Freeze
from mmpost.judges.base import Judge
from mmpost.judges.radiology.config import ReportJudgeSettings
from mmpost.judges.radiology.metrics import ReportScores, finding_f1
from mmpost.judges.transform import JudgeScore
from mmpost.rewards.choice import bare_accuracy, choice_summary
from mmpost.transforms.pairs import BuildPairs

JUDGE = "judge"


class JudgedPairs(BuildPairs):
    """Which of a study's candidate reports become the chosen and the rejected reply."""

    score: str = JUDGE
    """Name of the score that ranks the candidates."""


class CxrPreference(mp.PreferenceTask):
    """Chest X-ray reports: optional SFT, then candidates, judge, pairs, and training with a preference loss."""

    dataset: str = ""
    """Folder of MIMIC-CXR-JPG with reports, Open-i or CheXpert Plus; empty: your rows in data.*, or synthetic."""
    section: Section = "findings"
    """Section of the report to write, in official datasets: findings, impression or both."""
    prompt: str = PROMPT
    """Prompt for studies without an indication."""
    indication_prompt: str = INDICATED
    """Prompt for studies with one; {indication} is replaced by it."""
    sft_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps for SFT on the reference reports, before candidates are sampled; 1: SFT only."""
    sft_prompts_per_step: int = Field(default=32, ge=1)
    """Studies per SFT step, over all ranks; `prompts_per_step` counts the pairs of a preference step."""
    candidates: int = Field(default=4, ge=2)
    """Candidate reports per study."""
    sampling: mp.Sampling = mp.Sampling(max_tokens=512)
    """How candidates are sampled."""
    generation_batch_size: int = Field(default=64, ge=1)
    """Studies per batch of the data-generation stages; each batch is recorded when it is complete."""
    judge: ReportJudgeSettings = ReportJudgeSettings()
    """The judge that scores candidates, and reports in evaluations."""
    pairs: JudgedPairs = JudgedPairs()
    """How pairs are built: minimum score margin, rejected reply, length control."""
    freeze: tuple[str, ...] = ("vision",)
    """Parts of the model that are frozen during preference learning."""
    best_by: Literal["judge", "lc"] = "judge"
    """Metric that selects the best checkpoint: the judge's score, or the same divided by relative length (LC-GREEN)."""
    best_decoding: Literal["greedy", "sampled"] = "greedy"
    """Reports that select the best checkpoint: greedy ones, as CheXalign evaluates, or sampled like the candidates."""
    studies: int = Field(default=512, ge=1)
    """Synthetic training studies."""
    bench_studies: int = Field(default=256, ge=1)
    """Synthetic studies, and questions, per evaluation."""

    @model_validator(mode="after")
    def _consistent(self) -> "CxrPreference":
        if self.pairs.against == "all" and not self.loss.paired:
            raise ValueError(
                f"pairs.against=all compares scores, and loss.loss_type={self.loss.loss_type} wants replies that are "
                "good or bad; choose worst or random, or a paired loss"
            )
        if self.judge.length_control and self.pairs.control == "divide":
            raise ValueError(
                "judge.length_control and pairs.control=divide both divide a score by length; drop one of them"
            )
        return self

    @property
    def best_metric(self) -> str:  # type: ignore[override]
        """The metric of reports on val that selects the best checkpoint."""
        return f"{'reports' if self.best_decoding == 'greedy' else 'sampled'}/{self.best_by}"

    def stages(self) -> Iterator[mp.Stage]:
        source, gold = self._source("train", self.studies, seed=0), (mp.Gold(reference),)
        targets = (mp.DropReplies(), mp.ReplyFromTruth(text=reference))
        yield mp.Stage(
            "sft", source, mp.Likelihood(), self.sft_prompts_per_step, targets, fraction=self.sft_fraction, gold=gold
        )
        if self.sft_fraction == 1:
            return
        generate = (mp.DropReplies(), mp.Generate(n=self.candidates, sampling=self.sampling))
        yield mp.Stage("candidates", source, None, self.generation_batch_size, generate)
        judge = (JudgeScore(judge=self.judge.judge(), name=JUDGE, complete=True),)
        yield mp.Stage(
            "judging", source, None, self.generation_batch_size, judge, reads_from=mp.ReadsFrom("candidates")
        )
        yield mp.Stage(
            "pairing",
            source,
            None,
            self.generation_batch_size,
            (self.pairs,),
            reads_from=mp.ReadsFrom("judging"),
        )
        frozen = (Freeze(self.freeze),) if self.freeze else ()
        yield self.preference_stage(
            "align",
            source,
            reads_from=mp.ReadsFrom("pairing"),
            fraction=1 - self.sft_fraction,
            gold=gold,
            edits=frozen,
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._source(split, self.bench_studies, seed=5)
        score: list[mp.Transform] = [JudgeScore(judge=self._uncontrolled_judge(), name=JUDGE), ReportScores()]
        if self.judge.bertscore is not None:
            score.append(JudgeScore(judge=self.judge.bertscore, name="bertscore"))
        generators = {"reports": self._greedy(), "sampled": mp.Generate(n=1, sampling=self.sampling)}
        benches = [
            mp.Bench(name, source, (mp.DropReplies(), generate, *score), report_summary)
            for name, generate in generators.items()
        ]
        if isinstance(source, SyntheticStudies):
            questions = Questions(split, n=self.bench_studies, seed=5)
            accuracy = mp.Score(rewards={"accuracy": bare_accuracy})
            steps = (mp.DropReplies(), self._greedy(), accuracy)
            benches.append(mp.Bench("questions", questions, steps, choice_summary))
        return benches

    def _greedy(self) -> mp.Generate:
        return mp.Generate(n=1, sampling=mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0))

    def _uncontrolled_judge(self) -> Judge:
        """The judge without length control; the length-controlled score is the metric `lc`."""
        rules = self.judge.rules.model_copy(update={"length_control": False})
        return self.judge.model_copy(update={"length_control": False, "rules": rules}).judge()

    def _source(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        if self.dataset:
            limits = Limits.of(self.data)
            return Studies(self.dataset, split, self.section, self.prompt, self.indication_prompt, limits)
        rows = user_data(self.data, split, loss="last", prompt=NO_QUESTION)
        return (
            SyntheticStudies(split, n, seed) if rows is None else ReportRows(rows, self.prompt, self.indication_prompt)
        )


def reference(sample: mp.Sample) -> str:
    """The reference report."""
    return str(sample.truth)


def report_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Means over reports, in percent except for lengths.

    judge: the judge's score; lc: the same divided by relative length, if above 1; unscored: reports without a score,
    which neither mean includes. Further: F1 of findings, ROUGE-L, BLEU, repetition and BERTScore; words and
    rel_verbosity (words / reference words).
    """
    replies = [reply for sample in samples for reply in sample.replies]
    scored = [reply.scores for reply in replies if JUDGE in reply.scores]
    summary = {"unscored": 100 * (1 - len(scored) / len(replies))} if replies else {}
    if scored:
        summary["judge"] = 100 * fmean(s[JUDGE] for s in scored)
        summary["lc"] = 100 * fmean(s[JUDGE] / max(s["rel_verbosity"], 1.0) for s in scored)
    fractions = {**finding_f1(samples), **mean_scores(samples, ("rouge_l", "bleu", "repetition", "bertscore"))}
    return summary | {k: 100 * v for k, v in fractions.items()} | mean_scores(samples, ("words", "rel_verbosity"))
