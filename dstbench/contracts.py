"""What a plugin provides: the base classes of models, datasets, feature extractors, metrics,
executors and trackers.

Sparsifiers have theirs in :mod:`dstbench.sparsity`, because they serve outside the harness too.
A plugin's class carries its ``name`` and a pydantic ``Settings`` class; the harness checks a
benchmark's tables against it and hands the plugin a validated instance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
)

from typing_extensions import TypeVar

from dstbench.errors import PluginError
from dstbench.images import hash_images, stack_images
from dstbench.records import Quantity
from dstbench.settings import EvaluationSettings, PluginSettings, unless

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dstbench.cache import Cache
    from dstbench.cell import Cell
    from dstbench.records import Record

__all__ = [
    "READY",
    "Availability",
    "Data",
    "Dataset",
    "Ended",
    "Executor",
    "FeatureExtractor",
    "Features",
    "Items",
    "LayerChange",
    "Metric",
    "Model",
    "Outline",
    "Pictures",
    "Plugin",
    "PluginSettings",
    "RunCell",
    "SamplingState",
    "Split",
    "Tracker",
    "Workspace",
    "unless",
]

Split = Literal["train", "validation"]
"""The part of a dataset that is trained on, and the part that is held out."""

SamplingState: TypeAlias = "Mapping[str, Tensor | float | int | str]"
"""What a model's samples need beside its settings and its denoiser, by name."""

S = TypeVar("S", bound=PluginSettings, default=Any)
"""A plugin's settings. ``class Mine(Dataset)`` is enough; ``class Mine(Dataset["Mine.Settings"])``
tells a type checker what ``self.settings`` holds."""


@dataclass(frozen=True)
class Workspace:
    """A plugin's surroundings: the device to compute on, the cache, and a way to tell the user."""

    device: torch.device
    cache: Cache
    report: Callable[[str], None] = lambda message: None


@dataclass(frozen=True)
class Availability:
    """An answer, before anything is read, to whether a plugin's data or weights are there."""

    state: Literal["ready", "download", "missing"]
    """``download``: the plugin gets it by itself; ``missing``: a person has to."""
    detail: str = ""
    """``download``: size and source; ``missing``: where to get it, which layout is expected, and
    which setting or environment variable names it."""


READY = Availability("ready")
"""The availability of what is there already."""


class Plugin(ABC, Generic[S]):
    """The base of models, datasets, feature extractors, metrics, executors and trackers: a name,
    and settings."""

    name: ClassVar[str]
    """The name that benchmarks call it by."""
    Settings: ClassVar[type[PluginSettings]] = PluginSettings
    """The class that a benchmark's table for the plugin is checked against."""
    trial_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which a trial takes seconds: what ``dstbench check`` uses."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Optional packages that it cannot do without, by the name that they are imported under, and
    what pip installs them by: ``{"ray": "dstbench[ray]"}``. ``dstbench plugins`` says which of them
    are not there."""

    def __init__(self, settings: S) -> None:
        self.settings = settings


@dataclass(frozen=True)
class Data:
    """A loaded dataset.

    ``train`` and ``validation`` are sequences of items: uint8 tensors (C, H, W) for
    ``kind = "images"``; float32 tensors (points, 3) for ``kind = "sketches"``, of x, y and whether
    the pen is lifted after the point (0 or 1). ``to_images`` turns a sequence of items, real or
    generated, into uint8 images (N, C, H, W), the form in which they are scored and shown;
    ``to_svg`` makes an SVG document of one item, where items are drawings. ``fingerprint`` is a
    hash of the content, and of how pictures are made of it: the key of everything that is cached
    about it. ``labels`` has one per item of each split, where the dataset knows any (class, number
    of strokes, …). There may be no items for validation.
    """

    train: Sequence[Any]
    validation: Sequence[Any]
    fingerprint: str
    to_images: Callable[[Sequence[Any] | Tensor], Tensor]
    to_svg: Callable[[Any], str] | None = None
    labels: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    @classmethod
    def of_images(
        cls,
        train: Sequence[Tensor],
        validation: Sequence[Tensor],
        *,
        labels: Mapping[str, Sequence[str | int]] | None = None,
        fingerprint: str | None = None,
    ) -> Data:
        """The data of uint8 images (C, H, W), all of one shape, which are their own pictures.

        Without a ``fingerprint``, all images are read to hash them, about a second per gigabyte.
        """
        content = fingerprint or hash_images(train, validation)
        return cls(train, validation, content, stack_images, labels=labels or {})

    @classmethod
    def blank(cls, shape: Sequence[int], dtype: torch.dtype, pictures: Pictures) -> Data:
        """The data of a model that only samples: a single item, which is zero everywhere."""
        import torch

        item = torch.zeros((), dtype=dtype).expand(tuple(shape))  # takes no memory, whatever it is
        return cls([item], [], "blank", pictures.to_images, pictures.to_svg)

    def split(self, name: Split) -> Sequence[Any]:
        return self.train if name == "train" else self.validation

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The distinct labels of the training items, numbers before words, each in their order;
        empty where items have no labels."""
        labels = set(self.labels.get("train", ()))
        return tuple(sorted(labels, key=lambda label: (isinstance(label, str), label)))


