"""`mmpost check`: finds everything that can be known to be wrong before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpost.checks.data import SourceCheck, check_data, check_lengths, sources_to_check
from mmpost.checks.model import check_media_use, check_model, with_gold_replies
from mmpost.checks.report import Report
from mmpost.checks.rewards import MAX_SCORED, check_rewards
from mmpost.checks.stage_trace import trace_stage
from mmpost.config import run_config as config
from mmpost.config.run_config import RunConfig
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.models.chat.prompt_lengths import PromptLengths
from mmpost.models.embedding.spec import read_spec
from mmpost.models.opening import open_model
from mmpost.rollout.local import LocalRollout
from mmpost.runs import base_models
from mmpost.runs.session import make_task
from mmpost.training import reference
from mmpost.training.context import TrainingContext
from mmpost.training.media_probe import MOST
from mmpost.training.stage_checks import checked_stages
from mmpost.types import GenerativeModel, Gold, Sample, Sampling, Stage

TRACED_SAMPLES = 4
"""Number of samples to trace through every step of a stage."""


def check(words: Sequence[str | Mapping[str, Any]], report: Report | None = None) -> int:
    """Check a configuration: data, rewards, model, gradients. Prints a report; returns 0 if a run can start, else 1."""
    run_config, _ = config.load(words)
    report = report or Report()
    with report.guard():
        task = make_task(run_config)
        stages = checked_stages(task)
        reference.check(stages)
        _check(run_config, stages, sources_to_check(task, stages), report)
    return report.verdict()


def _check(run_config: RunConfig, stages: Sequence[Stage], sources: Sequence[SourceCheck], report: Report) -> None:
    skip_broken = run_config.data.on_error == "skip"
    check_data(sources, report, skip_broken)
    lengths = None
    loadable = False
    with report.guard():
        processor = _processor_folder(run_config)
        # Embedding models (with a spec) have neither a chat template nor prompts that could be too long.
        if read_spec(processor) is None:
            lengths = PromptLengths(processor, run_config.model)
            _check_template(lengths, report)
            check_lengths(sources, lengths, _max_reply_tokens(stages), report, skip_broken)
        loadable = True
    by_source = {id(s.source): s for s in sources}
    for stage in stages:
        with report.guard():
            samples = by_source[id(stage.source)].samples(MAX_SCORED)
            check_rewards(stage, samples, lengths, run_config.rewards, report)
    if not loadable or not any(s.usable for s in sources if s.training):
        report.say("skipped the checks of the model: there is no usable training sample, or no usable processor")
        return
    with report.guard():
        _check_model(run_config, stages, by_source, report)


def _check_template(lengths: PromptLengths, report: Report) -> None:
    if not lengths.prompt.marker():
        report.error(
            "the chat template writes nothing to open the assistant's turn (it ignores add_generation_prompt), so "
            "replies would follow the user's text without a separator; fix chat_template.jinja in the model's folder"
        )


def _check_model(
    run_config: RunConfig, stages: Sequence[Stage], by_source: Mapping[int, SourceCheck], report: Report
) -> None:
    compute = run_config.compute
    model = open_model(base_models.resolve(run_config.model.name, run_config.seed), run_config.model, compute)
    context = TrainingContext(model, LocalRollout(model, compute.rollout_batch_size), run_config.seed)
    if run_config.model.lora is not None:
        Lora(run_config.model.lora)(model)
    if run_config.model.freeze:
        Freeze(run_config.model.freeze)(model)
    stage_outputs: dict[str, list[Sample]] = {}
    for stage in stages:
        source = by_source[id(stage.source)]
        if not source.usable:
            continue
        for edit in stage.edits:
            edit(model)
        if reference.needs_reference(stage):
            context.snapshot_weights("reference")
        context.scope = stage.name
        if stage is stages[0]:
            generative = isinstance(model, GenerativeModel)
            gold = with_gold_replies(source.samples(MOST), _gold(stage), context) if generative else []
            with report.guard():
                check_model(context, model, gold[:TRACED_SAMPLES], compute.max_tokens_per_microbatch, report)
            with report.guard():
                check_media_use(context, gold, report)
        with report.guard():
            samples = source.samples(TRACED_SAMPLES)
            if stage.reads_from:
                samples = stage_outputs.get(stage.reads_from.stage, samples)
            if not samples:
                report.say(f"stage {stage.name}: not traced, since the previous stage dropped all of the few samples")
            traced = trace_stage(stage, samples, context, model, report) if samples else []
            if stage.objective is None and not any(hasattr(t, "settle") for t in stage.transforms):
                # A transform that settles compares all samples of the source at the end, which this trace cannot do:
                # the next stage then starts from samples of the source.
                stage_outputs[stage.name] = traced


def _gold(stage: Stage) -> tuple[Gold, ...]:
    """The stage's gold replies, or else the texts that its transforms make from the truth."""
    return stage.gold or tuple(Gold(t.text) for t in stage.transforms if callable(getattr(t, "text", None)))  # type: ignore[union-attr]


def _max_reply_tokens(stages: Sequence[Stage]) -> int:
    """The largest `max_tokens` of any transform that samples replies; 0 if none does."""
    samplings = [getattr(t, "sampling", None) for stage in stages for t in stage.transforms]
    return max((s.max_tokens for s in samplings if isinstance(s, Sampling)), default=0)


def _processor_folder(run_config: RunConfig) -> str:
    """Folder of the processor. A built-in base shares that of its architecture, so it need not be trained yet."""
    name = run_config.model.name
    recipe = config.shipped(f"bases/{name}")
    return base_models.resolve(config.merge({}, recipe)["model"]["name"] if recipe else name, run_config.seed)
