"""TensorBoard, and the optional trackers Weights & Biases and Trackio."""

from __future__ import annotations

import importlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpost.errors import ConfigError
from mmpost.listeners.base import Listener, Metrics, finite_values

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard(Listener):
    """Event files in tensorboard/. After a resume, repeated steps replace earlier ones.

    The events are written by a thread of TensorBoard. Where it fails, it hands its error to the next call.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._config: Mapping[str, Any] = {}
        self._writer: SummaryWriter | None = None
        self._restore_hook: Callable[[], None] = lambda: None

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._folder, self._config = run / "tensorboard", config
        self._restore_hook()
        self._restore_hook = _without_tracebacks_of("tensorboard")

    def on_metrics(self, metrics: Metrics) -> None:
        step = int(metrics["step"])
        if self._writer is None:
            self._writer = self._open(step)
        for name, value in finite_values(metrics).items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        # As in metrics.jsonl: a checkpoint never holds a step that a kill could take out of the log.
        self._writer.flush()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        finally:
            self._restore_hook()

    def _open(self, step: int) -> SummaryWriter:
        from torch.utils.tensorboard.writer import SummaryWriter

        writer = SummaryWriter(str(self._folder), purge_step=step)
        config = json.dumps(self._config, indent=2, default=str)
        writer.add_text("config", "    " + config.replace("\n", "\n    "), step)
        return writer


def _without_tracebacks_of(package: str) -> Callable[[], None]:
    """Print no tracebacks of threads whose class is of `package`, until the returned function is called."""
    earlier = threading.excepthook

    def hook(args: threading.ExceptHookArgs, /) -> Any:
        if type(args.thread).__module__.partition(".")[0] != package:
            earlier(args)

    def restore() -> None:
        if threading.excepthook is hook:
            threading.excepthook = earlier

    threading.excepthook = hook
    return restore


class Wandb(Listener):
    """Weights & Biases. A resumed run continues under the id stored in its folder's wandb-id.txt.

    The constructor, called before training, raises ConfigError if the package is not installed.
    """

    def __init__(self, project: str = "mmpost", name: str | None = None) -> None:
        self.project, self.name = project, name
        self._wandb = _optional("wandb")

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        id_file = run / "wandb-id.txt"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:12])
        self._wandb.init(
            project=self.project,
            name=self.name or run.name,
            id=id_file.read_text(),
            resume="allow",
            dir=str(run),
            config=dict(config),
        )
        self._wandb.define_metric("step")
        # Plot over mmpost's step: wandb drops calls whose internal step goes back, and a resumed run repeats steps.
        self._wandb.define_metric("*", step_metric="step")

    def on_metrics(self, metrics: Metrics) -> None:
        self._wandb.log(finite_values(metrics))

    def on_end(self, summary: Mapping[str, Any]) -> None:
        if self._wandb.run is not None:
            self._wandb.run.summary.update(dict(summary))
        self._wandb.finish(exit_code=0 if summary.get("status") == "done" else 1)


class Trackio(Listener):
    """Trackio. The constructor raises ConfigError if the package is not installed."""

    def __init__(self, project: str = "mmpost", name: str | None = None) -> None:
        self.project, self.name = project, name
        self._trackio = _optional("trackio")

    def on_start(self, run: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._trackio.init(
            project=self.project, name=self.name or run.name, config=dict(config), resume="allow", embed=False
        )

    def on_metrics(self, metrics: Metrics) -> None:
        values = finite_values(metrics)
        self._trackio.log(values, step=int(values.pop("step")))

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._trackio.finish()


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"logging to {package} needs the package {package}, which cannot be imported ({error}); "
            f"install it with: pip install 'mmpost[{package}]'"
        ) from error