@dataclass(frozen=True)
class Pictures:
    """How items of a dataset, real or generated, become pictures: as in :class:`Data`."""

    to_images: Callable[[Sequence[Any] | Tensor], Tensor] = stack_images
    to_svg: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Items:
    """The items of a dataset, as far as they are known before it is loaded."""

    shape: tuple[int, ...]
    """The shape of one item: (C, H, W) of an image, (points, 3) of a sketch."""
    assumption: str = ""
    """What was assumed of items that differ in shape, in words; empty where they do not."""
    classes: int | None = None
    """The number of distinct labels of the training items; ``None``: not known."""


class Dataset(Plugin[S]):
    """A dataset plugin."""

    kind: ClassVar[str]
    """What its items are (``"images"``, ``"sketches"``, …); a model says which kind it takes."""

    @abstractmethod
    def load(self, workspace: Workspace) -> Data:
        """Load the dataset. Raises :class:`~dstbench.errors.DataError` where it cannot."""

    def availability(self, workspace: Workspace) -> Availability:
        """What :meth:`load` will find; nothing is loaded to tell."""
        return READY

    def outline(self) -> Items | None:
        """What its settings tell of its items, for ``dstbench plan``; ``None``: nothing."""
        return None

    def pictures(self) -> Pictures | None:
        """How its items become pictures, from its settings alone: what :meth:`load` gives to
        :class:`Data`, for models that were exported and know no data. ``None``: not known.

        By default, images are their own pictures.
        """
        return Pictures() if self.kind == "images" else None


@dataclass(frozen=True)
class Outline:
    """A denoiser, as far as it is known without data: enough to build, count and time it."""

    denoiser: nn.Module
    """A freshly initialised denoiser, whose weights come from torch's global generator."""
    inputs: tuple[Any, ...]
    """Positional inputs of one call on one example: tensors, examples along the first dimension."""
    calls_per_sample: int
    """Denoiser calls needed for one sample."""


