"""Preference without humans: the policy's own reports, scored by a judge, become pairs to learn from (CheXalign)."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

import mmpost as mp
from mmpost.data.formats.chest.sections import INDICATED, PROMPT
from mmpost.data.formats.chest.studies import NO_QUESTION, ReportRows, Section, Studies
from mmpost.data.media.limits import Limits
from mmpost.data.readers.user_data import user_data
from mmpost.data.worlds.chest.questions import Questions
from mmpost.data.worlds.chest.studies import SyntheticStudies
from mmpost.edits.freeze import Freeze
from mmpost.judges.base import Judge
from mmpost.judges.radiology.config import JudgeSettings
from mmpost.judges.radiology.metrics import ReportScores, finding_f1, mean_scores
from mmpost.judges.transform import JudgeScore
from mmpost.rewards.choice import bare_accuracy, choice_summary
from mmpost.transforms.pairs import BuildPairs

JUDGE = "judge"


class JudgedPairs(BuildPairs):
    """Which of a study's reports are chosen and rejected."""

    score: str = JUDGE
    """The score that decides."""


class CxrPreference(mp.PreferenceTask):
    """Reports on chest films: candidates, judge, pairs, then a preference loss; `sft` begins with the references."""

    official: str = ""
    """Folder of MIMIC-CXR-JPG with reports, Open-i or CheXpert Plus; empty: your rows in data.*, or drawn films."""
    section: Section = "findings"
    """What is to be written, of official sets: findings, impression, or both."""
    prompt: str = PROMPT
    """What is asked where a study has no indication."""
    indicated: str = INDICATED
    """What is asked where it has one; {indication} is replaced."""
    sft_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps that learn the references, before candidates are drawn; 1: nothing else."""
    sft_prompts_per_step: int = Field(default=32, ge=1)
    """Studies of each step of supervised learning, over all ranks; `prompts` are the pairs of a preference step."""
    candidates: int = Field(default=4, ge=2)
    """Reports that are sampled for each study."""
    sampling: mp.Sampling = mp.Sampling(max_tokens=512)
    """How they are drawn."""
    together: int = Field(default=64, ge=1)
    """Studies that are worked on, and put on record, together."""
    judge: JudgeSettings = JudgeSettings()
    """Who scores candidates, and the reports of the evaluation."""
    pairs: JudgedPairs = JudgedPairs()
    """Which candidates become a pair: margin, and whether length is controlled."""
    freeze: tuple[str, ...] = ("vision",)
    """Parts of the model that do not learn from preferences."""
    select: Literal["judge", "lc"] = "judge"
    """What the best checkpoint is best in: the judge's score, or that divided by verbosity (LC-GREEN)."""
    studies: int = Field(default=512, ge=1)
    """Drawn studies to train on."""
    bench_studies: int = Field(default=256, ge=1)
    """Drawn studies, and questions, to evaluate on."""

    @model_validator(mode="after")
    def _fitting(self) -> "CxrPreference":
        if self.pairs.against == "all" and not self.loss.paired:
            raise ValueError(
                f"pairs.against=all compares scores, and loss.kind={self.loss.loss_type} wants replies that are good "
                "or bad: take another"
            )
        if self.judge.length_control and self.pairs.control == "divide":
            raise ValueError(
                "judge.length_control and pairs.control=divide both divide a score by length; drop one of them"
            )
        return self

    @property
    def best_metric(self) -> str:  # type: ignore[override]
        """The metric that tells which checkpoint is best: of reports drawn as the candidates were, which is what pairs
        teach; greedy ones move less."""
        return f"sampled/{self.select}"

    def stages(self) -> Iterator[mp.Stage]:
        source, gold = self._source("train", self.studies, seed=0), (mp.Gold(reference),)
        learn = (mp.DropReplies(), mp.ReplyFromTruth(text=reference))
        yield mp.Stage(
            "sft", source, mp.Likelihood(), self.sft_prompts_per_step, learn, fraction=self.sft_fraction, gold=gold
        )
        if self.sft_fraction == 1:
            return
        draw = (mp.DropReplies(), mp.Generate(n=self.candidates, sampling=self.sampling))
        yield mp.Stage("candidates", source, None, self.together, draw)
        scored = (JudgeScore(judge=self.judge.judge(), name=JUDGE, complete=True),)
        yield mp.Stage("judging", source, None, self.together, scored, reads_from=mp.ReadsFrom("candidates", recorded))
        yield mp.Stage(
            "pairing", source, None, self.together, (self.pairs,), reads_from=mp.ReadsFrom("judging", recorded)
        )
        frozen = (Freeze(self.freeze),) if self.freeze else ()
        yield self.preference_stage(
            "align",
            source,
            reads_from=mp.ReadsFrom("pairing", recorded),
            fraction=1 - self.sft_fraction,
            gold=gold,
            edits=frozen,
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._source(split, self.bench_studies, seed=5)
        steps: list[mp.Transform] = [JudgeScore(judge=self._plain(), name=JUDGE), ReportScores()]
        if self.judge.bertscore is not None:
            steps.append(JudgeScore(judge=self.judge.bertscore, name="bertscore"))
        written = {"reports": self._greedy(), "sampled": mp.Generate(n=1, sampling=self.sampling)}
        benches = [
            mp.Bench(name, source, (mp.DropReplies(), write, *steps), report_summary) for name, write in written.items()
        ]
        if isinstance(source, SyntheticStudies):
            asked = Questions(split, n=self.bench_studies, seed=5)
            score = mp.Score(rewards={"accuracy": bare_accuracy})
            benches.append(mp.Bench("questions", asked, (mp.DropReplies(), self._greedy(), score), choice_summary))
        return benches

    def _greedy(self) -> mp.Generate:
        return mp.Generate(n=1, sampling=mp.Sampling(max_tokens=self.sampling.max_tokens, temperature=0))

    def _plain(self) -> Judge:
        """The judge without length control, whose effect is a metric of its own."""
        rules = self.judge.rules.model_copy(update={"length_control": False})
        return self.judge.model_copy(update={"length_control": False, "rules": rules}).judge()

    def _source(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        if self.official:
            limits = Limits.of(self.data)
            return Studies(self.official, split, self.section, self.prompt, self.indicated, limits)
        rows = user_data(self.data, split, loss="last", prompt=NO_QUESTION)
        return SyntheticStudies(split, n, seed) if rows is None else ReportRows(rows, self.prompt, self.indicated)


def reference(sample: mp.Sample) -> str:
    """The report that the candidates are judged by."""
    return str(sample.truth)


def recorded(source: mp.Source, recording: mp.GeneratedDataset) -> mp.Source:
    """What came through the stage before. Raises DataError where nothing did."""
    found = recording.samples()
    if not len(found):
        why = {entry.drop_reason for entry in recording.records if entry.drop_reason}
        raise mp.DataError(
            f"wanted studies from the stage before, found none of {len(recording.records)} ({', '.join(sorted(why))}): "
            "see its recording in manifests/; are all candidates of a study worth the same, or has the judge failed?"
        )
    return found


def report_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Percent: the judge's score, the same divided by verbosity, F1 of findings, ROUGE-L, BLEU, repetition; words.

    `unscored` are the reports without a score of the judge: they are in no mean of it.
    """
    replies = [reply for sample in samples for reply in sample.replies]
    scored = [reply.scores for reply in replies if JUDGE in reply.scores]
    found = {"unscored": 100 * (1 - len(scored) / len(replies))} if replies else {}
    if scored:
        found["judge"] = 100 * fmean(s[JUDGE] for s in scored)
        found["lc"] = 100 * fmean(s[JUDGE] / max(s["rel_verbosity"], 1.0) for s in scored)
    shares = {**finding_f1(samples), **mean_scores(samples, ("rouge_l", "bleu", "repetition", "bertscore"))}
    return found | {k: 100 * v for k, v in shares.items()} | mean_scores(samples, ("words", "rel_verbosity"))
