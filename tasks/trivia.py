"""TRivia: table recognition from pictures without labels, rewarded by answers to questions (arXiv 2512.01248)."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

import mmpost as mp
from mmpost.core.means import mean_scores
from mmpost.data.formats.tables import table_data
from mmpost.data.worlds.tables.pictures import TablePictures
from mmpost.judges.tables.config import AnswerModel, PictureModel, QuestionModels
from mmpost.judges.tables.consistency import Consistency
from mmpost.judges.tables.judge import QUESTIONS, TableQuestions
from mmpost.judges.tables.labels import LabelPictures
from mmpost.judges.tables.writers import questions_of
from mmpost.rewards.table import s_teds, table_complete, teds, teds_lower_bound, truth_table
from mmpost.selection.flat import FlatSelection
from mmpost.tables.html import write_html
from mmpost.tables.lookup import write_questions
from mmpost.tables.otsl import otsl_problems, write_otsl
from mmpost.transforms.filter_replies import FilterReplies, ReplyFilter

QA, PROMPT = "qa", "Write the table in this picture in {form}, with its texts, and nothing else."
QUESTIONS_PER_TEST_PICTURE = 8


class PictureSelection(mp.Settings):
    """Which unlabelled pictures are learned from."""

    by: Literal["consistency", "random", "all"] = "consistency"
    """Evenly over the consistency of several readings; at random; or all."""
    n: int = Field(default=0, ge=0)
    """Pictures to keep of by=consistency and random; 0, for consistency: as many as there are with equal numbers in
    each part of the range."""
    seed: int = 0
    """Decides which pictures are kept where several would do."""
    readings: int = Field(default=8, ge=2)
    """Replies sampled per picture; their consistency is the mean TEDS of two of them."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the readings."""
    low: float = Field(default=0.4, ge=0, lt=1)
    """Pictures of less consistency are dropped as noise."""
    bins: int = Field(default=6, ge=1)
    """Equal parts of the range from `low` to 1, of which equal numbers are kept."""

    @model_validator(mode="after")
    def _number(self) -> "PictureSelection":
        if self.by == "random" and not self.n:
            raise ValueError("by=random: wanted the number of pictures to keep, found n=0; set n, or by=all")
        return self


