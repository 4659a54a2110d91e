"""The listeners of a run, as its `log` section asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from mmpost.config.settings import LogSettings
from mmpost.listeners.base import Listener
from mmpost.listeners.curves import Curves
from mmpost.listeners.files import EvalLog, JsonlMetrics, Pieces, SamplesLog
from mmpost.listeners.screen import Progress
from mmpost.listeners.trackers import TensorBoard, Trackio, Wandb


def chosen(log: LogSettings, pieces: Pieces) -> Iterator[Listener]:
    """Files always, the others where they are switched on; `pieces` cuts a reply into the texts of its tokens."""
    yield JsonlMetrics()
    yield EvalLog()
    yield SamplesLog(pieces)
    yield Curves()
    if log.progress:
        yield Progress()
    if log.tensorboard:
        yield TensorBoard()
    if log.wandb:
        yield Wandb(log.wandb)
    if log.trackio:
        yield Trackio(log.trackio)
