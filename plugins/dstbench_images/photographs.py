"""Image files of any source as a dataset: decoded once, in parallel, and mapped from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from dstbench.contracts import Data, PluginSettings, Workspace, unless
from dstbench.errors import DataError
from dstbench.journal import Journal
from dstbench.parallel import parallel_map
from dstbench_images.decoding import Pixels, decode
from dstbench_images.mapped import Mapped

FORMAT = 2
"""Version of what is cached; a new one for every change of what it holds."""

PART = 32
"""Images that are kept at a time, while others are still being decoded."""

REPORT_EVERY = 5000
"""Images between two reports of progress."""

PARALLEL_FROM = 1000
"""Images for which starting processes, which takes seconds, pays."""

NAMED = 3
"""Bad files that a message names."""


class PhotographSettings(PluginSettings):
    """How image files become images of one size."""

    image_size: int = Field(256, ge=8, description="pixels on a side, after cropping to a square")
    max_bad_files: int = Field(
        10, ge=0, description="files that are left out, if need be, because they cannot be read"
    )
    background: str = Field(
        "white",
        exclude_if=unless("white"),
        description="colour behind what is transparent: a name of CSS's, or #rrggbb",
    )
    max_megapixels: float = Field(
        64,
        gt=0,
        exclude_if=unless(64),
        description="million pixels of an image file at most, before it is cropped; a larger one "
        "cannot be read",
    )
    max_megabytes: float = Field(
        256,
        gt=0,
        exclude_if=unless(256),
        description="size of an image file at most, unpacked; a larger one cannot be read",
    )

    @field_validator("background")
    @classmethod
    def _opaque(cls, colour: str) -> str:
        from PIL import ImageColor

        if len(ImageColor.getrgb(colour)) > 3:
            raise ValueError(f"'{colour}' is transparent itself; a colour such as 'white' is not")
        return colour

    @property
    def most_bytes(self) -> int:
        """Bytes that an image file may have."""
        return int(self.max_megabytes * 1_000_000)


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
    diffusion's authors do; :func:`~dstbench_images.decoding.decode` says what becomes of formats
    and modes. The pixels are cached under ``key``, which stands for the content of
    ``sources()``, and mapped from disk: a dataset need not fit into memory.

    Raises :class:`~dstbench.errors.DataError` for more files that cannot be read than the settings
    allow, and where a split has no image.
    """
    size = settings.image_size

    def make(folder: Path) -> None:
        try:
            decode_all(folder)
        except DataError:  # what could not be read is tried again
            for pixels in folder.glob("*.pixels*"):
                pixels.unlink()
            raise

    def decode_all(folder: Path) -> None:
        bad: list[str] = []
        labels: dict[str, list[str]] = {}
        content = hashlib.sha256(str(size).encode())

        def take(pixels: bytes, note: Mapping[str, list[str]]) -> None:
            content.update(pixels)
            labels[split].extend(note["labels"])
            bad.extend(note["bad"])
            _check_bad(name, bad, settings.max_bad_files)

        for split, files in sources()._asdict().items():
            labels[split], bad_before = [], len(bad)
            with Journal(folder / f"{split}.pixels", take) as journal:
                rest = files[len(labels[split]) + len(bad) - bad_before :]
                for part in _parts(rest, settings):
                    before = len(labels[split])
                    journal.add(*part)
                    if before // REPORT_EVERY < (done := len(labels[split])) // REPORT_EVERY:
                        told = f"{done:,} of {len(files):,} images for {split}"
                        workspace.report(f"{name}: {told} decoded")
            if not labels[split]:
                why = f": {_listed(bad)} cannot be read" if bad else ""
                raise DataError(f"{name}: there is no image for {split}{why}")
            content.update(split.encode())
        if bad:
            workspace.report(f"{name}: left out {_listed(bad)}")
        facts = {"labels": labels, "bad": bad, "fingerprint": content.hexdigest()}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    form = settings.model_dump(
        include={"image_size", "background", "max_megapixels", "max_megabytes"}
    )
    folder = workspace.cache.folder(name, {"format": FORMAT, **form, **key}, make, resumable=True)
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


def _parts(
    files: Sequence[Source], settings: PhotographSettings
) -> Iterator[tuple[bytes, dict[str, list[str]]]]:
    """The pixels of some files at a time, with their labels, and which are bad and why."""
    decoded = zip(files, _decoded(files, settings), strict=True)
    while part := list(islice(decoded, PART)):
        good = [(file.label, image) for file, image in part if not isinstance(image, str)]
        bad = [f"{file.name}: {image}" for file, image in part if isinstance(image, str)]
        pixels = b"".join(image.tobytes() for _, image in good)
        yield pixels, {"labels": [label for label, _ in good], "bad": bad}


def _decoded(files: Sequence[Source], settings: PhotographSettings) -> Iterator[Pixels | str]:
    """One per file: the image, or why there is none."""
    attempt = partial(
        _attempt,
        size=settings.image_size,
        background=settings.background,
        most_pixels=settings.max_megapixels * 1e6,
    )
    return parallel_map(attempt, map(_content, files), in_processes=len(files) >= PARALLEL_FROM)


def _content(file: Source) -> bytes | str:
    """What is in the file, or why it cannot be read."""
    try:
        return file.read()
    except Exception as error:  # of any kind, where an archive is damaged
        return _reason(error)


def _attempt(content: bytes | str, **form: Any) -> Pixels | str:
    """uint8 (3, size, size), or why there is no image."""
    if isinstance(content, str):
        return content
    try:
        return decode(content, **form)
    except Exception as error:  # of any kind, where a decoder meets nonsense
        return _reason(error)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or repr(error)


def _check_bad(name: str, bad: Sequence[str], allowed: int) -> None:
    if len(bad) > allowed:
        raise DataError(
            f"{name}: {_listed(bad)} cannot be read; the setting 'max_bad_files' of the dataset "
            f"'{name}' allows {allowed}"
        )


def _listed(bad: Sequence[str]) -> str:
    more = ", …" if len(bad) > NAMED else ""
    return f"{len(bad)} image file(s) ({'; '.join(bad[:NAMED])}{more})"
