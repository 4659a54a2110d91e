"""All settings of a run, section by section, except those that tasks and plug-ins define. Does not import torch.

The string below a field is its user-facing documentation, shown by `mmpost list` and in error messages.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """A typed section of the configuration: immutable, values are converted ("1" to 1), unknown keys are errors.

    Numbers are finite, except a `Bound`, and fit 64 bits. The string below a field is its documentation.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # what is stored must come back
    )

    @field_validator("*")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValueError("wanted a number of at most 64 bits")
        if any(isinstance(v, float) and math.isnan(v) for v in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("wanted a number, not NaN")
        return value


Bound = Annotated[float, Field(allow_inf_nan=True)]
"""The type of settings for which `.inf` means that there is no bound."""
NotNegative = Annotated[float, Field(ge=0.0)]
DecayRate = Annotated[float, Field(ge=0.0, lt=1.0)]


def parse_weight(text: str) -> tuple[str, float | None]:
    """Split "NAME*0.5" into name and weight; the weight is None if no number follows the last star."""
    match = re.fullmatch(r"(.+)\*(\d+\.?\d*|\.\d+)", text)
    return (match[1], float(match[2])) if match else (text, None)


class DataSettings(Settings):
    """Your own data. For a split that is not set, a task uses its built-in data."""

    train: str | tuple[str, ...] | None = None
    """Training data: a file (.jsonl, .json, .parquet, .csv, .tsv), a folder saved by `datasets`, a folder of images,
    or a weighted mixture of several: [a.jsonl*0.7, b.jsonl*0.3]."""
    val: str | tuple[str, ...] | None = None
    """Validation data, evaluated every `eval.every` steps; selects the best checkpoint."""
    test: str | tuple[str, ...] | None = None
    """Test data, evaluated before and after training, and by `mmpost eval`."""
    root: str | None = None
    """Folder to which relative media paths refer; default: the folder of the data file."""
    train_on_turns: Literal["all", "last"] = "all"
    """Rows with several assistant turns: train on all of them, or only on the last."""
    split: tuple[float, float, float] | None = None
    """Fractions of `data.train` to use for train, val and test, such as [0.9, 0.05, 0.05]. The split follows from the
    ids of the rows, so a row stays in its split when others are added."""
    prompt: str = ""
    """Prompt for rows without a question, such as the images of a folder."""
    manifest: str | None = None
    """Train only on the samples that this manifest keeps (written by `mmpost select`); also filters built-in data."""
    subset: Literal["kept", "dropped", "random"] = "kept"
    """Part of a selection to train on: the kept samples, the dropped ones, or equally many at random as a baseline."""
    max_samples: int = Field(default=0, ge=0)
    """Maximum number of training samples, chosen at random by the seed; 0: all."""
    order: Literal["shuffled", "manifest"] = "shuffled"
    """Reshuffle the samples for every epoch, or keep the order of the manifest (such as easy to hard)."""
    on_error: Literal["stop", "skip"] = "stop"
    """Rows that cannot be used, such as one with a broken file: stop the run, or skip them. The log counts the skipped
    rows, and the summary names them."""
    max_bytes: int = Field(default=2**31, ge=1)
    """Maximum size of a media file, in bytes (default 2 GiB). Protects against files that exhaust memory."""
    max_frame_pixels: int = Field(default=89_478_485, ge=1)
    """Maximum pixels of an image or of a video frame in the file; checked in its header, before decoding."""
    max_media_pixels: int = Field(default=2**30, ge=1)
    """Maximum decoded size of a medium: pixels (frames x height x width), or samples of audio."""
    video_backend: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"
    """Video decoder. auto: the first of decord, torchcodec and PyAV that is installed and can read the file."""
    benches: str = ""
    """Folder with the official files of benchmarks, each benchmark's in a folder of its name."""

    @field_validator("split")
    @classmethod
    def _check_split(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not (min(value) >= 0 and abs(sum(value) - 1) < 1e-6):
            raise ValueError("wanted three fractions that add up to 1")
        return value


class LoraSettings(Settings):
    """LoRA: train low-rank adapters (peft) instead of the full weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters; higher ranks can learn more and need more memory."""
    alpha: float = Field(default=32.0, ge=0.0)
    """Scaling: the update of the adapters is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the input of the adapters. Off by default, so that log-probs are reproducible: policy gradients and
    `compute.reuse` compare log-probs of the same weights."""
    target_groups: tuple[str, ...] = ("language",)
    """Parts of the model whose linear layers get adapters, e.g. [vision, projector, language]."""


class ModelSettings(Settings):
    """The model, how it is loaded, and how its inputs are built."""

    name: str = "tiny"
    """What to load: a built-in base ("tiny"), a folder, a run folder (its last checkpoint), a hub id, or a .yaml file
    that describes a model."""
    base_seed: int = 0
    """Seed of the training of a built-in base: another base of the same recipe, trained on first use."""
    base_model: str = ""
    """Name of the model that the run in `model.name` started from; filled in automatically."""
    device: str = "auto"
    """"auto" (the GPU if there is one), "cpu", "cuda" or "cuda:1"."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward passes; weights and optimizer state stay fp32. auto: bf16 on GPUs, else fp32."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers; eager is the slowest, flash_attention_2 needs its own package."""
    trust_remote_code: bool = False
    """Execute the Python code of a hub model. Enable it only for authors that you trust."""
    ignore_unexpected: tuple[str, ...] = ()
    """Regular expressions of names of tensors that the weights hold and the model has no place for, such as ['^mtp'].
    They are left out, as those that transformers ignores for the model's class; all others are refused."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Minimum pixels of an image after resizing, for processors with a pixel budget; default: the model's own."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Maximum pixels of an image after resizing; lower it to save tokens and memory. Default: the model's own."""
    fps: float = Field(default=2.0, gt=0)
    """Frames sampled per second of video."""
    min_frames: int = Field(default=4, ge=1)
    """Minimum number of frames sampled from a video, if it has that many."""
    max_frames: int = Field(default=768, ge=1)
    """Maximum number of frames sampled from a video; longer videos are sampled more sparsely."""
    video_min_pixels: int | None = Field(default=None, ge=1)
    """Minimum pixels of a video frame after resizing (Qwen3-VL: of all frames together). Default: the model's own."""
    video_max_pixels: int | None = Field(default=None, ge=1)
    """Maximum pixels of a video frame after resizing (Qwen3-VL: of all frames together). Default: the model's own."""
    video_total_pixels: int | None = Field(default=None, ge=1)
    """Pixel budget of a whole video, total_pixels in qwen-vl-utils: each of n frames gets 2 / n of it (Qwen2-VL,
    Qwen2.5-VL)."""
    positions: Literal["installed", "original"] = "installed"
    """Position ids of text after a video: as the installed transformers computes them, or as published."""
    system: str | None = None
    """System prompt for samples without one; default: that of the chat template."""
    coordinates: Literal["auto", "pixels", "thousand"] = "auto"
    """Coordinates that the model writes: pixels of the image, or a scale of 0 to 1000. auto: as its family was trained
    (README); a family that is not known there refuses boxes and points."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that are not trained, e.g. [vision, projector]."""
    lora: LoraSettings | None = None
    """Train LoRA adapters instead of the full weights; set any of the fields to enable it."""

    @field_validator("ignore_unexpected")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as e:
                raise ValueError(f"wanted regular expressions, found {pattern!r} ({e})") from e
        return value


class OptimSettings(Settings):
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw", "adam"] = "adamw"
    """Optimizer of torch. adamw: weight decay is decoupled; adam: it is an L2 penalty, part of the gradient."""
    lr: float = Field(default=1e-6, ge=0.0)
    """Peak learning rate."""
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.999)
    """Decay rates of the first and second moment."""
    eps: float = Field(default=1e-8, ge=0.0)
    """Added to the denominator for numerical stability."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Weight decay: decoupled with adamw, an L2 penalty with adam."""
    weight_decay_on: Literal["matrices", "all"] = "matrices"
    """Parameters with weight decay: matrices (not biases, norms and scalars), or all, as in torch without groups."""
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    """Decay of the learning rate after warm-up: from the peak to `min_lr_ratio` of it at the end of the stage, or
    (plateau) by `plateau_factor` when `monitor` has stopped improving, as torch's ReduceLROnPlateau does."""
    min_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    """Final (plateau: lowest) learning rate, as a fraction of the peak; has no effect with a constant schedule."""
    warmup: float = Field(default=0.0, ge=0.0)
    """Linear warm-up, in steps; below 1, as a fraction of the stage's steps."""
    warmup_start: float | None = Field(default=None, ge=0.0, le=1.0)
    """Learning rate at the start of warm-up, as a fraction of the peak; default: 1 / (warm-up steps + 1)."""
    warmup_interval: int = Field(default=1, ge=1)
    """Steps between two increases during warm-up: those of an epoch, for a warm-up by epochs."""
    plateau_factor: float = Field(default=0.1, gt=0.0, lt=1.0)
    """With schedule=plateau: the factor by which the learning rate is reduced."""
    plateau_patience: int = Field(default=10, ge=0)
    """With schedule=plateau: evaluations in a row without an improvement that are tolerated before each reduction."""
    monitor: str = ""
    """Metric on val that schedule=plateau and early stopping follow: "bench/metric", or "-bench/metric" where lower is
    better; default: the one that selects the best checkpoint. They hear of it every `eval.every` steps."""
    early_stopping_patience: int = Field(default=0, ge=0)
    """End the stage after this many evaluations in a row without an improvement of `monitor`; 0: never."""
    max_grad_norm: Bound = Field(default=1.0, ge=0.0)
    """Gradients are clipped to this norm, over all parameters together; 0 or .inf: no clipping."""
    lr_multipliers: dict[str, NotNegative] = {}
    """Learning-rate factors by part of the model, e.g. {vision: 0.1}."""

    @property
    def follows_evaluations(self) -> bool:
        """Whether the optimizer needs evaluations on val while it trains."""
        return self.schedule == "plateau" or self.early_stopping_patience > 0


class StageSettings(Settings):
    """Overrides for one stage of the task, by the name of the stage."""

    optim: dict[str, Any] = {}
    """`optim` fields for this stage only; they take precedence over `optim` and over the task."""
    fraction: float | None = Field(default=None, ge=0.0)
    """Fraction of the run's steps for this stage, relative to those of the other stages; default: the task's."""


class ComputeSettings(Settings):
    """Memory and speed. These settings do not change results."""

    max_tokens_per_microbatch: int = Field(default=16384, ge=1)
    """Maximum tokens (including padding) per forward and backward pass; lower it if training runs out of memory."""
    max_replies_per_microbatch: int = Field(default=0, ge=0)
    """Maximum replies per forward and backward pass (samples, for models that write no replies); 0: limited by tokens
    only."""
    rollout_batch_size: int = Field(default=192, ge=1)
    """Maximum replies sampled in parallel; lower it if rollouts run out of memory."""
    logits_per_chunk: int = Field(default=1 << 25, ge=1)
    """Logits (reply tokens x vocabulary) computed at once; two to three fp32 tensors of this size exist at a time."""
    reuse: Literal["auto", "off"] = "auto"
    """Compute each image feature, prompt prefix and log-prob once if it is used several times, with the same
    results. off: compute every row from scratch, for debugging and benchmarks."""
    processed_cache_bytes: int = Field(default=2**30, ge=0)
    """Memory for processed images, in bytes; an image that was evicted is processed again when needed."""
    feature_cache_bytes: int = Field(default=2**30, ge=0)
    """Host memory for encoder features of images, in bytes; used while the encoder is frozen."""
    feature_cache_dir: str | None = None
    """Folder that keeps features of a frozen vision encoder across runs; files are keyed by the encoder's weights."""
    threads: int = Field(default=0, ge=0, le=4096)
    """CPU threads of torch; 0: torch's default."""


class CheckpointSettings(Settings):
    """When checkpoints (weights and training state) are saved."""

    every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0: only by time (`minutes`) and at the end."""
    minutes: float = Field(default=10.0, ge=0.0)
    """Minutes between checkpoints, saved after the step in which they pass, so that a kill costs no more; 0: none by
    time. Where saving takes long, they are rarer, so that it takes at most a twentieth of the time."""
    keep: int = Field(default=2, ge=1)
    """Number of most recent checkpoints to keep; the best one is always kept."""


class EvalTaskSettings(Settings):
    """Another task whose test split is evaluated."""

    task: dict[str, Any]
    """`task: NAME`, or its name and fields."""
    data: DataSettings = DataSettings()
    """The task's data; only its test split is read."""
    rewards: dict[str, str] = {}
    """Additional rewards to score, as in the top-level `rewards`."""
    benches: tuple[str, ...] = ()
    """Names of the benches to run; empty: all of the task."""


class EvalBenchSettings(Settings):
    """A benchmark that is evaluated during training, on its official files in `data.benches`."""

    samples: int = Field(default=500, ge=0)
    """About how many questions are asked: whole clusters (pictures, videos), the same ones in every run; 0: all."""
    every: int = Field(default=0, ge=0)
    """Steps between evaluations, besides those before and after training; 0: only those."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a reply, at most; default: the benchmark's own limit. Decoding is greedy."""


class EvalSettings(Settings):
    """When the task's benches (evaluations) run, and on what."""

    before: bool = True
    """Evaluate the test split before the first step."""
    after: bool = True
    """Evaluate the test split after the last step."""
    every: int = Field(default=0, ge=0)
    """Steps between evaluations of the val split; 0: never."""
    on_start: bool = False
    """Evaluate the val split before the first step, too."""
    max_samples: int = Field(default=0, ge=0)
    """Maximum samples per bench; 0: all."""
    benches: dict[str, EvalBenchSettings] = {}
    """Benchmarks that are evaluated, too, by name: {pope: {samples: 500, every: 200}}. Their metrics, and the gain in
    the mean official score since the first step, are among the others, as pope/f1 and pope/gain."""
    tasks: dict[str, EvalTaskSettings] = {}
    """Tasks whose test splits are evaluated instead of the trained task's, by names of your choice, e.g. to measure
    forgetting: {old: {task: NAME}}."""


class LogSettings(Settings):
    """What is logged, and to which trackers."""

    samples_every: int = Field(default=1, ge=0)
    """Steps between logs of sampled replies in samples/; 0: none."""
    probe_every: int = Field(default=50, ge=0)
    """Steps between probes of whether the model uses its media (probe/blank, probe/swap, probe/noise); 0: none."""
    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    wandb: str = ""
    """Weights & Biases project to log to; empty: off."""
    trackio: str = ""
    """Trackio project to log to; empty: off."""
    progress: bool = True
    """Show a progress line."""
