"""The base of all settings, and those of a benchmark: training, evaluation and execution."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class PluginSettings(BaseModel):
    """Base of every plugin's ``Settings``: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainingSettings(PluginSettings):
    """How every cell is trained, with AdamW; the defaults are the paper's where it gives them."""

    steps: int = Field(100_000, ge=1, le=10**9, description="optimizer steps")
    batch_size: int = Field(32, ge=1, le=10**6, description="examples per optimizer step")
    micro_batches: int = Field(
        1,
        ge=1,
        le=10**6,
        description="parts a batch is split into, whose gradients are accumulated",
    )
    learning_rate: float = Field(1e-4, gt=0, description="constant learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay of AdamW")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="moment decay rates of AdamW")
    gradient_clip: float | None = Field(
        None, gt=0, description="largest norm of the (masked) gradient; none: not clipped"
    )
    ema_decay: float = Field(
        0.9999, ge=0, lt=1, description="decay of the averaged weights that are sampled from"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: forward and loss under autocast"
    )
    channels_last: bool = Field(False, description="memory format of the denoiser's weights")
    kernels: Literal["auto", "masked", "sparse"] = Field(
        "auto",
        description="how masked layers are computed on a CPU: by dense kernels over masked weights "
        "(masked), by kernels over active weights (sparse), or per layer by whichever is expected "
        "to be faster (auto; see `dstbench machine`)",
    )
    log_every: int = Field(
        50, ge=1, le=10**9, description="optimizer steps between two rows of history.csv"
    )
    checkpoint_every: int = Field(
        1000, ge=1, le=10**9, description="optimizer steps between checkpoints"
    )
    checkpoint_minutes: float = Field(
        10,
        gt=0,
        le=10**6,
        description="minutes between checkpoints at most, however many steps they take",
    )


class EvaluationSettings(PluginSettings):
    """How every cell is sampled from and scored."""

    extractor: str = Field("inception", description="feature extractor, by its plugin's name")
    samples: int = Field(10_000, ge=2, le=10**8, description="generated images")
    batch_size: int = Field(64, ge=1, le=10**6, description="images sampled and scored at a time")
    reference: Literal["train", "validation"] = Field(
        "train", description="split whose real images the samples are compared with"
    )
    kid_subsets: int = Field(100, ge=1, le=10**5, description="subsets that KID averages over")
    kid_subset_size: int = Field(
        1000,
        ge=2,
        le=10**6,
        description="images per subset; at most as many as there are on either side",
    )
    neighbours: int = Field(
        3, ge=1, le=10**6, description="k of the k-NN manifolds of precision and recall"
    )
    untrained: bool = Field(
        False, description="also score each dense cell's samples before its first step"
    )


class ExecutionSettings(PluginSettings):
    """The place where cells are run, and for how long at most; no score depends on it."""

    executor: str | None = Field(None, description="executor, by its plugin's name; none: local")
    minutes_per_cell: float | None = Field(
        None,
        gt=0,
        le=10**6,
        description="minutes after which a cell is stopped and fails; none: never",
    )
    measure_seconds: float = Field(
        10,
        ge=0,
        le=10**6,
        description="seconds that each sparse cell is timed against its dense twin at most, and no "
        "longer than it was trained; 0: not timed",
    )
