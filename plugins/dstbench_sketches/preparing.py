"""Drawings of any source as a dataset: prepared once, in parallel, and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dstbench.cache import digest
from dstbench.contracts import Data, Dataset, Items, Pictures, PluginSettings, Workspace, unless
from dstbench.errors import DataError
from dstbench.journal import Journal
from dstbench.parallel import parallel_map
from dstbench_sketches.raster import rasterise, to_svg
from dstbench_sketches.sketch import Item, Resampling, Stroke, to_item

if TYPE_CHECKING:
    import torch

FORMAT = 2
"""Version of what is cached; a new one for every change of what it holds."""

PART = 250
"""Drawings that are kept at a time, while others are still being prepared."""

REPORT_EVERY = 1000
"""Drawings between two reports of progress: whole parts."""

PARALLEL_FROM = 2000
"""Drawings for which starting processes, which takes seconds, pays."""


class SketchSettings(PluginSettings):
    """How drawings become sequences, and sequences pictures."""

    spacing: float = Field(
        0.05, gt=0, description="largest distance between points of a stroke; the drawing's is 1"
    )
    scale: float = Field(10.0, gt=0, description="what all coordinates are multiplied by")
    max_points: int = Field(
        300, ge=10, description="points of a sketch at most; a larger one is spaced more widely"
    )
    resampling: Resampling = Field(
        "even",
        exclude_if=unless("even"),
        description="points of a stroke of length L: one more than it has parts of at most "
        "'spacing' (even), or max(2, ⌊L / spacing⌋) as in ChiroDiff's code (published), which "
        "leaves out strokes of one point, and drawings of max_points or more",
    )
    image_size: int = Field(64, ge=8, le=1024, description="pixels on a side of a scored picture")
    line_width: float = Field(
        0.03,
        gt=0,
        le=0.5,
        description="width of lines in a scored picture, as a fraction of its side",
    )
    max_megabytes: float = Field(
        1024,
        gt=0,
        exclude_if=unless(1024),
        description="size of all drawings as they are read, unpacked, at most",
    )

    @property
    def most_bytes(self) -> int:
        """Bytes that all drawings may have."""
        return int(self.max_megabytes * 1_000_000)

    @property
    def look(self) -> dict[str, Any]:
        """What pictures depend on, beside the sequences."""
        return self.model_dump(include={"image_size", "line_width"})


class SplitSettings(SketchSettings):
    """Those of a dataset that has no split of its own."""

    validation_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        exclude_if=unless(0.1),
        description="part of the drawings, at random with seed 0, that is for validation",
    )


class Typical(NamedTuple):
    """What is known of a dataset's drawings before they are there, as means over all of them."""

    strokes: float
    length: float
    """Length of all strokes together; the drawing's farthest point is at distance 1 from its
    first."""
    source: str

    def outline(self, settings: SketchSettings) -> Items:
        """Sketches of their mean number of points: each stroke has one more than it has parts,
        whose number is rounded up; as published, as many as parts, rounded down."""
        more = 1.5 if settings.resampling == "even" else -0.5
        points = round(self.length / settings.spacing + more * self.strokes)
        points = min(max(points, 2), settings.max_points)
        return Items((points, 3), f"sketches of {points} points, {self.source}")


S = TypeVar("S", bound=SketchSettings)


class SketchDataset(Dataset[S]):
    """A dataset of sketches, of which its settings tell how long they are and how they look."""

    kind = "sketches"
    typical: ClassVar[Typical]

    def outline(self) -> Items:
        return self.typical.outline(self.settings)

    def pictures(self) -> Pictures:
        return _pictures_of(self.settings)


class Drawing(NamedTuple):
    """A drawing yet to be read: where it comes from, for messages, and its content."""

    where: str
    content: Any


class Splits(NamedTuple):
    train: Sequence[Drawing]
    validation: Sequence[Drawing]


