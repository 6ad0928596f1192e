"""VMNIST: MNIST's digits as strokes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dstbench.contracts import READY, Availability, Data, Workspace
from dstbench.errors import DataError
from dstbench.files import LEADS_BACK, Found, open_regular, read_regular, walk
from dstbench_sketches.preparing import (
    Drawing,
    SketchDataset,
    SplitSettings,
    Typical,
    content_key,
    prepare,
    split,
    within,
)
from dstbench_sketches.sketch import Stroke, to_strokes
from dstbench_sketches.unpickling import unpickle

PUBLISHED = "https://github.com/dasayan05/chirodiff"

CACHED_MNIST = "mnist", {"format": 1}
"""Name and key of the download in the cache."""


class VMNIST(SketchDataset["VMNIST.Settings"]):
    """The first digits of VMNIST (Das et al., ICLR 2022), a tenth (at random, seed 0) held out.

    From the setting ``path``: either the folder that the authors of ChiroDiff publish, of a pickled
    dictionary per digit (only plain containers and arrays of numbers are read from it); or an
    ``.npz`` file with the arrays ``points`` (all points of all digits: x, y, and 1 where the pen is
    lifted after the point, else 0) and ``lengths`` (points of each digit). Without a path: traced
    from the training images of MNIST, which torchvision downloads; strokes that are not the
    published ones.
    """

    name = "vmnist"
    typical = Typical(strokes=1.3, length=2.04, source="as many as traced digits have")
    trial_settings: ClassVar[Mapping[str, Any]] = {"sketches": 100}

    class Settings(SplitSettings):
        sketches: int = Field(10_000, ge=2, description="digits, the first ones")
        path: Path | None = Field(
            None, description="published folder, or .npz file; none: MNIST is traced"
        )

    def availability(self, workspace: Workspace) -> Availability:
        path = self.settings.path
        if path is None:
            found = workspace.cache.has(*CACHED_MNIST)
            return READY if found else Availability("download", "12 MB: MNIST, to be traced")
        if path.is_dir() or (path.is_file() and path.suffix == ".npz"):
            return READY
        return Availability("missing", _refusal(path))

    def load(self, workspace: Workspace) -> Data:
        drawings, read = _drawings(self.settings, workspace)
        return prepare(
            self.name,
            {"read": read.__name__} | content_key(drawings),
            lambda: split(drawings, self.settings.path or "MNIST", self.settings),
            read,
            self.settings,
            workspace,
        )


def read_published(content: bytes) -> list[Stroke]:
    """The strokes of a pickled dictionary, as Quick, Draw! has them: ``drawing`` is a list of
    strokes, each a list of x, of y, and of times.

    Raises :class:`~dstbench.errors.DataError` for anything else.
    """
    try:
        drawing = unpickle(content)["drawing"]
        if sum(len(stroke[0]) for stroke in drawing) > len(content):
            raise ValueError("more points than bytes")
        return [np.column_stack([np.fromiter(c, float) for c in stroke[:2]]) for stroke in drawing]
    except Exception as error:  # a damaged pickle may fail in any way
        raise DataError(f"no drawing in it: {error!r}") from error


def read_points(content: bytes) -> list[Stroke]:
    """The strokes of float64 points (points, 3): x, y, and whether the pen is lifted.

    Raises :class:`~dstbench.errors.DataError` where one of them is not a finite number.
    """
    points = np.frombuffer(content).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise DataError("a point is not of finite numbers")
    return to_strokes(points)


def read_image(content: bytes) -> list[Stroke]:
    """The strokes traced from one of MNIST's uint8 images (28, 28).

    Halved first: the tracer is made for lines of one or two pixels.
    """
    from dstbench_sketches.tracing import trace

    image = np.frombuffer(content, dtype=np.uint8).reshape(14, 2, 14, 2)
    return trace(image.mean(axis=(1, 3)) / 255)


def _drawings(
    settings: VMNIST.Settings, workspace: Workspace
) -> tuple[Sequence[Drawing], Callable[[bytes], list[Stroke]]]:
    path = settings.path
    if path is None:
        return _mnist(settings.sketches, workspace), read_image
    if path.is_dir():
        return _published(path, settings), read_published
    if path.suffix == ".npz":
        return _arrays(path, settings), read_points
    raise DataError(_refusal(path))


def _refusal(path: Path) -> str:
    return (
        f"the setting 'path' of the dataset 'vmnist' names {path}, which is neither a folder nor "
        f"an .npz file; it should be the unpacked folder that {PUBLISHED} links to, or an .npz "
        "file with the arrays 'points' and 'lengths'"
    )


def _published(folder: Path, settings: VMNIST.Settings) -> list[Drawing]:
    # The first of each class, then the second of each, if there is a folder for each class.
    files = sorted(
        (found for found in walk(folder) if found.problem != LEADS_BACK),
        key=lambda found: (found.path.name, found.path),
    )
    first = (_read(file, settings.most_bytes) for file in files[: settings.sketches])
    return list(within(first, settings.most_bytes))


def _read(file: Found, most: int) -> Drawing:
    """The drawing of a file; one that cannot be read is none, and will be left out."""
    try:
        return Drawing(file.name, read_regular(file.path, most))
    except OSError as error:
        return Drawing(f"{file.name}: {file.problem or error.strerror}", b"")


def _arrays(path: Path, settings: VMNIST.Settings) -> list[Drawing]:
    most = settings.most_bytes
    try:
        with open_regular(path) as file:
            unpacked = sum(entry.file_size for entry in ZipFile(file).infolist())
            _check_size(unpacked, most)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                points, lengths = np.asarray(arrays["points"]), np.asarray(arrays["lengths"])
        _check_size(points.size * np.dtype(np.float64).itemsize, most)
        if points.dtype.kind not in "biuf":
            raise ValueError(f"'points' is of {points.dtype}")
        points = points.astype(np.float64)
    except Exception as error:  # a damaged archive may fail in any way
        raise DataError(
            f"{path} cannot be read ({error}); it should hold the arrays 'points' and 'lengths', "
            "of numbers"
        ) from error
    _check(path, points, lengths)
    ends = np.cumsum(lengths[: settings.sketches], dtype=np.int64)
    return [
        Drawing(f"digit {n} of {path.name}", digit.tobytes())
        for n, digit in enumerate(np.split(points, ends)[:-1])
    ]


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{size:,} bytes are more than the setting 'max_megabytes' allows")


def _check(path: Path, points: NDArray[np.float64], lengths: NDArray[Any]) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise DataError(f"{path}: 'points' is of shape {points.shape}, should be (points, 3)")
    whole = lengths.ndim == 1 and np.issubdtype(lengths.dtype, np.integer)
    possible = whole and not ((lengths < 0) | (lengths > len(points))).any()
    if not possible or lengths.sum() != len(points):
        raise DataError(
            f"{path}: 'lengths' should be whole numbers that sum to the {len(points)} of 'points'"
        )


def _mnist(count: int, workspace: Workspace) -> list[Drawing]:
    from torchvision.datasets import MNIST

    def make(folder: Path) -> None:
        workspace.report("downloading MNIST (12 MB)")
        try:
            MNIST(folder, download=True)
        except (OSError, RuntimeError, HTTPException) as error:
            raise DataError(
                f"MNIST could not be downloaded ({error}); VMNIST itself can be given in the "
                "setting 'path' of the dataset 'vmnist'"
            ) from error

    images = MNIST(workspace.cache.folder(*CACHED_MNIST, make)).data.numpy()
    return [
        Drawing(f"MNIST's image {n}", image.tobytes()) for n, image in enumerate(images[:count])
    ]
