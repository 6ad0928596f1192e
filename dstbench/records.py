"""What a finished (or failed, or skipped) cell leaves behind: ``record.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dstbench.cell import Cell, flatten
from dstbench.quality import Floor, Interval, Nearest, Part, Protocol, Quantity, Scores
from dstbench.settings import unless

__all__ = [
    "Budget",
    "Counts",
    "Environment",
    "Floor",
    "Interval",
    "Measurement",
    "Nearest",
    "Protocol",
    "Quantity",
    "Ratio",
    "Record",
    "Scores",
    "Sizes",
    "Times",
    "UpdateCost",
]

SCHEMA_VERSION: Literal[1] = 1
SCORING_LIBRARY = "torch-fidelity"

LONGEST_REASON = 1000
"""Characters of the last line of an error, of which the end is told."""

LONGEST_ERROR = 20_000
"""Characters of an error that is recorded; of a longer one, its beginning and its end."""


class Counts(Part):
    """Parameters and theoretical FLOPs (fvcore's; one multiply-add is one FLOP).

    ``dense_*`` is the same network without masks, ``dense_training_flops`` for the steps of the
    cell's settings. Of a ``small-dense`` cell that is the network before it was made narrower, of
    which ``parameters`` and ``sparsifiable`` are; what the narrower one has is active.
    """

    parameters: int
    active_parameters: int
    sparsifiable: int
    active_sparsifiable: int
    """Number of sparsifiable weights that are active at the end of the training."""
    mean_active_sparsifiable: float
    """The same, averaged over the steps of the training."""
    inference_flops: float
    """FLOPs of one denoiser call on one example, under masks."""
    dense_inference_flops: float
    sample_flops: float
    """FLOPs of all denoiser calls of one sample; decoder not included."""
    training_flops: float
    """FLOPs of the whole training run, summed step by step."""
    dense_training_flops: float

    @property
    def sparsity(self) -> float:
        """Fraction of the sparsifiable weights that are zero at the end of the training."""
        return 1 - self.active_sparsifiable / self.sparsifiable

    @property
    def mean_sparsity(self) -> float:
        """The same, averaged over the steps of the training."""
        return 1 - self.mean_active_sparsifiable / self.sparsifiable

    @property
    def whole_model_sparsity(self) -> float:
        """Fraction of all the denoiser's parameters that are masked."""
        return 1 - self.active_parameters / self.parameters


class Times(Part):
    """Seconds of wall clock that the cell's run took: those of cells that ran apart make no ratio
    (see :class:`Measurement`)."""

    training_step: float
    """Seconds per optimizer step: the median over the steps of this run."""
    training: float
    """Seconds of the whole training loop, earlier interrupted runs included."""
    sample: float
    """Seconds per sample, decoding included."""


class Ratio(Part):
    """The time of something of a cell ÷ the same of its dense twin, in rounds of both."""

    ratio: float
    low: float
    high: float
    """Ends of the 95 % interval of the ratio."""
    clock: Literal["wall", "cpu"]
    """What the ratio is of: wall-clock time, or CPU time of all threads, where the two disagree or
    wall-clock time was too unsteady, as on a loaded machine."""
    wall_ratio: float
    cpu_ratio: float | None = None
    """``None`` on a GPU."""
    rounds: int


class UpdateCost(Part):
    """What topology updates add to the time of training."""

    dense_steps: float
    """Time that an update adds, in optimizer steps of the dense twin."""
    interval: float
    """Optimizer steps between two updates, averaged over the whole training."""

    @property
    def per_step(self) -> float:
        """What is added to each step, in dense steps."""
        return self.dense_steps / self.interval


class Measurement(Part):
    """The cell's times relative to those of its dense twin: the same network without masks,
    trained as a dense cell is, taking turns with it in one process."""

    step: Ratio
    """Optimizer steps without a topology update."""
    sample: Ratio
    """Calls that generate samples, decoding included."""
    samples: int
    """Number of samples of such a call."""
    update: UpdateCost | None = None
    """``None`` where the training had no update between ordinary steps."""
    kernels: str
    """How the cell's masked layers were computed."""
    threads: int
    load_before: float | None = None
    load_after: float | None = None
    """Load of the machine, averaged over the minute before and at the end, where it is known; the
    measurement itself is a load of its number of threads."""


class Budget(Part):
    """How long a cell was trained whose number of steps is not that of its settings."""

    steps: int
    """Number of its optimizer steps."""
    step: Ratio | None = None
    """Time of an optimizer step without a topology update ÷ that of the dense twin, in turns before
    the training; ``None`` where FLOPs are the budget, which are counted."""
    update: UpdateCost | None = None
    """What topology updates were expected to add; ``None`` where there are none, or they come so
    often that they could not be told from other steps."""


class Sizes(Part):
    """Exact sizes in bytes; ``dense_*`` is the same without masks."""

    state_bytes: int
    """Size of the state of training: weights, buffers, gradients, optimizer, averages, masks, and
    what sparse kernels index."""
    dense_state_bytes: int
    model_bytes: int
    """Size of the tensors of the network that is kept."""
    dense_model_bytes: int


class Environment(Part):
    """The machine and the software that ran the cell."""

    python: str
    packages: dict[str, str]
    platform: str
    cpu: str
    threads: int
    device: str
    gpu: str | None
    git_revision: str | None

    @property
    def machine(self) -> str:
        """What the times depend on, in words."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.gpu or self.cpu} ({self.device}, {threads})"


class Record(Part):
    """One cell's result."""

    schema_version: Literal[1] = SCHEMA_VERSION
    cell: Cell
    status: Literal["done", "failed", "diverged", "skipped"]
    error: str | None = None
    """What ended the cell, for ``failed`` (a traceback) and ``diverged`` (what was not finite);
    what it would need, for ``skipped``."""
    started: str
    """Begin of the cell's run, ISO 8601 in UTC."""
    environment: Environment
    scores: Scores | None = None
    untrained_scores: Scores | None = None
    """Scores of the denoiser before its first step, where the benchmark asks for them."""
    scores_by_noise: tuple[Scores, ...] = ()
    """Scores of the samples from each noise, whose mean is ``scores``; empty where there is one."""
    fid_interval: Interval | None = None
    """How far the FID of the first noise's samples is down to which samples they are."""
    floors: tuple[Floor, ...] = ()
    nearest: Nearest | None = None
    protocol: Protocol | None = None
    counts: Counts | None = None
    times: Times | None = None
    measurement: Measurement | None = None
    """Times relative to the dense twin; ``None`` for a dense cell, and where nothing was timed."""
    budget: Budget | None = Field(None, exclude_if=unless(None))
    """``None`` where the training had the steps of its settings."""
    narrowed: dict[str, Any] | None = Field(None, exclude_if=unless(None))
    """Settings of the narrower model that a ``small-dense`` cell has trained."""
    sizes: Sizes | None = None
    kernels: dict[str, Any] | None = None
    """Thresholds by which a sparse cell's kernels were chosen: the benchmark's ``kernels`` as
    ``mode``, and densities by kind and size of layer."""
    peak_memory: int | None = None
    """Largest number of bytes that were allocated on the GPU; ``None`` on a CPU (earlier versions
    of dstbench recorded the process's resident set there)."""
    validation_loss: float | None = None
    topology_updates: int = 0
    skipped_topology_updates: int = 0
    """Topology updates left out because a gradient was not finite."""
    metadata: dict[str, float | int | str] = Field(default_factory=dict)
    """What the model says about the parts that cells share."""

    @field_validator("error")
    @classmethod
    def _bounded(cls, error: str | None) -> str | None:
        if error is None or len(error) <= LONGEST_ERROR:
            return error
        half = LONGEST_ERROR // 2 - 100
        left_out = len(error) - 2 * half
        return f"{error[:half]}\n[… {left_out:,} characters …]\n{error[-half:]}"

    @field_validator("protocol")
    @classmethod
    def _in_detail(cls, protocol: Protocol | None, info: ValidationInfo) -> Protocol | None:
        """Complete the protocol of an earlier version, which left the rest to cell and machine."""
        cell, environment = info.data.get("cell"), info.data.get("environment")
        if protocol is None or protocol.kid_scale is not None or not (cell and environment):
            return protocol
        version = environment.packages.get(SCORING_LIBRARY)
        library = f"{SCORING_LIBRARY} {version}" if version else None
        return protocol.detailed(cell.evaluation_settings, library)

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps of a whole training of the cell; ``None``: its settings do not
        tell."""
        steps = self.budget.steps if self.budget else self.cell.training.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def numbers(self) -> dict[str, float]:
        """What the cell came to, as far as it is known: scores, counts, times and the validation
        loss, by keys such as ``"scores/fid"``."""
        parts = {"scores", "counts", "times", "validation_loss"}
        values = flatten(self.model_dump(mode="json", include=parts), "/")
        return {key: value for key, value in values.items() if isinstance(value, int | float)}

    @property
    def is_final(self) -> bool:
        """Whether the cell is not to be run again: it is done, or has diverged."""
        return self.status in ("done", "diverged")

    @property
    def reason(self) -> str:
        """Why the cell is not done, in a line: the last one of its error, which is where a
        traceback says what happened; empty where none is known."""
        lines = (self.error or "")[-LONGEST_REASON:].strip().splitlines()
        return lines[-1] if lines else ""
