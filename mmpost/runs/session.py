"""The task, the model and the context of transforms, for every command that loads a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mmpost.config import run_config
from mmpost.config.run_config import RunConfig
from mmpost.config.settings import ComputeSettings, ModelSettings
from mmpost.core import distributed
from mmpost.edits.freeze import Freeze
from mmpost.edits.lora import Lora
from mmpost.errors import ConfigError
from mmpost.models.opening import open_model
from mmpost.rollout.local import LocalRollout
from mmpost.runs import base_models, prompt_recipe
from mmpost.runs.configured_task import ConfiguredTask
from mmpost.training import reference
from mmpost.training.context import TrainingContext
from mmpost.types import GenerativeModel, Model, Stage


@dataclass(frozen=True)
class Session:
    """A task, a model, and the context in which the task's transforms run."""

    config: RunConfig
    task: ConfiguredTask
    base: str
    """The folder or hub id of the weights that `model.name` resolves to."""
    model: Model
    context: TrainingContext

    def apply_model_settings(self) -> None:
        """Add the adapters and freeze the parameter groups that the `model` section asks for."""
        if self.config.model.lora is not None:
            Lora(self.config.model.lora)(self.model)
        if self.config.model.freeze:
            Freeze(self.config.model.freeze)(self.model)

    def preview_stage(self, stage: Stage) -> None:
        """Prepare the context for running the transforms of `stage` outside of training."""
        if reference.needs_reference(stage):
            self.context.snapshot_weights("reference")
        self.context.scope = stage.name


def open_session(config: RunConfig, task: ConfiguredTask | None = None, weights: str | None = None) -> Session:
    """Load the task and the model of `config`, on every rank of a torchrun launch.

    `weights`: a folder to load instead of `model.name` (a checkpoint, when resuming). The caller must call
    `distributed.stop()` at the end. Raises ConfigError for a model that cannot be loaded, or invalid settings.
    """
    task = task or ConfiguredTask.load(config)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    # A base model is trained by one process before any process group exists.
    base = base_models.resolve(config.model.name, config.seed, config.model.base_seed)
    distributed.start(config.model.device)
    model = open_model(weights or base, config.model, config.compute)
    if weights is None and distributed.rank() == 0:
        prompt_recipe.warn(base, model.recipe)
    context = TrainingContext(
        model,
        LocalRollout(model, config.compute.rollout_batch_size),
        config.seed,
        skip_errors=config.data.on_error == "skip",
        reuse=config.compute.reuse == "auto",
    )
    return Session(config, task, base, model, context)


def load_model(name: str, **settings: Any) -> Model:
    """Load a model as `model=name` does, with fields of the `model` section as keyword arguments."""
    model_settings = run_config.decode(ModelSettings, {"name": name, **settings}, "model.")
    folder = base_models.resolve(name, 0)
    model = open_model(folder, model_settings, ComputeSettings())
    prompt_recipe.warn(folder, model.recipe)
    return model


def require_generative(session: Session) -> None:
    """Raise ConfigError for an embedding model."""
    if not isinstance(session.model, GenerativeModel):
        raise ConfigError(
            f"model={session.config.model.name}: wanted a chat model, which writes replies, found an embedding model; "
            "use a chat model, or a command that needs no replies (train, eval, check, show)"
        )
