"""The base of all settings, and those of a benchmark: training, evaluation, execution, report,
tracking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


def unless(default: Any) -> Callable[[Any], bool]:
    """What ``Field(exclude_if=unless(default))`` takes, so that a setting is written down where it
    is not its default: one that is added later leaves the ids of cells as they were."""
    return lambda value: bool(value == default)


class PluginSettings(BaseModel):
    """Base of every plugin's ``Settings``: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


Moment = Annotated[float, Field(ge=0, lt=1)]

BudgetKind = Literal["steps", "flops", "time"]
"""What trainings are to have in common."""

MOST_STEPS = 10**9


class TrainingSettings(PluginSettings):
    """How every cell is trained; the defaults are the paper's where it gives them."""

    steps: int = Field(100_000, ge=1, le=MOST_STEPS, description="optimizer steps")
    budget: BudgetKind = Field(
        "steps",
        exclude_if=unless("steps"),
        description="what every training gets of: so many steps (steps), or as many as cost what "
        "so many steps of the dense network do, in theoretical FLOPs (flops) or in time, as "
        "measured before each cell's training (time)",
    )
    batch_size: int = Field(32, ge=1, le=10**6, description="examples per optimizer step")
    micro_batches: int = Field(
        1,
        ge=1,
        le=10**6,
        description="parts a batch is split into, whose gradients are accumulated",
    )
    optimizer: Literal["adamw", "adam", "radam", "sgd"] = Field(
        "adamw", exclude_if=unless("adamw"), description="torch's optimizer of that name"
    )
    learning_rate: float = Field(1e-4, gt=0, description="learning rate, before its schedule")
    learning_rate_schedule: Literal["constant", "cosine", "step"] = Field(
        "constant",
        exclude_if=unless("constant"),
        description="factor of the learning rate after the warm-up: 1 (constant), half a cosine "
        "from 1 to 0 at the last step (cosine), or multiplied by decay_factor every decay_every "
        "steps (step)",
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        exclude_if=unless(0),
        description="first steps, over which the learning rate rises linearly to its full value",
    )
    decay_every: int | None = Field(
        None,
        ge=1,
        exclude_if=unless(None),
        description="steps between two decays of the schedule 'step', which needs it",
    )
    decay_factor: float = Field(
        0.1, gt=0, lt=1, exclude_if=unless(0.1), description="factor of each of these decays"
    )
    weight_decay: float = Field(
        1e-2,
        ge=0,
        description="decay of the weights: decoupled from the gradient (adamw), or added to it "
        "(adam, radam, sgd)",
    )
    betas: tuple[Moment, Moment] = Field(
        (0.9, 0.999), description="decay rates of the moments of adamw, adam and radam"
    )
    momentum: float = Field(0.9, ge=0, lt=1, exclude_if=unless(0.9), description="momentum of sgd")
    gradient_clip: float | None = Field(
        None, gt=0, description="largest norm of the (masked) gradient; none: not clipped"
    )
    ema_decay: float = Field(
        0.9999, ge=0, lt=1, description="decay of the averaged weights that are sampled from"
    )
    ema_warmup: bool = Field(
        False,
        exclude_if=unless(False),
        description="whether the n-th average decays by min(ema_decay, (1 + n) / (10 + n)), so "
        "that the first weights are soon forgotten",
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

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.warmup_steps and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}: it must be less than steps, {self.steps}"
            )
        by_step = self.learning_rate_schedule == "step"
        if by_step and self.decay_every is None:
            raise ValueError(
                "learning_rate_schedule is 'step': decay_every must say how many steps there are "
                "between two decays"
            )
        if not by_step:
            _refuse_unused(self, "decay_every", "decay_factor", by="learning_rate_schedule")
        return self

    @model_validator(mode="after")
    def _optimizer_fits(self) -> Self:
        unused = ["betas"] if self.optimizer == "sgd" else ["momentum"]
        _refuse_unused(self, *unused, by="optimizer")
        return self


