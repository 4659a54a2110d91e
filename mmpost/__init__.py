"""mmpost: post-training of multimodal models. Encoders, rewards, objectives, data selection and updates plug in.

The functions take what the command line takes, as nested arguments:

    import mmpost as mp

    summary = mp.train(task="visurf", optim={"lr": 1e-4}, out="runs/mine")
    scores = mp.evaluate(task="visurf", model="runs/mine")
    model = mp.load("runs/mine")

A plug-in needs nothing else either: `mp.Task`, `mp.Stage`, `mp.Generate`, `mp.PolicyLoss` and the others in
`mmpost/config/exports.py` are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmpost.config.exports import EXPORTS as _EXPORTS

if TYPE_CHECKING:
    from mmpost.config.settings import (
        DataSettings as DataSettings,
        Settings as Settings,
    )
    from mmpost.core.models import (
        EmbeddingModel as EmbeddingModel,
        GenerativeModel as GenerativeModel,
        Model as Model,
    )
    from mmpost.core.plugins import (
        Context as Context,
        Edit as Edit,
        FunctionTransform as FunctionTransform,
        Objective as Objective,
        RefillBatch as RefillBatch,
        Reward as Reward,
        Sampling as Sampling,
        Selector as Selector,
        Transform as Transform,
        Update as Update,
    )
    from mmpost.core.samples import (
        Batch as Batch,
        CoordinateFrame as CoordinateFrame,
        Loss as Loss,
        Outputs as Outputs,
        Part as Part,
        Reply as Reply,
        Sample as Sample,
        SampleRecord as SampleRecord,
        Split as Split,
    )
    from mmpost.core.stage import (
        Bench as Bench,
        GeneratedDataset as GeneratedDataset,
        Gold as Gold,
        ReadsFrom as ReadsFrom,
        Source as Source,
        Stage as Stage,
        Task as Task,
    )
    from mmpost.data.media.media import (
        Media as Media,
        media as media,
    )
    from mmpost.data.media.modalities import (
        Modality as Modality,
        register_modality as register_modality,
    )
    from mmpost.data.readers.user_data import (
        user_data as user_data,
    )
    from mmpost.data.sources.base import (
        Generated as Generated,
        Indexed as Indexed,
        Subset as Subset,
        Wrapped as Wrapped,
    )
    from mmpost.edits.freeze import (
        Freeze as Freeze,
    )
    from mmpost.edits.head import (
        AddHead as AddHead,
    )
    from mmpost.edits.lora import (
        Lora as Lora,
    )
    from mmpost.edits.standardize import (
        Standardize as Standardize,
    )
    from mmpost.errors import (
        ColumnError as ColumnError,
        ConfigError as ConfigError,
        DataError as DataError,
        MmpostError as MmpostError,
        PluginError as PluginError,
        TrainError as TrainError,
    )
    from mmpost.judges.base import (
        Judge as Judge,
        Verdict as Verdict,
    )
    from mmpost.judges.chat_judge import (
        JudgePrompt as JudgePrompt,
    )
    from mmpost.judges.grade import (
        Grade as Grade,
    )
    from mmpost.judges.settings import (
        JudgeSettings as JudgeSettings,
    )
    from mmpost.judges.transform import (
        JudgeScore as JudgeScore,
        judge_reward as judge_reward,
    )
    from mmpost.methods.policy_gradient import (
        PolicyGradientTask as PolicyGradientTask,
    )
    from mmpost.methods.preference import (
        PreferenceTask as PreferenceTask,
    )
    from mmpost.metrics.embeddings import (
        CrossModalRetrieval as CrossModalRetrieval,
        EmbeddingClassifier as EmbeddingClassifier,
        HeadClassifier as HeadClassifier,
        NearestNeighbors as NearestNeighbors,
        OutlierScore as OutlierScore,
        PcaProjection as PcaProjection,
    )
    from mmpost.metrics.summaries import (
        anomaly_detection as anomaly_detection,
        class_accuracy as class_accuracy,
        neighbor_precision as neighbor_precision,
        retrieval_recall as retrieval_recall,
    )
    from mmpost.models.embedding.encoders import (
        Encoder as Encoder,
    )
    from mmpost.objectives.classify import (
        Classify as Classify,
    )
    from mmpost.objectives.contrastive import (
        Contrastive as Contrastive,
    )
    from mmpost.objectives.likelihood import (
        Likelihood as Likelihood,
    )
    from mmpost.objectives.policy import (
        PolicyLoss as PolicyLoss,
    )
    from mmpost.objectives.preference import (
        Preference as Preference,
    )
    from mmpost.transforms.advantage import (
        GroupAdvantage as GroupAdvantage,
        LeaveOneOut as LeaveOneOut,
    )
    from mmpost.transforms.dynamic_sampling import (
        DropZeroVariance as DropZeroVariance,
    )
    from mmpost.transforms.generate import (
        DropReplies as DropReplies,
        EncodeReplies as EncodeReplies,
        Generate as Generate,
        InjectTruth as InjectTruth,
        ReplyFromTruth as ReplyFromTruth,
        greedy as greedy,
    )
    from mmpost.transforms.logprobs import (
        KlFromStart as KlFromStart,
        OldLogprobs as OldLogprobs,
        ReferenceLogprobs as ReferenceLogprobs,
        ScoreLogprobs as ScoreLogprobs,
    )
    from mmpost.transforms.score import (
        ParseRate as ParseRate,
        Score as Score,
        SmoothTruth as SmoothTruth,
    )

__version__ = "0.1.0"
__all__ = [*_EXPORTS, "evaluate", "load", "select", "train"]  # pyright: ignore[reportUnsupportedDunderAll]


def train(*arguments: str | Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Train a task; returns the content of the run's summary.json."""
    from mmpost.commands.train import train

    return train([*arguments, settings])


def evaluate(*arguments: str | Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Evaluate a model on a task's test split; returns the content of eval.json."""
    from mmpost.commands.evaluate import evaluate

    return evaluate([*arguments, settings])


def select(*arguments: str | Mapping[str, Any], **settings: Any) -> dict[str, int]:
    """Measure a task's samples and write which to train on; returns how many there are, and how many are kept."""
    from mmpost.commands.select import select

    return select([*arguments, settings])


def load(model: str, **settings: Any) -> Model:
    """A model by name, folder, run or hub id, as `model=` takes it; `settings`: fields of the `model` section."""
    from mmpost.runs.session import load_model

    return load_model(model, **settings)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mmpost' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
