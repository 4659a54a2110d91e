"""`mmpost check`: finds mistakes in configuration, data, rewards and model before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.checks.benches import check_benches
from mmpost.checks.data import SourceCheck, check_data, check_lengths, sources_to_check
from mmpost.checks.model import (
    SavedActivations,
    check_media_use,
    check_model,
    report_memory,
    tokens_of_step,
    with_gold_replies,
)
from mmpost.checks.report import Report
from mmpost.checks.rewards import MAX_SCORED, check_rewards
from mmpost.checks.stage_trace import trace_stage
from mmpost.config import run_config
from mmpost.config.run_config import RunConfig
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.models.embedding.spec import read_spec
from mmpost.runs import base_models
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.runs.session import open_session
from mmpost.training import reference
from mmpost.training.media_probe import MAX_PROBES
from mmpost.types import GenerativeModel, Gold, Sample, Selector, Stage, Transform

TRACED_SAMPLES = 4
"""Number of samples to trace through every step of a stage."""


def main(arguments: Sequence[str]) -> int:
    """`mmpost check`; returns 1 if there are errors, else 0. With `bench=`, see `check_benches`."""
    overrides = run_config.merged(arguments)
    if "bench" in overrides:
        check_benches(overrides)
        return 0
    return check(arguments)


def check(arguments: Sequence[str | Mapping[str, Any]], report: Report | None = None) -> int:
    """Check data, rewards, model and gradients. Prints a report; returns 1 if there are errors, else 0."""
    config, _ = run_config.load(arguments)
    report = report or Report()
    with report.guard():
        task = ConfiguredTask.load(config)
        stages = task.stages()
        reference.check(stages)
        task.check_monitors(stages)
        _check(task, stages, sources_to_check(task, stages), report)
    return report.verdict()


def _check(task: ConfiguredTask, stages: Sequence[Stage], sources: Sequence[SourceCheck], report: Report) -> None:
    config = task.config
    skip_broken = config.data.on_error == "skip"
    check_data(sources, report, skip_broken)
    lengths = None
    loadable = False
    with report.guard():
        processor = _processor_folder(config)
        # Embedding models (with a spec) have neither a chat template nor prompts that could be too long.
        if read_spec(processor) is None:
            lengths = PromptLengths(processor, config.model)
            _check_template(lengths, report)
            check_lengths(sources, lengths, _max_reply_tokens(stages), report, skip_broken)
        loadable = True
    by_source = {id(s.source): s for s in sources}
    for stage in stages:
        with report.guard():
            samples = by_source[id(stage.source)].samples(MAX_SCORED)
            check_rewards(stage, samples, lengths, config.rewards, report)
    if not loadable or not any(s.usable for s in sources if s.training):
        report.say("model checks skipped: found no usable training sample or no usable processor")
        return
    with report.guard():
        _check_model(task, stages, by_source, report)


def _check_template(lengths: PromptLengths, report: Report) -> None:
    if not lengths.prompt.generation_prompt():
        report.error(
            "the chat template writes no generation prompt (it ignores add_generation_prompt), so replies would "
            "follow the user's text without a separator; fix chat_template.jinja in the model's folder"
        )


def _check_model(
    task: ConfiguredTask, stages: Sequence[Stage], by_source: Mapping[int, SourceCheck], report: Report
) -> None:
    session = open_session(task.config, task)
    session.apply_model_settings()
    model, context = session.model, session.context
    saved: SavedActivations | None = None
    stage_outputs: dict[str, list[Sample]] = {}
    for stage in stages:
        source = by_source[id(stage.source)]
        if not source.usable:
            continue
        for edit in stage.edits:
            edit(model)
        session.preview_stage(stage)
        if stage is stages[0]:
            generative = isinstance(model, GenerativeModel)
            gold = with_gold_replies(source.samples(MAX_PROBES), _gold(stage), context) if generative else []
            with report.guard():
                saved = check_model(context, model, gold[:TRACED_SAMPLES], report)
            with report.guard():
                check_media_use(context, gold, report)
        with report.guard():
            samples = source.samples(TRACED_SAMPLES)
            if stage.reads_from:
                samples = stage_outputs.get(stage.reads_from.stage, samples)
            if not samples:
                report.say(f"stage {stage.name} not traced: the previous stage dropped all traced samples")
            traced = trace_stage(stage, samples, context, model, report) if samples else []
            if saved is not None and stage.objective is not None:
                max_tokens = task.config.compute.max_tokens_per_microbatch
                report_memory(model, saved, tokens_of_step(model, stage, traced, max_tokens), report)
                saved = None
            if stage.objective is None and not any(isinstance(t, Selector) for t in stage.transforms):
                # A selector needs all samples of the source, which a trace does not have:
                # the next stage is then traced with samples of the source.
                stage_outputs[stage.name] = traced


def _gold(stage: Stage) -> tuple[Gold, ...]:
    """The stage's gold replies, or else the texts that its transforms derive from the truth."""
    texts = [t.gold_text() for t in stage.transforms if isinstance(t, Transform)]
    return stage.gold or tuple(Gold(text) for text in texts if text is not None)


def _max_reply_tokens(stages: Sequence[Stage]) -> int:
    """The maximum reply length of all transforms, in tokens; 0 if none samples replies."""
    transforms = [t for stage in stages for t in stage.transforms if isinstance(t, Transform)]
    return max((t.max_reply_tokens() for t in transforms), default=0)


def _processor_folder(config: RunConfig) -> str:
    """Folder of the processor. A built-in base has that of its architecture, so it need not be trained yet."""
    name = config.model.name
    recipe = run_config.shipped(f"bases/{name}")
    return base_models.resolve(run_config.merge({}, recipe)["model"]["name"] if recipe else name, config.seed)
