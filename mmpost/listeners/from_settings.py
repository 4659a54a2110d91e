"""The listeners of a run, according to its `log` settings."""

from __future__ import annotations

from collections.abc import Iterator

from mmpost.config.settings import LogSettings
from mmpost.listeners.base import Listener
from mmpost.listeners.collapse import CollapseWarning
from mmpost.listeners.curves import Curves
from mmpost.listeners.files import EvalLog, JsonlMetrics, SamplesLog, TokenStrings
from mmpost.listeners.screen import Progress
from mmpost.listeners.trackers import TensorBoard, Trackio, Wandb


def listeners_of(log: LogSettings, token_strings: TokenStrings | None) -> Iterator[Listener]:
    """File logs always, the others if enabled; `token_strings` returns the text of each token of a reply."""
    yield JsonlMetrics()
    yield EvalLog()
    yield SamplesLog(token_strings)
    yield Curves()
    yield CollapseWarning()
    if log.progress:
        yield Progress()
    if log.tensorboard:
        yield TensorBoard()
    if log.wandb:
        yield Wandb(log.wandb)
    if log.trackio:
        yield Trackio(log.trackio)
