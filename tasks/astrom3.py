"""AstroM3: contrastive pre-training on light curves, spectra and records of variable stars, then classification."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

import mmpost as mp
from mmpost.data.formats.stars import PublishedStars, load
from mmpost.data.media.limits import Limits
from mmpost.data.signals.preprocess import class_balanced_subset
from mmpost.data.worlds.stars.catalogue import CLASSES, MODALITIES, Stars
from mmpost.edits.head import AddHead
from mmpost.edits.standardize import Standardize
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
"""Maximum number of labeled, class-balanced training stars that evaluations of embeddings are fitted on."""


class Astrom3(mp.Task):
    """Contrastive pre-training on several modalities, then a classifier on some of them with a fraction of the labels.

    `data.train` is the published dataset, as a folder or Hub name; without it, the stars are synthetic.
    """

    best_metric = "class/accuracy"

    modalities: tuple[str, ...] = MODALITIES
    """Input modalities of the classifier: light_curve, spectrum, record, or several."""
    pretrain: bool = True
    """Pre-train contrastively first, without labels; false: train the classifier from scratch, in all steps."""
    contrast: mp.Contrastive = mp.Contrastive(modalities=MODALITIES, half=False, reduce="sum")
    """The contrastive loss, and the modalities that pre-training aligns."""
    classify: mp.Classify = mp.Classify()
    """The classification loss."""
    fusion: Literal["auto", "average", "concat"] = "auto"
    """Input of the head: the embeddings of all modalities averaged or concatenated. auto: the average of several, or
    for a single modality the features before its projection, as published."""
    label_fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    """Fraction of the training labels to use, with the same cap for every class, so that rare classes are kept."""
    contrast_fraction: float = Field(default=0.6, gt=0.0, le=1.0)
    """Fraction of the steps for pre-training; 1: pre-training only, for a checkpoint that other runs start from."""
    batch_size: int = Field(default=512, ge=2)
    """Stars per step of pre-training."""
    class_batch_size: int = Field(default=512, ge=1)
    """Stars per step of the classifier."""
    crop: Literal["random", "released", "centre"] = "random"
    """Position of the window into which long light curves are cropped in training; evaluation takes the middle one."""
    length: int = Field(default=200, ge=1)
    """Length of the window in epochs, as the model's light-curve encoder expects."""
    config: str = "full_42"
    """Configuration of the published dataset: {full|sub50|sub25|sub10}_{seed}."""
    stars: int = Field(default=4096, ge=10)
    """Synthetic training stars."""
    bench_stars: int = Field(default=512, ge=10)
    """Synthetic stars per evaluation."""
    missing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of modalities that are missing in synthetic training stars."""
    anomaly_fraction: float = Field(default=0.05, ge=0.0, lt=0.5)
    """Fraction of anomalies, and of wrong labels, among the synthetic stars of the bench "unusual"; 0: no bench."""
    data_seed: int = 0
    """Seed of the synthetic stars and of the choice of labels."""

    def stages(self) -> Iterator[mp.Stage]:
        everything, labelled = self._source("train"), self._labelled()
        crop = self._crop()
        auto = "features" if len(self.modalities) == 1 else "average"
        pooling = auto if self.fusion == "auto" else self.fusion
        # Pre-training has the head too, since evaluations read it; before the head is trained, they are at chance.
        edits = (Standardize(everything), AddHead(len(CLASSES), self.modalities, pooling))
        if self.pretrain:
            fraction = self.contrast_fraction
            yield mp.Stage("contrast", everything, self.contrast, self.batch_size, crop, fraction=fraction, edits=edits)
        size = min(self.class_batch_size, len(labelled))
        classify = (
            self.classify
            if self.classify.modalities
            else self.classify.model_copy(update={"modalities": self.modalities})
        )
        fraction = 1 - self.contrast_fraction if self.pretrain else 1.0
        yield mp.Stage("classify", labelled, classify, size, crop, fraction=fraction, edits=edits)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source = self._source(split)
        benches = [mp.Bench("class", source, (HeadClassifier(CLASSES, self.modalities),), class_accuracy)]
        if split == "val":
            return benches
        fit = self._labelled(FITTED)
        centroid = EmbeddingClassifier(fit, CLASSES, self.modalities)
        neighbors = NearestNeighbors(fit, CLASSES, self.modalities)
        benches.append(mp.Bench("centroid", source, (centroid, PcaProjection(self.modalities)), class_accuracy))
        if len(self._used_modalities) > 1:
            retrieval = CrossModalRetrieval(self._used_modalities)
            benches.append(mp.Bench("retrieval", source, (retrieval,), retrieval_recall))
        benches.append(mp.Bench("search", source, (neighbors,), neighbor_precision))
        if not self.data.train and self.anomaly_fraction:
            modalities, planted = self._used_modalities, self.anomaly_fraction
            anomalies = Stars("test", self.bench_stars, self.data_seed + 1, modalities, 0.0, planted, planted)
            outlier = OutlierScore(fit, CLASSES, self.modalities, ground_truth=("odd", "wrong"))
            benches.append(mp.Bench("unusual", anomalies, (outlier,), anomaly_detection))
        return benches

    @property
    def _used_modalities(self) -> tuple[str, ...]:
        """The modalities that the classifier or pre-training uses; no others are loaded."""
        used = {*self.modalities, *(self.contrast.modalities if self.pretrain else ())}
        return tuple(modality for modality in MODALITIES if modality in used)

    def _labelled(self, most: int | None = None) -> mp.Subset:
        """The training stars with labels, of which at most `most` in total, balanced over classes."""
        source = self._source("train")
        total = round(self.label_fraction * len(source))
        indices = class_balanced_subset(source.labels, total if most is None else min(most, total), self.data_seed)
        if not indices:
            raise mp.ConfigError(
                f"task.label_fraction={self.label_fraction}: wanted at least one star of each class, found {total} of "
                f"{len(source)} labels to use; raise task.label_fraction or use more stars"
            )
        return mp.Subset(source, indices)

    def _crop(self) -> tuple[mp.Transform, ...]:
        if self.crop == "centre":
            return ()
        return (Crop(modality="light_curve", length=self.length, position=self.crop),)

    def _source(self, split: mp.Split) -> Stars | PublishedStars:
        dataset = getattr(self.data, split) or self.data.train
        if dataset:
            if not isinstance(dataset, str):
                raise mp.ConfigError(f"task=astrom3 wants one dataset, found data.{split}={list(dataset)}; name one")
            if self.config.endswith("_norm"):
                raise mp.ConfigError(
                    f"task.config={self.config} is standardized already, and the model's encoders would do so again; "
                    "use the configuration without _norm"
                )
            rows = load(dataset, self.config, split)
            return PublishedStars(rows, CLASSES, self._used_modalities, dataset, Limits.of(self.data))
        missing = self.missing if split == "train" else 0.0
        n = self.stars if split == "train" else self.bench_stars
        return Stars(split, n, self.data_seed, self._used_modalities, missing=missing)
