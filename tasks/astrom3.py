"""AstroM3: contrastive pre-training on light curves, spectra and records of variable stars, then classification."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

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
from mmpost.metrics.loss import ObjectiveLoss, mean_loss
from mmpost.metrics.summaries import anomaly_detection, class_accuracy, neighbor_precision, retrieval_recall
from mmpost.transforms.crop import Crop

FITTED = 512
"""Maximum number of labeled, class-balanced training stars that evaluations of embeddings are fitted on."""

EPOCH = 33
"""Steps of an epoch of the published dataset, in batches of 512."""
PUBLISHED: Mapping[str, Any] = {
    "name": "adam",
    "weight_decay_on": "all",
    "warmup": 10 * EPOCH,
    "warmup_start": 1e-5,
    "warmup_interval": EPOCH,
    "schedule": "plateau",
    "plateau_patience": 3,
    "early_stopping_patience": 6,
}
"""Optimizer settings of all released configurations; `eval.every` is an epoch."""
PRETRAINING: Mapping[str, Any] = {
    "lr": 3.921e-3,
    "betas": (0.9262, 0.999),
    "weight_decay": 4.670e-3,
    "max_grad_norm": 45,
    "plateau_factor": 0.1125,
    "monitor": "-contrast/loss",
}
"""Those of pre-training (configs/config-clip-full.yaml of the release)."""
CLASSIFIERS: Mapping[tuple[str, bool], tuple[float, float, float, float, float]] = {
    ("light_curve", False): (2.925e-3, 0.9896, 4.707e-5, 5, 0.5055),
    ("light_curve", True): (9.338e-4, 0.8348, 4.658e-4, 5, 0.3853),
    ("spectrum", False): (3.970e-3, 0.7623, 1.580e-4, 5, 0.6019),
    ("spectrum", True): (2.551e-3, 0.8721, 8.088e-5, 5, 0.6215),
    ("record", False): (2.745e-3, 0.9220, 2.618e-4, 0, 0.3721),
    ("record", True): (3.807e-3, 0.7596, 8.915e-5, 0, 0.3319),
    ("all", False): (4.246e-3, 0.9150, 6.933e-5, 0, 0.1004),
    ("all", True): (9.504e-3, 0.9456, 5.938e-5, 0, 0.1965),
}
"""lr, beta1, weight_decay, max_grad_norm and plateau_factor of the classifiers on all labels, by input and by whether
they were pre-trained (configs/config-{photo,spectra,meta,all}-full[-clip].yaml of the release)."""


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
            yield mp.Stage(
                "contrast",
                everything,
                self.contrast,
                self.batch_size,
                crop,
                fraction=self.contrast_fraction,
                edits=edits,
                optim={**PUBLISHED, **PRETRAINING},
            )
        size = min(self.class_batch_size, len(labelled))
        fraction = 1 - self.contrast_fraction if self.pretrain else 1.0
        optim = classifier_optim(self.modalities, self.pretrain)
        yield mp.Stage("classify", labelled, self._classify, size, crop, fraction=fraction, edits=edits, optim=optim)

    def benches(self, split: mp.Split) -> list[mp.Bench]:
        source, head = self._source(split), HeadClassifier(CLASSES, self.modalities)
        if split == "val":
            loss = ObjectiveLoss(self._classify, self.class_batch_size)
            benches = [mp.Bench("class", source, (head, loss), class_summary)]
            if self.pretrain:
                benches.append(
                    mp.Bench("contrast", source, (ObjectiveLoss(self.contrast, self.batch_size),), mean_loss)
                )
            return benches
        benches = [mp.Bench("class", source, (head,), class_accuracy)]
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
    def _classify(self) -> mp.Classify:
        """The classification loss, of the samples that the classifier has an input for."""
        modalities = self.classify.modalities or self.modalities
        return self.classify.model_copy(update={"modalities": modalities})

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


def classifier_optim(modalities: Sequence[str], pretrained: bool) -> dict[str, Any]:
    """The published optimizer settings of the classifier on `modalities`; those on all three stand for those on two."""
    name = modalities[0] if len(modalities) == 1 else "all"
    lr, beta1, weight_decay, max_grad_norm, factor = CLASSIFIERS[name, pretrained]
    return {
        **PUBLISHED,
        "lr": lr,
        "betas": (beta1, 0.999),
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "plateau_factor": factor,
        "monitor": "-class/loss",
    }


def class_summary(samples: Sequence[mp.Sample]) -> dict[str, float]:
    """Accuracy and balanced accuracy in percent, and the loss."""
    return {**class_accuracy(samples), **mean_loss(samples)}
