"""Everything a user can configure, section by section, apart from what tasks and plug-ins bring. No torch."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """A typed section of the configuration: unknown keys are refused, values decode laxly, fields are frozen.

    The string below a field is its documentation; the command line and the error messages show it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )


def parse_weight(text: str) -> tuple[str, float | None]:
    """ "NAME*0.5" as name and weight; None where no number stands behind the last star."""
    found = re.fullmatch(r"(.+)\*(\d+\.?\d*|\.\d+)", text)
    return (found[1], float(found[2])) if found else (text, None)


class DataSettings(Settings):
    """The user's own data; a task uses its built-in data for each split that is empty."""

    train: str | tuple[str, ...] | None = None
    """A file (.jsonl, .json, .parquet), a folder of `datasets` or of images, or several: [a.jsonl*0.7, b.jsonl*0.3]."""
    val: str | tuple[str, ...] | None = None
    """Chooses the best checkpoint; evaluated during training."""
    test: str | tuple[str, ...] | None = None
    """Evaluated before and after training, and by `mmpost eval`."""
    root: str | None = None
    """Folder that relative media paths start from; by default the folder of the data file."""
    train_on_turns: Literal["all", "last"] = "all"
    """Rows with several assistant turns: learn all of them, or the last."""
    split: tuple[float, float, float] | None = None
    """Shares of data.train for train, val and test, such as [0.9, 0.05, 0.05]; a row stays where its id puts it."""
    prompt: str = ""
    """What rows without a question of their own ask, such as the images of a folder."""
    manifest: str | None = None
    """Train on the samples that this file keeps (`mmpost select` writes it), also of a task's built-in data."""
    subset: Literal["kept", "dropped", "random"] = "kept"
    """Of a selection: what it keeps, what it drops, or as many at random as it keeps, for comparison."""
    max_samples: int = Field(default=0, ge=0)
    """Train on at most so many samples, drawn by the seed; 0: all."""
    order: Literal["shuffled", "manifest"] = "shuffled"
    """Each pass over the samples in an order of its own, or always in the selection's (easy to hard, if it says so)."""
    on_error: Literal["stop", "skip"] = "stop"
    """A row that cannot be used: stop the run, or leave the row out; the log counts it and the summary names it."""
    max_bytes: int = Field(default=2**31, ge=1)
    """Largest file of a medium, in bytes."""
    max_frame_pixels: int = Field(default=89_478_485, ge=1)
    """Most pixels of a picture, or of one frame, in the file; looked up in its header before anything is decoded."""
    max_media_pixels: int = Field(default=2**30, ge=1)
    """Most pixels (frames x height x width) or samples of sound that one medium is decoded to."""
    video_backend: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"
    """What decodes the frames of videos; auto: decord, then torchcodec, then PyAV, the first that can read the file."""

    @field_validator("split")
    @classmethod
    def _shares(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not (min(value) >= 0 and abs(sum(value) - 1) < 1e-6):
            raise ValueError("three shares that add up to 1 are wanted")
        return value


class LoraSettings(Settings):
    """Low-rank adapters (peft) instead of full weights."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: float = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the adapters' input; off by default, so that log-probs of the same weights agree."""
    target_groups: tuple[str, ...] = ("language",)
    """Parts of the model whose linear layers get adapters."""


class ModelSettings(Settings):
    """Which model, and how it is loaded."""

    name: str = "tiny"
    """A base made here ("tiny"), a folder, a run (its last checkpoint), a hub id, or a .yaml that describes a model."""
    base_model: str = ""
    """The name of the model that a run folder was trained from; filled in by itself."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1"."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward passes; weights are kept in fp32. auto: bf16 on a GPU, fp32 on a CPU."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model. Off unless you trust its author."""
    gradient_checkpointing: bool = False
    """Trade time for memory: recompute activations in the backward pass."""
    min_pixels: int | None = None
    """Smallest image area after resizing, for processors that have a pixel budget."""
    max_pixels: int | None = None
    """Largest image area after resizing."""
    fps: float = Field(default=2.0, gt=0)
    """Frames per second that are taken from a video."""
    min_frames: int = Field(default=4, ge=1)
    """Fewest frames of a video, where it has as many."""
    max_frames: int = Field(default=768, ge=1)
    """Most frames of a video."""
    video_min_pixels: int | None = None
    """Smallest area of a video's frame after resizing (Qwen3-VL: of all its frames together)."""
    video_max_pixels: int | None = None
    """Largest area of a video's frame after resizing (Qwen3-VL: of all its frames together)."""
    video_total_pixels: int | None = None
    """Budget of a whole video, qwen-vl-utils' total_pixels: a frame of n has 2 / n of it (Qwen2-VL, Qwen2.5-VL)."""
    positions: Literal["installed", "original"] = "installed"
    """Where text after a video stands: as the installed transformers has it, or as the family published it."""
    system: str | None = None
    """System prompt for samples that bring none."""
    coordinates: Literal["auto", "pixels", "thousand"] = "auto"
    """Where the model writes coordinates: as its family was taught (README), pixels of the image, or 0 to 1000."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that do not train, e.g. [vision, projector]."""
    lora: LoraSettings | None = None
    """Set any of its fields to train adapters instead of full weights."""


class OptimSettings(Settings):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-6, ge=0.0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the moments."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.01
    """Decoupled decay, on matrices only."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls from its peak to `floor` of it, by the end of the stage."""
    min_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    """Last rate, as a share of the peak."""
    warmup: float = Field(default=0.0, ge=0.0)
    """Steps of linear warm-up; below 1, a share of the stage."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Largest gradient norm; 0 does not clip."""
    lr_multipliers: dict[str, float] = {}
    """Factors on the rate by part of the model, e.g. {vision: 0.1}."""


class StageSettings(Settings):
    """Changes for one stage of the task, by the stage's name."""

    optim: dict[str, Any] = {}
    """Fields of `optim` for this stage alone."""
    fraction: float | None = None
    """Share of the run's steps, instead of the task's."""


class ComputeSettings(Settings):
    """How much is computed at once; changes speed and memory, never the result."""

    max_tokens_per_microbatch: int = Field(default=16384, ge=1)
    """Most tokens (padding included) of one forward and backward."""
    max_replies_per_microbatch: int = Field(default=0, ge=0)
    """Most replies (of a model that writes none: samples) of one forward and backward; 0: no limit but tokens."""
    rollout_batch_size: int = Field(default=192, ge=1)
    """Most replies that are sampled side by side."""
    logits_per_chunk: int = Field(default=1 << 25, ge=1)
    """Logits (reply tokens x vocabulary) that are worked on at one time; two to three fp32 tensors of them exist."""
    reuse: Literal["auto", "off"] = "auto"
    """Pay for each image, prompt and log-prob once, with the same results; off: the plain path, row by row."""
    processed_cache_bytes: int = Field(default=2**30, ge=0)
    """Most bytes of processed images in memory; an image that has left is processed again when it is needed."""
    feature_cache_bytes: int = Field(default=2**30, ge=0)
    """Most bytes of features of images in memory (on the host); they are kept as long as what makes them is frozen."""
    feature_cache_dir: str | None = None
    """Also keep the features of a frozen vision tower here, over runs; made by other weights they are other files."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 leaves torch's choice."""


class CheckpointSettings(Settings):
    """When weights and the trainer's state are written."""

    every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0: only at the end."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept."""


class EvalTaskSettings(Settings):
    """Another task, to be evaluated."""

    task: dict[str, Any]
    """`task: NAME`, or its name and its fields."""
    data: DataSettings = DataSettings()
    """Its data; only the test split is read."""
    rewards: dict[str, str] = {}
    """More rewards for what is scored, as at the top."""
    benches: tuple[str, ...] = ()
    """Only these of its benches; empty: all."""


class EvalSettings(Settings):
    """When the task's benches run."""

    before: bool = True
    """Evaluate the test split before the first step."""
    after: bool = True
    """Evaluate the test split after the last step."""
    every: int = Field(default=0, ge=0)
    """Steps between evaluations of the val split; 0: never."""
    max_samples: int = Field(default=0, ge=0)
    """Most samples of each bench; 0: all."""
    tasks: dict[str, EvalTaskSettings] = {}
    """Tasks, by names of your own, whose test splits are evaluated in place of the task's: {kept: {task: NAME}}."""


class LogSettings(Settings):
    """Where the numbers go, besides the run folder."""

    samples_every: int = Field(default=1, ge=0)
    """Steps between files of replies in samples/; 0: none."""
    probe_every: int = Field(default=50, ge=0)
    """Steps between probes of whether the media are used (probe/blank, probe/swap, probe/noise); 0: none."""
    tensorboard: bool = True
    """Write events for TensorBoard into the run folder."""
    wandb: str = ""
    """Project of Weights & Biases; empty: off."""
    trackio: str = ""
    """Project of Trackio; empty: off."""
    progress: bool = True
    """Show the progress line."""
