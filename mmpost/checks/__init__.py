"""`mmpost check`: everything that can be known to be wrong before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.checks.data import Reading, check_data, check_lengths, sources
from mmpost.checks.hops import check_hops
from mmpost.checks.model import check_media_use, check_model, right_replies
from mmpost.checks.report import Report
from mmpost.checks.rewards import SCORED, check_rewards
from mmpost.config import run_config as config
from mmpost.config.run_config import RunConfig
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.models.embedding.spec import read_spec
from mmpost.runs import base_models
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session
from mmpost.training import reference
from mmpost.training.media_probe import MOST
from mmpost.types import GenerativeModel, Gold, Sample, Selector, Stage, Transform

HOPPED = 4
"""Samples that go through every hop."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost check`."""
    return check(arguments)


def check(words: Sequence[str | Mapping[str, Any]], report: Report | None = None) -> int:
    """Check a configuration: data, rewards, model, gradient. Prints what it finds; 0 where a run can start, else 1."""
    run_config, _ = config.load(words)
    report = report or Report()
    with report.guard():
        task = ConfiguredTask.load(run_config)
        stages = task.stages()
        reference.check(stages)
        readings = sources(task, stages)
        _check(run_config, task, stages, readings, report)
    return report.verdict()


def _check(
    run_config: RunConfig, task: ConfiguredTask, stages: Sequence[Stage], readings: Sequence[Reading], report: Report
) -> None:
    skips = run_config.data.on_error == "skip"
    check_data(readings, report, skips)
    lengths = None
    loadable = False
    with report.guard():
        processor = _processor(run_config)
        # Models that say themselves what they are have no chat template, and no prompts of some length.
        if read_spec(processor) is None:
            lengths = PromptLengths(processor, run_config.model)
            _check_template(lengths, report)
            check_lengths(readings, lengths, _longest_reply(stages), report, skips)
        loadable = True
    by_source = {id(r.source): r for r in readings}
    for stage in stages:
        with report.guard():
            samples = by_source[id(stage.source)].samples(SCORED)
            check_rewards(stage, samples, lengths, run_config.rewards, report)
    if not loadable or not any(r.good for r in readings if r.training):
        report.say("the model is not loaded: nothing could be given to it")
        return
    with report.guard():
        _check_model(run_config, task, stages, by_source, report)


def _check_template(lengths: PromptLengths, report: Report) -> None:
    if not lengths.prompt.marker():
        report.error(
            "the chat template writes nothing to open the assistant's turn (no add_generation_prompt in it): replies "
            "would follow the user's words without a mark. Mend chat_template.jinja in the model's folder"
        )


def _check_model(
    run_config: RunConfig,
    task: ConfiguredTask,
    stages: Sequence[Stage],
    by_source: Mapping[int, Reading],
    report: Report,
) -> None:
    session = open_session(run_config, task)
    session.apply_model_settings()
    model, job = session.model, session.context
    made: dict[str, list[Sample]] = {}
    for stage in stages:
        reading = by_source[id(stage.source)]
        if not reading.good:
            continue
        for edit in stage.edits:
            edit(model)
        session.preview_stage(stage)
        if stage is stages[0]:
            writes = isinstance(model, GenerativeModel)
            right = right_replies(reading.samples(MOST), _gold(stage), job) if writes else []
            with report.guard():
                check_model(job, model, right[:HOPPED], run_config.compute.max_tokens_per_microbatch, report)
            with report.guard():
                check_media_use(job, right, report)
        with report.guard():
            drawn = (
                made.get(stage.reads_from.stage, reading.samples(HOPPED))
                if stage.reads_from
                else reading.samples(HOPPED)
            )
            if not drawn:
                report.say(f"stage {stage.name}: nothing came through the stage before, of so few samples")
            left = check_hops(stage, drawn, job, model, report) if drawn else []
            if stage.objective is None and not any(isinstance(t, Selector) for t in stage.transforms):
                # A stage that judges all samples together hands on those of the source.
                made[stage.name] = left


def _gold(stage: Stage) -> tuple[Gold, ...]:
    """The stage's right replies, or what one of its transforms writes from the truth."""
    return stage.gold or tuple(
        Gold(text) for t in stage.transforms if isinstance(t, Transform) and (text := t.gold_text())
    )


def _longest_reply(stages: Sequence[Stage]) -> int:
    """Most tokens that any transform lets a reply have."""
    transforms = [t for stage in stages for t in stage.transforms if isinstance(t, Transform)]
    return max((t.max_reply_tokens() for t in transforms), default=0)


def _processor(run_config: RunConfig) -> str:
    """Where the processor lies: a base that is made here has that of its architecture, so it need not exist yet."""
    name = run_config.model.name
    recipe = config.shipped(f"bases/{name}")
    return base_models.resolve(config.merge({}, recipe)["model"]["name"] if recipe else name, run_config.seed)
