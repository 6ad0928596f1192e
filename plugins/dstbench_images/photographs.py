"""Image files of any source as a dataset: decoded once, in parallel, and mapped from disk."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dstbench.contracts import Data, PluginSettings, Workspace
from dstbench.errors import DataError
from dstbench.parallel import parallel_map
from dstbench_images.mapped import Mapped

FORMAT = 1
"""Version of what is cached; a new one for every change of what it holds."""

REPORT_EVERY = 5000
"""Images between two reports of progress."""

PARALLEL_FROM = 1000
"""Images for which starting processes, which takes seconds, pays."""

NAMED = 3
"""Bad files that a message names."""


Pixels = NDArray[np.uint8]


class PhotographSettings(PluginSettings):
    """How image files become images of one size."""

    image_size: int = Field(256, ge=8, description="pixels on a side, after cropping to a square")
    max_bad_files: int = Field(
        10, ge=0, description="files that are left out, if need be, because they cannot be read"
    )


class Source(NamedTuple):
    """An image file yet to be read: its name, for messages, and how to get its content."""

    name: str
    read: Callable[[], bytes]
    label: str = ""


class Splits(NamedTuple):
    train: Sequence[Source]
    validation: Sequence[Source]


def prepare(
    name: str,
    key: Mapping[str, Any],
    sources: Callable[[], Splits],
    settings: PhotographSettings,
    workspace: Workspace,
) -> Data:
    """The dataset of these image files, in colour.

    Each is cropped to the square in its middle and resized (bicubic, antialiased), as latent
    diffusion's authors do. The pixels are cached under ``key``, which stands for the content of
    ``sources()``, and mapped from disk: a dataset need not fit into memory.

    Raises :class:`~dstbench.errors.DataError` for more files that cannot be read than the settings
    allow, and where a split has no image.
    """
    size = settings.image_size

    def make(folder: Path) -> None:
        bad: list[str] = []
        labels: dict[str, list[str]] = {}
        content = hashlib.sha256(str(size).encode())
        for split, files in sources()._asdict().items():
            labels[split] = []
            with (folder / f"{split}.pixels").open("wb") as pixels:
                for file, image in zip(files, _decoded(files, size), strict=True):
                    if isinstance(image, str):
                        bad.append(f"{file.name}: {image}")
                        _check_bad(name, bad, settings.max_bad_files)
                    else:
                        pixels.write(image.tobytes())
                        content.update(image.tobytes())
                        labels[split].append(file.label)
                        _report(name, split, len(labels[split]), len(files), workspace)
            if not labels[split]:
                raise DataError(f"{name}: there is no image for {split}")
            content.update(split.encode())
        if bad:
            workspace.report(f"{name}: left out {_listed(bad)}")
        facts = {"labels": labels, "bad": bad, "fingerprint": content.hexdigest()}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    folder = workspace.cache.folder(name, {"format": FORMAT, "image_size": size, **key}, make)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    _check_bad(name, facts["bad"], settings.max_bad_files)
    return _data(folder, facts, size)


def _data(folder: Path, facts: Mapping[str, Any], size: int) -> Data:
    def images(split: str) -> Mapped:
        return Mapped(str(folder / f"{split}.pixels"), (len(facts["labels"][split]), 3, size, size))

    return Data.of_images(
        train=images("train"),
        validation=images("validation"),
        labels=facts["labels"],
        fingerprint=facts["fingerprint"],
    )


def _decoded(files: Sequence[Source], size: int) -> Iterator[Pixels | str]:
    """One per file: the image, or why there is none."""
    return parallel_map(
        partial(_decode, size=size),
        map(_content, files),
        in_processes=len(files) >= PARALLEL_FROM,
    )


def _content(file: Source) -> bytes | str:
    """What is in the file, or why it cannot be read."""
    try:
        return file.read()
    except (OSError, BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        return str(error)


def _decode(content: bytes | str, size: int) -> Pixels | str:
    """uint8 (3, size, size)."""
    from PIL import Image, ImageOps

    if isinstance(content, str):
        return content
    try:
        with Image.open(BytesIO(content)) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # of any kind, where a decoder meets nonsense
        return str(error)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def _check_bad(name: str, bad: Sequence[str], allowed: int) -> None:
    if len(bad) > allowed:
        raise DataError(
            f"{name}: {_listed(bad)} cannot be read; the setting 'max_bad_files' of the dataset "
            f"'{name}' allows {allowed}"
        )


def _listed(bad: Sequence[str]) -> str:
    more = ", …" if len(bad) > NAMED else ""
    return f"{len(bad)} image file(s) ({'; '.join(bad[:NAMED])}{more})"


def _report(name: str, split: str, done: int, count: int, workspace: Workspace) -> None:
    if done % REPORT_EVERY == 0:
        workspace.report(f"{name}: {done:,} of {count:,} images for {split} decoded")