def _refuse_unused(settings: BaseModel, *names: str, by: str) -> None:
    """Raise :class:`ValueError` for settings that are not at their default, though the setting
    ``by`` makes no use of them."""
    for name in names:
        value, default = getattr(settings, name), type(settings).model_fields[name].default
        if value != default:
            raise ValueError(
                f"{name} is {value}, but {by} '{getattr(settings, by)}' does not use it: leave it "
                f"out, or choose another {by}"
            )


METRICS = ("fid", "kid", "inception-score", "precision-recall")
"""What samples are scored by where a benchmark says nothing else."""


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
    sampling_seeds: (
        Annotated[int, Field(ge=1, le=10**4)] | tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]
    ) = Field(
        1,
        exclude_if=unless(1),
        description="noises that each cell is sampled from, so many or these: scores are means "
        "over them; 0 is the one that every cell has",
    )
    metrics: tuple[str, ...] = Field(
        METRICS,
        min_length=1,
        exclude_if=unless(METRICS),
        description="scores to compute, by their plugins' names",
    )
    also: tuple[dict[str, Any], ...] = Field(
        (),
        exclude_if=unless(()),
        description="other ways to sample from the same weights: each [[evaluation.also]] has "
        "settings of the model's sampling, such as eta = 1; their scores stand in tables of their "
        "own, and no cell is another for them",
    )
    resamples: int = Field(
        100,
        ge=0,
        le=10**6,
        exclude_if=unless(100),
        description="bootstrap resamples of the samples, for FID's 95% interval, each of which "
        "takes as long as an FID; 0: no interval",
    )

    inception_score_splits: ClassVar[int] = 10
    """Parts of the samples that Inception Score is averaged over, or one per sample if fewer."""

    @property
    def noises(self) -> tuple[int, ...]:
        """The seeds of the noises that a cell is sampled from."""
        seeds = self.sampling_seeds
        return tuple(range(seeds)) if isinstance(seeds, int) else seeds

    @field_validator("sampling_seeds", "metrics")
    @classmethod
    def _are_listed_once(cls, value: Any) -> Any:
        if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
            raise ValueError("should name at least one, and each once")
        return value


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
        description="seconds that each cell is timed against its dense twin at most, and no "
        "longer than it was trained; 0: not timed",
    )


class ReportSettings(PluginSettings):
    """How results are compared in the leaderboard; no score depends on it."""

    margin: float = Field(
        0.05,
        ge=0,
        description="difference from dense that would not matter, as a fraction of dense's mean "
        "score: what 'as good as dense' and 'not worse than dense' are tested by",
    )


class TrackingSettings(PluginSettings):
    """Programs that are told of a run while it goes on; no score depends on them.

    The settings of each stand in a table of its name, such as [tracking.tensorboard].
    """

    trackers: tuple[str, ...] = Field(
        (), description='trackers, by their plugins\' names, such as ["tensorboard"]'
    )

    @field_validator("trackers")
    @classmethod
    def _are_listed_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("should name each once")
        return value


class TargetSettings(PluginSettings):
    """A published score, which stands under the leaderboard's tables of its task.

    No cell and no test depends on it. A file may have as many as it likes, each begins with
    [[targets]]; presets, which are other experiments, do not show them.
    """

    model: str = Field(description="a model of the file's tasks")
    dataset: str = Field(description="a dataset of that model's tasks")
    sparsifier: str = Field(description="a sparsifier of the grid, or dense")
    sparsity: float | None = Field(None, ge=0, lt=1, description="its sparsity; none: not said")
    score: str = Field("fid", description="a score that these tasks compute, such as fid or kid")
    mean: float = Field(description="the score as it was published")
    spread: float | None = Field(
        None, ge=0, description="what was published after ±; none: nothing was"
    )
    source: str = Field(description="where it was published")
    scored_by: str | None = Field(
        None, description="what computed it, such as torch-fidelity; none: not said"
    )
