"""Listeners log a run to files, a progress line and experiment trackers. Training never depends on them."""

from mmpost.listeners.base import Listener, Listeners, Metrics
from mmpost.listeners.collapse import CollapseWarning
from mmpost.listeners.curves import Curves
from mmpost.listeners.files import EvalLog, JsonlMetrics, SamplesLog
from mmpost.listeners.screen import Progress
from mmpost.listeners.trackers import TensorBoard, Trackio, Wandb

__all__ = [
    "CollapseWarning",
    "Curves",
    "EvalLog",
    "JsonlMetrics",
    "Listener",
    "Listeners",
    "Metrics",
    "Progress",
    "SamplesLog",
    "TensorBoard",
    "Trackio",
    "Wandb",
]
