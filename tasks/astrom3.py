"""AstroM3: light curves, spectra and catalogue entries of variable stars, compared first, then classified."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

import mmpost as mp
from mmpost.data.formats.stars import PublishedStars, load
from mmpost.data.media.limits import Limits
from mmpost.data.signals.preprocess import class_balanced_subset
from mmpost.data.worlds.stars.catalogue import CLASSES, MODALITIES, Stars
from mmpost.edits.head import AddHead
from mmpost.edits.standardise import Standardise
from mmpost.metrics.embeddings import (
    CrossModalRetrieval,
    EmbeddingClassifier,
    HeadClassifier,
    NearestNeighbors,
    OutlierScore,
    PcaProjection,
)
from mmpost.metrics.summaries import anomaly_detection, class_accuracy, neighbor_precision, retrieval_recall
from mmpost.transforms.crop import Crop

FITTED = 512
"""Labelled stars, of each class alike, that evaluations of embeddings are fitted on."""


class Astrom3(mp.Task):
    """Contrastive pre-training on any of the modalities, then a classifier on some of them with a share of the labels.

    `data.train` names the published data set, a folder or hub name; without it, stars are made up.
    """

    best_metric = "class/accuracy"

    modalities: tuple[str, ...] = MODALITIES
    """What the classifier sees: light_curve, spectrum, record, or several."""
    pretrain: bool = True
    """Compare modalities first, without labels; false: classify from scratch, with all steps."""
    contrast: mp.Contrastive = mp.Contrastive(modalities=MODALITIES, half=False, reduce="sum")
    """The loss of pre-training, and by its `kinds` the modalities that it compares."""
    classify: mp.Classify = mp.Classify()
    """The loss of the classifier."""
    fusion: Literal["auto", "average", "concat"] = "auto"
    """What the classifier reads: the embeddings that were compared, averaged or side by side, or (auto) of a single
    modality the vector before its projection, as published, and of several the average."""
    labels: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the training labels; all classes have the same cap, so that small classes keep theirs."""
    contrast_fraction: float = Field(default=0.6, gt=0.0, le=1.0)
    """Share of the run's steps that goes to pre-training; 1: nothing else, to start others from what comes out."""
    batch_size: int = Field(default=512, ge=2)
    """Stars per step of pre-training."""
    class_batch_size: int = Field(default=512, ge=1)
    """Stars per step of the classifier."""
    crop: Literal["random", "released", "centre"] = "random"
    """Windows of long light curves in training; evaluation takes the middle one."""
    length: int = Field(default=200, ge=1)
    """Epochs that the model's encoder of light curves reads."""
    config: str = "full_42"
    """Of the published data set: {full|sub50|sub25|sub10}_{seed}."""
    stars: int = Field(default=4096, ge=10)
    """Made-up stars to train on."""
    bench_stars: int = Field(default=512, ge=10)
    """Made-up stars of each evaluation."""
    missing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the modalities that made-up training stars lack."""
    planted: float = Field(default=0.05, ge=0.0, lt=0.5)
    """Share of anomalies, and of wrong labels, among the made-up stars of the bench "unusual"."""
    draw: int = 0
    """Seed of the made-up stars, and of which labels are kept."""

    def stages(self) -> Iterator[mp.Stage]:
        everything, labelled = self._source("train"), self._labelled()
        crop = self._crop()
        auto = "features" if len(self.modalities) == 1 else "average"
        how = auto if self.fusion == "auto" else self.fusion
        # From the first step, so that evaluations in between find a head; until it trains, they are at chance.
        edits = (Standardise(everything), AddHead(len(CLASSES), self.modalities, how))
        if self.pretrain:
            share = self.contrast_fraction
            yield mp.Stage("contrast", everything, self.contrast, self.batch_size, crop, fraction=share, edits=edits)
        size = min(self.class_batch_size, len(labelled))
        head = (
            self.classify
            if self.classify.modalities
            else self.classify.model_copy(update={"modalities": self.modalities})
        )
        share = 1 - self.contrast_fraction if self.pretrain else 1.0
        yield mp.Stage("classify", labelled, head, size, crop, fraction=share, edits=edits)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._source(split)
        found = [mp.Bench("class", source, (HeadClassifier(CLASSES, self.modalities),), class_accuracy)]
        if split == "val":
            return found
        fit = self._labelled(FITTED)
        near = EmbeddingClassifier(fit, CLASSES, self.modalities)
        found.append(mp.Bench("centroid", source, (near, PcaProjection(self.modalities)), class_accuracy))
        if len(self._kinds) > 1:
            found.append(mp.Bench("retrieval", source, (CrossModalRetrieval(self._kinds),), retrieval_recall))
        found.append(mp.Bench("search", source, (NearestNeighbors(fit, CLASSES, self.modalities),), neighbor_precision))
        if not self.data.train and self.planted:
            odd = Stars("test", self.bench_stars, self.draw + 1, self._kinds, 0.0, self.planted, self.planted)
            unusual = OutlierScore(fit, CLASSES, self.modalities, ground_truth=("odd", "wrong"))
            found.append(mp.Bench("unusual", odd, (unusual,), anomaly_detection))
        return found

    @property
    def _kinds(self) -> tuple[str, ...]:
        """What is read of a star: no more than somebody looks at."""
        wanted = {*self.modalities, *(self.contrast.modalities if self.pretrain else ())}
        return tuple(kind for kind in MODALITIES if kind in wanted)

    def _labelled(self, most: int | None = None) -> mp.Subset:
        """Training stars whose labels are known; of `most` too, every class gives as many as it can."""
        source = self._source("train")
        total = round(self.labels * len(source))
        kept = class_balanced_subset(source.labels, total if most is None else min(most, total), self.draw)
        if not kept:
            raise mp.ConfigError(
                f"task.labels={self.labels} of {len(source)} stars leaves not one of each class; raise it, or take more"
            )
        return mp.Subset(source, kept)

    def _crop(self) -> tuple[mp.Transform, ...]:
        if self.crop == "centre":
            return ()
        return (Crop(modality="light_curve", length=self.length, position=self.crop),)

    def _source(self, split: mp.Split) -> Stars | PublishedStars:
        named = getattr(self.data, split) or self.data.train
        if named:
            if not isinstance(named, str):
                raise mp.ConfigError(f"task=astrom3 reads one data set, found data.{split}={list(named)}: name one")
            if self.config.endswith("_norm"):
                raise mp.ConfigError(
                    f"task.config={self.config}: its numbers are standardised, and the model's encoders would do so "
                    "again: take the configuration without _norm"
                )
            rows = load(named, self.config, split)
            return PublishedStars(rows, CLASSES, self._kinds, named, Limits.of(self.data))
        missing = self.missing if split == "train" else 0.0
        n = self.stars if split == "train" else self.bench_stars
        return Stars(split, n, self.draw, self._kinds, missing=missing)