class Sketches(Sequence[Any]):
    """Sketches that lie in one tensor, one after another; what is sent to a process is that tensor
    (points of all, 3), and their lengths."""

    def __init__(self, points: torch.Tensor, lengths: torch.Tensor) -> None:
        import torch

        self._whole = points, lengths
        self._sketches = torch.tensor_split(points, lengths.cumsum(0)[:-1])

    def __len__(self) -> int:
        return len(self._sketches)

    def __getitem__(self, index: Any) -> Any:
        return self._sketches[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return Sketches, self._whole


def split(drawings: Sequence[Drawing], source: object, settings: SplitSettings) -> Splits:
    """The share of the drawings that the settings say, at random with seed 0, for validation.

    Raises :class:`~dstbench.errors.DataError`, which names the source, where there are not two.
    """
    from sklearn.model_selection import train_test_split

    if len(drawings) < 2:
        raise DataError(
            f"{source} has {len(drawings)} drawing(s); two are needed, to train and to validate on"
        )
    return Splits(*train_test_split(drawings, test_size=settings.validation_share, random_state=0))


def within(drawings: Iterable[Drawing], most: int) -> Iterator[Drawing]:
    """The drawings, whose content is bytes.

    Raises :class:`~dstbench.errors.DataError` as soon as those are more than ``most``.
    """
    size = 0
    for drawing in drawings:
        size += len(drawing.content)
        if size > most:
            raise DataError(
                f"up to {drawing.where}, drawings have more than the {most:,} bytes that the "
                "setting 'max_megabytes' allows"
            )
        yield drawing


def content_key(drawings: Sequence[Drawing]) -> dict[str, str]:
    """What stands for drawings whose content is bytes."""
    content = hashlib.sha256()
    for drawing in drawings:
        content.update(len(drawing.content).to_bytes(8, "little") + drawing.content)
    return {"sha256": content.hexdigest()}


def prepare(
    name: str,
    key: Mapping[str, Any],
    drawings: Callable[[], Splits],
    read: Callable[[Any], Sequence[Stroke]],
    settings: SketchSettings,
    workspace: Workspace,
) -> Data:
    """The dataset of these drawings.

    ``read`` makes strokes of a drawing's content, in other processes: it is a module's function. A
    drawing that cannot be read, or has nothing to see, is left out, and counted in a report. The
    sequences are cached under ``key``, which stands for the content of ``drawings()``.

    Raises :class:`~dstbench.errors.DataError` where a split has no drawing left.
    """
    form = settings.model_dump(include={"spacing", "scale", "max_points", "resampling"})
    share = settings.model_dump(include={"validation_share"})

    def make(folder: Path) -> None:
        from safetensors.numpy import save_file

        train, validation = drawings()
        attempt = partial(_attempt, read, form)
        unfinished = folder / "sketches.partial"
        items = _items(name, [*train, *validation], attempt, unfinished, workspace)
        arrays: dict[str, NDArray[Any]] = {}
        parts = {"train": items[: len(train)], "validation": items[len(train) :]}
        for part, attempts in parts.items():
            good = [item for item in attempts if item is not None]
            if not good:
                raise DataError(f"{name}: no drawing is left for {part}, of {len(attempts)}")
            arrays[f"{part}.points"] = np.concatenate(good)
            arrays[f"{part}.lengths"] = np.array([len(item) for item in good])
        save_file(arrays, folder / "sketches.safetensors")

    whole = {"format": FORMAT, **form, **share, **key}
    cached = workspace.cache.folder(name, whole, make, resumable=True)
    return _data(cached / "sketches.safetensors", settings)


def _items(
    name: str,
    drawings: Sequence[Drawing],
    attempt: Callable[[Drawing], Item | str],
    unfinished: Path,
    workspace: Workspace,
) -> list[Item | None]:
    """One per drawing; none of one that had to be left out. They are kept in the file
    ``unfinished`` as they are made, and those that are there are not made again."""
    items: list[Item | None] = []
    left_out: list[str] = []

    def take(content: bytes, note: Mapping[str, Any]) -> None:
        points = np.frombuffer(content, dtype=np.float32).reshape(-1, 3)
        each = np.split(points, np.cumsum(note["lengths"])[:-1])
        items.extend(item if len(item) else None for item in each)
        left_out.extend(note["left_out"])

    with Journal(unfinished, take) as journal:
        rest = drawings[len(items) :]
        attempts = parallel_map(attempt, rest, in_processes=len(rest) >= PARALLEL_FROM)
        while part := list(islice(attempts, PART)):
            good = [each for each in part if not isinstance(each, str)]
            lengths = [0 if isinstance(each, str) else len(each) for each in part]
            reasons = [each for each in part if isinstance(each, str)]
            content = b"".join(item.tobytes() for item in good)
            journal.add(content, {"lengths": lengths, "left_out": reasons})
            if len(items) % REPORT_EVERY == 0:
                workspace.report(f"{name}: {len(items):,} of {len(drawings):,} drawings prepared")
    if left_out:
        workspace.report(
            f"{name}: left out {len(left_out):,} of {len(drawings):,} drawings; "
            f"the first: {left_out[0]}"
        )
    return items


def _attempt(
    read: Callable[[Any], Sequence[Stroke]], form: Mapping[str, Any], drawing: Drawing
) -> Item | str:
    """The item, or why there is none."""
    try:
        return to_item(read(drawing.content), **form)
    except DataError as error:
        return f"{drawing.where}: {error}"


def _data(path: Path, settings: SketchSettings) -> Data:
    import torch
    from safetensors.numpy import load_file

    arrays = load_file(path)
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(arrays[name].tobytes())
    # Scores depend on the pictures, and on the sequences only through them.
    look, pictures = settings.look, _pictures_of(settings)

    def items(part: str) -> Sketches:
        return Sketches(
            torch.from_numpy(arrays[f"{part}.points"]), torch.from_numpy(arrays[f"{part}.lengths"])
        )

    return Data(
        train=items("train"),
        validation=items("validation"),
        fingerprint=digest({"sequences": content.hexdigest(), **look}),
        to_images=pictures.to_images,
        to_svg=pictures.to_svg,
    )


def _pictures_of(settings: SketchSettings) -> Pictures:
    """How sketches are drawn."""
    return Pictures(partial(_pictures, **settings.look), to_svg)


def _pictures(
    sketches: Sequence[Any] | torch.Tensor, image_size: int, line_width: float
) -> torch.Tensor:
    import torch

    return torch.from_numpy(rasterise(sketches, image_size, line_width))[:, None]
