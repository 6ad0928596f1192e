"""Which images are for training, and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from dstbench.errors import DataError
from dstbench_images.decoding import SUFFIXES
from dstbench_images.entries import Files, Listing, is_image
from dstbench_images.photographs import Source, Splits

TRAINING = ("train", "training")
VALIDATION = ("validation", "val", "valid", "dev")
TEST = ("test", "testing")
"""Names of folders, in capitals or not; those for testing are held out where there is none for
validation."""

HELD_OUT = 0.1
"""The part of the images that is for validation, where no folder and no setting says which."""


def split(
    listing: Listing,
    where: str,
    train: int | None,
    validation: int | None,
    report: Callable[[str], None],
) -> Splits:
    """The splits that folders are, else parts of all images, drawn with seed 0; of each, as many
    images as asked for, or all. Reports in one line what was taken as what.

    Raises :class:`~dstbench.errors.DataError`, which names ``where``, for too few of them.
    """
    files = _below_common_folder(listing.files)
    if not files:
        raise DataError(f"{where}: no image is here ({', '.join(sorted(SUFFIXES))})")
    training, held_out = _splits_in(files)
    left_out = []
    if training and held_out:
        splits = Splits(
            _drawn(_sources(files, training), train, f"{where}: {', '.join(training)}"),
            _drawn(_sources(files, held_out), validation, f"{where}: {', '.join(held_out)}"),
        )
        said = (
            f"{_counted(files, training)} for training, {_counted(files, held_out)} for validation"
        )
        left_out = [
            _counted(files, [folder])
            for folder in sorted(_folders(files).difference(training, held_out))
        ]
        if beside := sum(len(path.parts) == 1 and is_image(path) for path in files):
            left_out.append(f"{beside:,} beside these folders")
    else:
        splits = _drawn_apart(_sources(files), where, train, validation)
        said = (
            f"{len(splits.train):,} for training and {len(splits.validation):,} for validation, "
            f"drawn from all {len(files):,}, as there are no folders train and val"
        )
    left_out += [f"{count:,} {kind}" for kind, count in sorted(listing.others.items())]
    report(f"{where}: {said}; left out: {', '.join(left_out) or 'nothing'}")
    return splits


def _folders(files: Files) -> set[str]:
    """The folders at the top, those that cannot be looked into among them."""
    return {path.parts[0] for path in files if len(path.parts) > 1 or not is_image(path)}


def _named(folders: Collection[str], names: Collection[str]) -> list[str]:
    return sorted(folder for folder in folders if folder.casefold() in names)


def _counted(files: Files, folders: Sequence[str]) -> str:
    return " and ".join(f"{folder} ({len(_sources(files, [folder])):,})" for folder in folders)


def _sources(files: Files, folders: Sequence[str] = (".",)) -> list[Source]:
    """The files below these folders, in the order of their names."""
    return [
        Source(str(path), files[path], label=str(path.relative_to(folder).parent).strip("."))
        for folder in folders
        for path in sorted(files)
        if path.is_relative_to(folder)
    ]


def _drawn_apart(
    sources: Sequence[Source], where: str, train: int | None, validation: int | None
) -> Splits:
    order = np.random.default_rng(0).permutation(len(sources))
    count = validation or round(HELD_OUT * len(sources))
    return Splits(
        _drawn([sources[i] for i in order[count:]], train, f"{where}, less {count} for validation"),
        _drawn([sources[i] for i in order[:count]], validation, where),
    )


def _drawn(sources: Sequence[Source], count: int | None, where: str) -> Sequence[Source]:
    if count is None:
        return sources
    if count > len(sources):
        raise DataError(f"{where}: {len(sources)} images are here, of {count} asked for")
    chosen = np.random.default_rng(0).permutation(len(sources))[:count]
    return [sources[i] for i in sorted(chosen)]


def _below_common_folder(files: Files) -> Files:
    """Without the folder that all images are in, such as archives tend to have; without several of
    them where there are folders of known splits below."""
    levels = [files]
    while (below := _without_top(levels[-1])) is not levels[-1]:
        levels.append(below)
    with_splits = (level for level in levels if all(_splits_in(level)))
    return next(with_splits, levels[min(1, len(levels) - 1)])


def _without_top(files: Files) -> Files:
    tops = {path.parts[0] for path in files}
    if len(tops) != 1 or any(len(path.parts) == 1 for path in files):
        return files
    return {path.relative_to(*tops): read for path, read in files.items()}


def _splits_in(files: Files) -> tuple[list[str], list[str]]:
    """The folders for training, and those that are held out."""
    folders = _folders(files)
    held_out = _named(folders, VALIDATION) or _named(folders, TEST)
    return _named(folders, TRAINING), held_out