class Model(Plugin[S]):
    """A diffusion-model plugin: everything about a model but its sparsity and its training loop.

    Required are :meth:`batch`, :meth:`loss`, :meth:`sample` and :meth:`outline`, from which
    :meth:`build`, :meth:`example` and :attr:`calls_per_sample` follow; a model that cannot be
    outlined without data defines these three instead.

    One instance serves one cell. ``__init__`` may be slow: it prepares what all cells of the same
    dataset and settings share (a first stage, encoded latents) through ``workspace.cache``.
    """

    accepts: ClassVar[str]
    """The ``kind`` of dataset it trains on."""
    sampling_settings: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that :meth:`sample` alone depends on: trained weights can be sampled
    from with other values of these."""

    def __init__(self, settings: S, data: Data, workspace: Workspace) -> None:
        super().__init__(settings)
        self.data = data
        self.workspace = workspace

    @classmethod
    def outline(cls, settings: S, items: Items) -> Outline | None:
        """The denoiser for such items; ``None``: not known without data.

        Everything is made on torch's default device, which for ``dstbench plan`` is the meta
        device: modules and tensors take no memory there, and have no values.

        Raises :class:`~dstbench.errors.ConfigError` where the items do not fit the settings.
        """
        return None

    @property
    def items(self) -> Items:
        """The items as :meth:`outline` is told of them: the shape of the first training example,
        and the number of classes. A model that :meth:`for_sampling` has made finds no labels in its
        data: if its outline needs their number, it overrides this."""
        return Items(tuple(self.data.train[0].shape), classes=len(self.data.classes))

    def build(self) -> nn.Module:
        """A freshly initialised denoiser on the workspace's device: by default the outline's.

        Initial weights come from torch's global generator, which the harness has seeded.
        """
        return self._outline().denoiser.to(self.workspace.device)

    def example(self) -> tuple[Any, ...]:
        """Positional inputs of one denoiser call on one example, on the workspace's device, for
        counting FLOPs: by default the outline's, for an item such as the first training example."""
        return self._inputs_and_calls[0]

    @property
    def calls_per_sample(self) -> int:
        """Denoiser calls needed for one sample: by default the outline's."""
        return self._inputs_and_calls[1]

    def _outline(self) -> Outline:
        outline = self.outline(self.settings, self.items)
        if outline is None:
            raise PluginError(
                f"model '{self.name}' has no outline for its settings, and does not define "
                "all of build, example and calls_per_sample"
            )
        return outline

    @cached_property
    def _inputs_and_calls(self) -> tuple[tuple[Any, ...], int]:
        """What an outline says beside its denoiser, which takes no random number from a cell."""
        import torch

        device = self.workspace.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
            outline = self._outline()
        return outline.inputs, outline.calls_per_sample

    @classmethod
    def narrower(cls, settings: S) -> Sequence[S]:
        """Settings of the same network in other widths, all of its layers narrower alike, from the
        narrowest to the one of ``settings``; empty, by default: there are none.

        Of these, ``small-dense`` trains the one whose outline has a number of parameters nearest to
        that of a sparse network's active ones. Numbers of parameters do not fall along them.
        """
        return ()

    @classmethod
    def sparsifiable(cls, denoiser: nn.Module) -> Mapping[str, nn.Parameter]:
        """The weights that may be masked, by parameter name: by default the weights of every
        convolution, linear, recurrent and attention layer."""
        from dstbench.sparsity import sparsifiable_weights

        return sparsifiable_weights(denoiser)

    def batches(self, batch_size: int, rng: torch.Generator) -> Sequence[Tensor]:
        """The training examples of one epoch's steps: ``len(data.train) // batch_size`` tensors of
        ``batch_size`` indices (int64, on the CPU), which ``rng`` alone determines.

        By default a random permutation, cut up, less an incomplete batch. A model whose examples
        differ in size may put those of about the same size together.
        """
        import torch

        examples = len(self.data.train)
        order = torch.randperm(examples, generator=rng)
        whole_batches = order[: examples // batch_size * batch_size]
        return torch.split(whole_batches, batch_size)

    @abstractmethod
    def batch(self, split: Split, indices: Tensor) -> Any:
        """The training (or validation) examples at ``indices`` (int64, on the CPU), ready for
        :meth:`loss` on the workspace's device."""

    @abstractmethod
    def loss(self, denoiser: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        """The scalar training loss of a batch. All randomness is drawn from ``rng``, a CPU
        generator, so that it does not depend on the device."""

    @abstractmethod
    def sample(
        self, denoiser: nn.Module, count: int, batch_size: int, rng: torch.Generator
    ) -> Sequence[Any] | Tensor:
        """``count`` samples as items of the dataset, on the CPU: what ``data.to_images`` takes.

        The noise of all samples is drawn from ``rng`` (a CPU generator) before the first batch, so
        that neither the batch size nor the device changes which noise a sample starts from.

        A model that has :attr:`labels` also takes ``labels``: one of them for each sample, in place
        of labels that it draws.

        Raises :class:`~dstbench.errors.DivergedError` where the denoiser's output is not finite.
        """

    @property
    def labels(self) -> Sequence[str | int]:
        """The labels that samples can be asked for; by default none."""
        return ()

    def reconstructions(self, split: Split, indices: Tensor) -> Sequence[Any] | Tensor | None:
        """The examples at ``indices`` (int64, on the CPU) as the first stage alone makes them, as
        items of the dataset; ``None``, by default: there is no first stage.

        No sample that is decoded by the first stage can be expected to score better than these.
        """
        return None

    def metadata(self) -> dict[str, float | int | str]:
        """What is worth recording about the shared parts (scaling factor, reconstruction error)."""
        return {}

    def sampling_state(self) -> SamplingState:
        """All that :meth:`sample` takes from the data, or prepared from them, but the shape of the
        first training example: tensors, numbers and texts. By default nothing.

        It is kept beside the trained denoiser, and exported with it; :meth:`for_sampling` makes a
        model of it.
        """
        return {}

    @classmethod
    def for_sampling(
        cls, settings: S, data: Data, state: SamplingState, workspace: Workspace
    ) -> Self:
        """A model that builds the denoiser and samples as the one whose :meth:`sampling_state` this
        is, and need not train.

        ``data`` has a single item, which is zero everywhere, of the shape of the first training
        example. By default the model is constructed with it: enough where no more than that shape
        is asked for. The state may come from anybody: what is wrong with it raises ``KeyError``,
        ``TypeError``, ``ValueError`` or ``RuntimeError``.
        """
        return cls(settings, data, workspace)

    def diffusers_pipeline(self, denoiser: nn.Module) -> tuple[Any, Mapping[str, Any]] | None:
        """The denoiser in a pipeline of diffusers', and the arguments with which a call of that
        samples as :meth:`sample` does; ``None``: there is none."""
        return None


@dataclass(frozen=True)
class Features:
    """What a feature extractor sees in N images: features (N, D) and class logits (N, K), which a
    network without classes does not have."""

    features: Tensor
    logits: Tensor | None = None


class FeatureExtractor(Plugin[S]):
    """A feature-extractor plugin: the network whose features FID compares."""

    library: ClassVar[str] = ""
    """The distribution that builds the network, whose version scores name; empty: its own code."""

    def __init__(self, settings: S, workspace: Workspace) -> None:
        super().__init__(settings)
        self.workspace = workspace

    @classmethod
    def availability(cls, settings: S, workspace: Workspace) -> Availability:
        """What an instance will find of its weights; nothing is loaded to tell."""
        return READY

    @property
    @abstractmethod
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weights in use: scores of different weights never mix."""

    @property
    @abstractmethod
    def resize(self) -> str:
        """What happens to an image before the network sees it, in words, e.g.
        ``"bilinear to 299×299"``."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images (N, C, H, W), C = 1 or 3, as CPU tensors."""


class Metric(Plugin[S]):
    """A metric plugin: one or more numbers that say how generated images compare with real ones.

    A benchmark names it in ``metrics`` of ``[evaluation]``. It has no settings of its own there;
    what that table says is in ``self.evaluation``.
    """

    quantities: ClassVar[tuple[Quantity, ...]]
    """The numbers that it gives."""
    needs_logits: ClassVar[bool] = False
    """Whether it is left out with a feature extractor that has none."""
    library: ClassVar[str] = ""
    """The distribution that computes it, whose version scores name; empty: its own code."""

    def __init__(self, settings: S, evaluation: EvaluationSettings) -> None:
        super().__init__(settings)
        self.evaluation = evaluation

    @abstractmethod
    def __call__(self, samples: Features, real: Features) -> Mapping[str, float]:
        """Its quantities, by name, of features (N, D) of samples and (M, D) of real images, as
        float32 on the CPU; also ``NAME_std``, where a spread is known.

        The same features have the same scores, whatever the global generators. Raises
        :class:`~dstbench.errors.ScoreError` where there are too few images.
        """


class RunCell(Protocol):
    """Runs one cell and leaves its record in the results folder.

    It may be pickled, and called in any process on any machine that sees the results folder. Of a
    cell that another process is running, or has run meanwhile, it leaves everything as it is.
    """

    @property
    def results(self) -> Path:
        """The benchmark's results folder."""

    @property
    def device(self) -> str:
        """A device of this machine: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. Where it was left to
        dstbench, another process chooses among what its machine has."""

    @property
    def minutes(self) -> float | None:
        """Time limit of a cell, in minutes. It ends the process in which the cell hangs, so that a
        cell with a limit needs another process than the harness's; the next call for this cell, in
        any process, records it as failed."""

    @property
    def threads(self) -> int | None:
        """CPU threads that it takes in another process; ``None``: left to the executor."""

    def __call__(self, cell: Cell) -> None: ...

    def into(self, results: Path) -> RunCell:
        """The same function, with the results in another folder."""

    def parameters(self, cell: Cell) -> int | None:
        """Number of parameters of the cell's denoiser; ``None`` where that is not known without
        data."""

    def report(self, message: str) -> None:
        """Tell whoever waits for the cells, in a line."""


@dataclass(frozen=True)
class Ended:
    """A cell whose turn is over."""

    cell: Cell
    error: str | None = None
    """Why ``run_cell`` never returned (its process died, …); ``None``: it did."""


class Executor(Plugin[S]):
    """An executor plugin: where cells are run, and how many at a time."""

    @abstractmethod
    def run(self, run_cell: RunCell, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Call ``run_cell(cell)`` for each of the cells, and tell of each when its call has ended.

        A cell that loses its process is run again, and goes on from its checkpoint, where the
        process was taken from it (a node died, the job was preempted); it has ended, with an
        error, where it is likely to have ended the process itself. An iterator that is closed
        early leaves no process behind.
        """


class LayerChange(NamedTuple):
    """A masked layer after a topology update."""

    name: str
    """The parameter name of its weight."""
    density: float
    """Fraction of its weights that are active, 0 to 1."""
    changed: int
    """How many connections the update replaced or added."""


class Tracker(Plugin[S]):
    """A tracker plugin: what tells another program of a run while it goes on.

    An instance is told of one run, in the process that deals out its cells, or of one cell, from
    its start to its end, in the process that runs it. All its calls come from one thread, which is
    not the main one; the cell waits for each, for a minute at most. What it raises costs the run
    nothing: it is reported, and this instance told of the end alone.

    A cell that goes on from its checkpoint is told of the steps since that checkpoint once more,
    with the same numbers. Every method may be left out.
    """

    def __init__(self, settings: S, benchmark: str, results: Path) -> None:
        """
        Args:
            benchmark: the benchmark's name.
            results: its results folder, which a machine that runs cells may not share.

        Raises :class:`~dstbench.errors.PluginError` where a package is missing.
        """
        super().__init__(settings)
        self.benchmark = benchmark
        self.results = results

    def run_started(self, cells: Sequence[Cell]) -> None:
        """These cells are to be run. What is raised here, or in ``__init__``, leaves the tracker
        out of the whole run."""

    def run_ended(self, records: Sequence[Record]) -> None:
        """The run is over, or was stopped; these are the records that it has made."""

    def cell_started(self, cell: Cell, folder: Path) -> None:
        """The cell is about to be trained, or to go on. What is written into ``folder``, the
        cell's own, stays with its results."""

    def progressed(self, step: int, loss: float, seconds_per_step: float) -> None:
        """Every ``log_every`` steps, as in ``history.csv``: means over the steps since the last
        call; ``step`` counts from 1."""

    def layers_changed(self, step: int, layers: Sequence[LayerChange]) -> None:
        """The masked layers at the start, and after topology updates, as in ``topology.csv``: of
        updates that are close together some are left out."""

    def cell_ended(self, record: Record | None, sheet: Path | None) -> None:
        """The cell ended, well or not, as its record says; ``None``: it was stopped, and is to go
        on another time. ``sheet`` is a picture (PNG) of its samples, if there are any."""
