"""What a run tells the world: files, a progress line, trackers. The loop calls these and never waits for an answer."""

from mmpost.listeners.base import Listener, Listeners, Metrics
from mmpost.listeners.curves import Curves
from mmpost.listeners.files import EvalLog, JsonlMetrics, SamplesLog
from mmpost.listeners.screen import Progress
from mmpost.listeners.trackers import TensorBoard, Trackio, Wandb

__all__ = [
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