class Trivia(mp.PolicyGradientTask):
    """Warm-up and SFT on labelled tables, then GRPO on unlabelled pictures by the answers to questions about them."""

    best_metric = "tables/teds"

    labelled: str = ""
    """File or folder of labelled tables for warm-up and SFT; empty: synthetic ones. `data.*` are the unlabelled
    pictures, and labelled ones for evaluation."""
    warmup_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps for the first stage, on labelled tables; TRivia freezes the vision encoder there
    (stages.warmup.optim.lr_multipliers)."""
    sft_fraction: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the steps for SFT on labelled tables, after warm-up."""
    sft_prompts_per_step: int = Field(default=16, ge=1)
    """Tables per step of these stages, and of learn_from=labels."""
    form: Literal["otsl", "html"] = "otsl"
    """The markup to write."""
    line_breaks: bool = True
    """Put each row of OTSL on a line of its own, as TRivia's models write it; labelled OTSL is learned as it is."""
    prompt: str = PROMPT
    """Instruction for your own data; {form} is replaced by the name of the markup."""
    learn_from: Literal["questions", "label_reward", "labels"] = "questions"
    """The training signal: questions about the picture; or what TRivia is compared with, TEDS with a label that a model
    wrote, or SFT on such labels."""
    labeller: PictureModel | Literal["policy"] = PictureModel()
    """Who writes these labels: a large model, or the policy itself, by its most likely reading."""
    pictures: PictureSelection = PictureSelection()
    """Which pictures are learned from."""
    questions: QuestionModels | None = QuestionModels()
    """How questions are generated; null: the rows of your data have them, as `qa_pairs`."""
    answers: AnswerModel = AnswerModel()
    """The model that answers questions from a recognised table."""
    illegal: ReplyFilter | None = ReplyFilter(oversample=1.5)
    """How replies that end in the middle of a table are left out; null keeps them."""
    generation_batch_size: int = Field(default=64, ge=1)
    """Pictures per batch of the data-generation stages; each batch is recorded when it is complete."""
    scenes: int = Field(default=512, ge=1)
    """Synthetic unlabelled pictures, before selection."""
    look: Literal["paper", "office"] = "paper"
    """Look of the synthetic pictures without labels and of the evaluation `tables`: of papers, or of office documents,
    which tiny-tables has learned."""
    bench_scenes: int = Field(default=192, ge=1)
    """Synthetic pictures per evaluation."""

    @model_validator(mode="after")
    def _consistent(self) -> "Trivia":
        labelled_fraction = self.warmup_fraction + self.sft_fraction
        if labelled_fraction > 1:
            raise ValueError("warmup_fraction and sft_fraction: wanted at most 1 in all; lower one of them")
        if self.labelled and not labelled_fraction:
            raise ValueError(
                f"labelled={self.labelled}: wanted steps that learn from it, found none; set warmup_fraction or "
                "sft_fraction, or remove it"
            )
        if self.learn_from == "questions" and self.answers.by == "exact" and not self._has_exact_questions:
            raise ValueError(
                "answers.by=exact answers only the questions of the stand-in (questions.writer.by=stand_in); set "
                "answers.by=server or local"
            )
        return self

    @property
    def _has_exact_questions(self) -> bool:
        return self.questions is not None and self.questions.writer.by == "stand_in"

    def stages(self) -> Iterator[mp.Stage]:
        labelled = self._labelled("train", self.scenes, seed=0)
        for name, fraction in (("warmup", self.warmup_fraction), ("sft", self.sft_fraction)):
            yield self._imitation(name, labelled, fraction)  # without steps where the fraction is 0
        fraction = round(1 - self.warmup_fraction - self.sft_fraction, 9)  # 1 - 0.7 - 0.3 is above 0
        if not fraction:
            return
        pictures = self._pictures("train", self.scenes, seed=0)
        reads_from = None
        if self.pictures.by == "consistency":
            yield self._readings(pictures)
            reads_from = mp.ReadsFrom("readings", selected_pictures)
        teaching = self._teaching(pictures, reads_from)
        if teaching is not None:
            yield teaching
            build = with_written_questions if self.learn_from == "questions" else with_written_labels
            reads_from = mp.ReadsFrom(teaching.name, build)
        yield replace(self._learning(pictures, fraction), reads_from=reads_from)

    def _readings(self, pictures: mp.Source) -> mp.Stage:
        """The stage that measures the consistency of several readings of each picture, and selects by it."""
        p = self.pictures
        sampling = self.sampling.model_copy(update={"temperature": p.temperature})
        steps = (
            mp.DropReplies(),
            mp.Generate(n=p.readings, sampling=sampling),
            Consistency(),
            FlatSelection(column="consistency", n=p.n, low=p.low, bins=p.bins, seed=p.seed),
        )
        return mp.Stage("readings", pictures, None, self.generation_batch_size, steps)

    def _teaching(self, pictures: mp.Source, reads_from: mp.ReadsFrom | None) -> mp.Stage | None:
        """The stage that writes questions or labels; None where the rows have them."""
        if self.learn_from == "questions":
            if self.questions is None:
                return None
            name, steps = "questions", self.questions.transforms()
        else:
            model = None if self.labeller == "policy" else self.labeller
            label = LabelPictures(model=model, form=self.form, line_breaks=self.line_breaks)
            name, steps = "labels", (self.greedy(), label) if model is None else (label,)
        return mp.Stage(
            name, pictures, None, self.generation_batch_size, (mp.DropReplies(), *steps), reads_from=reads_from
        )

    def _learning(self, pictures: mp.Source, fraction: float) -> mp.Stage:
        """The stage that learns from questions or from labels of a model."""
        if self.learn_from == "labels":
            return self._imitation("learn", pictures, fraction)
        if self.learn_from == "label_reward":
            score: tuple[mp.Transform, ...] = (mp.Score(rewards={"teds": teds_lower_bound}),)
        else:
            judge = mp.JudgeScore(judge=self.answers.judge(), name=QA)
            score = (judge, mp.Score(rewards={QA: mp.judge_reward(QA)}))
        keep = None if self.illegal is None else FilterReplies(legal=table_complete, **dict(self.illegal))
        return self.rl_stage("learn", pictures, score, fraction=fraction, keep=keep)

    def _imitation(self, name: str, source: mp.Source, fraction: float) -> mp.Stage:
        return mp.Stage(
            name,
            source,
            mp.Likelihood(),
            self.sft_prompts_per_step,
            (mp.DropReplies(), mp.ReplyFromTruth(text=self.target_text)),
            fraction=fraction,
            gold=(mp.Gold(self.target_text, name="label"),),
        )

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        judge = mp.JudgeScore(judge=TableQuestions(), name=QA)
        score = mp.Score(rewards={"teds": teds, "s_teds": s_teds, "complete": table_complete})
        steps = (mp.DropReplies(), self.greedy(), judge, score)
        sources = {"tables": self._pictures(split, self.bench_scenes, seed=5)}
        if not self.data.train and not self.labelled:
            sources["labelled"] = self._labelled(split, self.bench_scenes, seed=5)
        return [
            mp.Bench(name, WithExactQuestions(source), steps, table_summary, "teds" if name == "labelled" else "")
            for name, source in sources.items()
        ]

    def notes(self) -> tuple[str, ...]:
        if round(self.warmup_fraction + self.sft_fraction, 9) == 1:
            return ()
        if self.learn_from != "questions":
            note = "" if self.labeller == "policy" else self.labeller.note("labels are written by")
            return (note,) if note else ()
        notes = () if self.questions is None else self.questions.notes()
        exact = "questions are answered by an exact reader of the recognised table, a stand-in for a language model"
        return (*notes, exact) if self.answers.by == "exact" else notes

    def target_text(self, sample: mp.Sample) -> str | None:
        """The sample's table in the markup to write; valid OTSL as it is given. None without a table."""
        if self.form == "otsl" and isinstance(sample.truth, str) and not otsl_problems(sample.truth):
            return sample.truth
        table = truth_table(sample)
        if table is None:
            return None
        return write_otsl(table, line_breaks=self.line_breaks).text if self.form == "otsl" else write_html(table)

    def _labelled(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        if not self.labelled:
            return TablePictures(split, n, seed, look="office", form=self.form)
        # `data` without what concerns its own files.
        data = self.data.model_copy(update={"train": self.labelled, "val": None, "test": None, "split": None})
        rows = table_data(data, "train", self._instruction())
        assert rows is not None
        return rows

    def _pictures(self, split: mp.Split, n: int, seed: int) -> mp.Source:
        rows = table_data(self.data, split, self._instruction())
        source = TablePictures(split, n, seed, self.look, self.form) if rows is None else rows
        if split == "train" and self.learn_from == "questions" and self.questions is None:
            source = WithQuestions(source)
        if split == "train" and self.pictures.by == "random" and self.pictures.n < len(source):
            return mp.Subset(source, random_indices(len(source), self.pictures.n, self.pictures.seed))
        return source

    def _instruction(self) -> str:
        return self.prompt.replace("{form}", {"otsl": "OTSL", "html": "HTML"}[self.form])


def random_indices(size: int, n: int, seed: int) -> list[int]:
    """`n` of `size` indices, in order; with more, the same ones are among them."""
    by_hash = sorted(range(size), key=lambda i: hashlib.sha256(f"pictures {seed} {i}".encode()).digest())
    return sorted(by_hash[:n])


def selected_pictures(source: mp.Source, recording: mp.GeneratedDataset) -> mp.Source:
    """The pictures that the selector kept. Raises DataError if there are none."""
    indices = [r.index for r in recording.records if r.columns.get("kept", 0.0) > 0 and not r.drop_reason]
    if not indices:
        found = [r.columns["consistency"] for r in recording.records if "consistency" in r.columns]
        most = f", of which the most consistent has {max(found):.2f}" if found else ""
        raise mp.DataError(
            f"wanted pictures whose readings are consistent enough, found none of {len(recording.records)}{most}; "
            "lower pictures.low, or train the model on labelled tables first"
        )
    return mp.Subset(source, indices)


class WithWrittenQuestions(mp.Wrapped):
    """Pictures with the questions that a stage wrote, and without labels: nothing that trains on them sees markup.

    The questions are the truth of a sample, too, so that pages show them.
    """

    def sample(self, index: int) -> mp.Sample:
        sample = self.source[index]
        pairs = [question._asdict() for question in questions_of(sample)]
        return replace(sample, truth={QUESTIONS: pairs}, replies=(), meta={**sample.meta, QUESTIONS: pairs})


class WithQuestions(mp.Wrapped):
    """Rows that must have questions. Reading one without raises DataError."""

    def sample(self, index: int) -> mp.Sample:
        sample = self.source[index]
        if not sample.meta.get(QUESTIONS):
            raise mp.DataError(
                f"{sample.label}: wanted questions in {QUESTIONS!r}, found none; add them, or drop the row"
            )
        return replace(sample, truth={QUESTIONS: sample.meta[QUESTIONS]}, replies=())


class WithWrittenLabels(mp.Wrapped):
    """Pictures whose labels are what a stage wrote as their replies."""

    def sample(self, index: int) -> mp.Sample:
        sample = self.source[index]
        return replace(sample, truth=sample.replies[0].text, replies=())


class WithExactQuestions(mp.Wrapped):
    """Labelled pictures with exact questions about their tables, for evaluations, instead of those of the rows.

    Pictures without a label, and tables too large to be asked about, have none.
    """

    def sample(self, index: int) -> mp.Sample:
        sample = self.source[index]
        meta = {key: value for key, value in sample.meta.items() if key != QUESTIONS}
        table = truth_table(sample)
        if table is not None:
            rng = random.Random(f"exact {sample.uid}")
            with suppress(mp.DataError):
                questions = write_questions(table, QUESTIONS_PER_TEST_PICTURE, rng)
                meta[QUESTIONS] = [question._asdict() for question in questions]
        return replace(sample, meta=meta)


def with_written_questions(source: mp.Source, recording: mp.GeneratedDataset) -> mp.Source:
    """The pictures with the questions that were written. Raises DataError if no picture has any."""
    return WithWrittenQuestions(recording.samples())


def with_written_labels(source: mp.Source, recording: mp.GeneratedDataset) -> mp.Source:
    """The pictures with the labels that were written. Raises DataError if there are none."""
    return WithWrittenLabels(recording.samples())


def table_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """In percent: TEDS, S-TEDS, right answers to exact questions (qa), and tables that do not end in the middle."""
    return mean_scores(samples, ("teds", "s_teds", QA, "complete"), scale=100)
