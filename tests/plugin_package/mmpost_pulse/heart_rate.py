"""Slow, normal or fast: a classifier of pulse waves."""

import math
from collections.abc import Iterator

import numpy as np

import mmpost as mp
from mmpost_pulse.focal import FocalLoss

CLASSES = ("slow", "normal", "fast")
RATES = (45, 75, 120)
"""Beats per minute of each class."""


class Waves(mp.Generated):
    """Ten seconds of a noisy pulse, at 25 points per second."""

    uid_prefix = "wave"

    def generate(self, index: int) -> mp.Sample:
        rng, label = self.rng(index), index % len(CLASSES)
        frequency, phase = RATES[label] / 60 * rng.uniform(0.9, 1.1), rng.uniform(0, 2 * math.pi)
        values = [math.sin(2 * math.pi * frequency * t / 25 + phase) + rng.gauss(0, 0.2) for t in range(250)]
        wave = mp.media(np.array(values, np.float32), "pulse")
        return mp.Sample(
            self.uid(index), (mp.Part("pulse", wave),), truth=CLASSES[label], columns={"label": float(label)}
        )


class HeartRate(mp.Task):
    """Classifies waves by their rate with a head on the encoder's features."""

    best_metric = "rate/accuracy"

    loss: FocalLoss = FocalLoss()
    """The loss of the classifier."""
    waves: int = 96
    """Waves to train on."""

    def stages(self) -> Iterator[mp.Stage]:
        head = mp.AddHead(len(CLASSES), ("pulse",))
        yield mp.Stage("classify", Waves("train", self.waves, 0), self.loss, batch_size=24, edits=(head,))

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        return [mp.Bench("rate", Waves(split, 48, 0), (mp.HeadClassifier(CLASSES, ("pulse",)),), mp.class_accuracy)]
