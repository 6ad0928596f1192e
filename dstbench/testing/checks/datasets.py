"""What is promised of a dataset."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import SkipTest

import torch
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from torch import Tensor

from dstbench.contracts import Data, Dataset, Workspace
from dstbench.errors import DataError
from dstbench.testing.availability import check_availability, ready_workspace
from dstbench.testing.checking import Broken, Subject, empty_workspace, seeded
from dstbench.testing.checks import settings
from dstbench.testing.items import ITEM_PROBLEMS, check_pictures, item_problem
from dstbench.testing.trials.loaded import SPLITS, content_hash, first_unlike, summary
from dstbench.testing.trials.processes import require_importable, run_module

SPARE_BYTES = 4096
"""Bytes that pickling may add to the content of an item."""


@dataclass
class DatasetSubject(Subject):
    """A dataset, loaded once for all checks."""

    cls: type[Dataset]

    def dataset(self) -> Dataset:
        return self.cls(self.settings)

    @cached_property
    def data(self) -> Data:
        try:
            return self.dataset().load(self.workspace)
        except DataError as error:
            raise Broken(f"availability says that the data is there; but load: {error}") from None

    @cached_property
    def workspace(self) -> Workspace:
        """A workspace with a cache of its own, or with the user's where the data is only there;
        skips the check where the data is not."""
        return ready_workspace(self.dataset().availability, "data is")

    @property
    def anew(self) -> Workspace:
        """A workspace with an empty cache, where the data is available without the user's."""
        fresh = empty_workspace()
        ready = self.dataset().availability(fresh).state == "ready"
        return fresh if ready else self.workspace


def availability_is_told(subject: DatasetSubject) -> None:
    """availability says within seconds, and without loading anything, whether the data is there,
    and what to do where it is not."""
    cls = subject.cls
    cannot_load = type(cls.__name__, (cls,), {"load": _refuse, "__module__": cls.__module__})
    check_availability(lambda workspace: cannot_load(subject.settings).availability(workspace))


def items_are_of_their_kind(subject: DatasetSubject) -> None:
    """There are items to train with, and all are what their kind says: images uint8 (C, H, W) with
    C = 1 or 3 in 0…255; sketches float32 (points, 3), finite, the pen 0 or 1."""
    data = subject.data
    if not len(data.train):
        raise Broken("the training split is empty")
    for split in SPLITS:
        items = data.split(split)
        for index, item in enumerate(items):
            if problem := item_problem(subject.cls.kind, item):
                raise Broken(f"{split}[{index}] {problem}")
        few = min(2, len(items))
        if [content_hash(item) for item in items[:few]] != [
            content_hash(items[i]) for i in range(few)
        ]:
            raise Broken(f"{split}[:{few}] does not hold the first {few} items of {split}")
    if subject.cls.kind == "images" and max(int(item.max()) for item in data.train) <= 1:
        raise Broken("no pixel of any training image is above 1: images are 0…255, not 0…1")
    if subject.cls.kind not in ITEM_PROBLEMS:
        raise SkipTest(f"items of kind '{subject.cls.kind}' are not known to the suite")


def splits_are_disjoint(subject: DatasetSubject) -> None:
    """No item of validation is one to train with. Data of the real world repeats itself: items of
    the same content may be in both splits as often as chance has it, which is as often as items of
    train have a twin within train."""
    train, validation = (list(map(content_hash, subject.data.split(split))) for split in SPLITS)
    places = {content: index for index, content in enumerate(train)}
    shared = [index for index, content in enumerate(validation) if content in places]
    twins = sum(number for number in Counter(train).values() if number > 1)
    by_chance = twins / len(train) * len(validation)
    if len(shared) > by_chance + 3 * by_chance**0.5:
        first = shared[0]
        raise Broken(
            f"{len(shared)} of {len(validation)} items of validation are in train too, such as "
            f"validation[{first}], which is train[{places[validation[first]]}]; {twins} of "
            f"{len(train)} items of train have a twin there"
        )


def loading_is_deterministic(subject: DatasetSubject) -> None:
    """Loaded again, anew and from the cache, a dataset has the same items in the same order, the
    same labels and the same fingerprint, whatever the global generators."""
    first = subject.data
    if not (isinstance(first.fingerprint, str) and first.fingerprint):
        raise Broken(f"the fingerprint is {first.fingerprint!r}, no text")
    for how, workspace in (("anew", subject.anew), ("from the cache", subject.workspace)):
        with seeded(1):
            second = subject.dataset().load(workspace)
        if difference := first_unlike(summary(first), summary(second)):
            raise Broken(f"loaded {how}, {difference}")


def another_process_loads_the_same(subject: DatasetSubject) -> None:
    """In a new process and with an empty cache, a dataset has the same items in the same order, and
    the same fingerprint: no order of files or sets decides it."""
    require_importable(subject.cls)
    data, workspace = subject.data, subject.anew
    told = {
        "module": subject.cls.__module__,
        "qualname": subject.cls.__qualname__,
        "settings": subject.settings.model_dump(mode="json"),
        "cache": str(workspace.cache.root),
    }
    there = json.loads(run_module("dstbench.testing.trials.reloading", json.dumps(told)))
    if difference := first_unlike(summary(data), there):
        raise Broken(f"loaded in a new process, {difference}")


def pictures_can_be_scored(subject: DatasetSubject) -> None:
    """to_images makes uint8 images (N, C, H, W), C = 1 or 3, of one item as of many, the same
    whichever items are drawn together."""
    data = subject.data
    items = [data.train[index] for index in range(min(5, len(data.train)))]
    check_pictures(data.to_images, items, "training items")
    if subject.cls.kind == "images":
        together = data.to_images(torch.stack(items))
        if not torch.equal(together, data.to_images(items)):
            raise Broken("images as one tensor (N, C, H, W) make other pictures than as a list")


def drawings_are_svg(subject: DatasetSubject) -> None:
    """to_svg makes a well-formed SVG document of an item."""
    data = subject.data
    if data.to_svg is None:
        raise SkipTest("its items are no drawings: it has no to_svg")
    svg = data.to_svg(data.train[0])
    try:
        root = fromstring(svg)
    except (SyntaxError, DefusedXmlException, TypeError) as error:
        raise Broken(f"of train[0] it is no XML: {error}\n{svg!r:.200}") from None
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        raise Broken(f"of train[0] the root is {root.tag}, not svg of http://www.w3.org/2000/svg")


def labels_fit_the_items(subject: DatasetSubject) -> None:
    """Where items have labels, there is one (a string or an integer) for each item of a split."""
    labels = subject.data.labels
    if not labels:
        raise SkipTest("its items have no labels")
    for name, values in labels.items():
        if name not in SPLITS:
            raise Broken(f"labels are given for '{name}', which is none of {', '.join(SPLITS)}")
        count = len(subject.data.split(name))
        if len(values) != count:
            raise Broken(f"{name} has {len(values)} labels for {count} items")
        for index, value in enumerate(values):
            if not isinstance(value, str | int):
                raise Broken(f"the label of {name}[{index}] is {value!r}, a {type(value).__name__}")


def outline_fits_the_items(subject: DatasetSubject) -> None:
    """outline gives the shape of the items before they are loaded: exactly, or, where they differ
    in shape, their size within a factor of two, and in words what was assumed. Where it gives a
    number of classes, training items have as many labels."""
    outline = subject.dataset().outline()
    if outline is None:
        raise SkipTest("it has no outline")
    if outline.classes not in (None, classes := len(subject.data.classes)):
        raise Broken(f"it says {outline.classes} classes, but training items have {classes} labels")
    shapes = [tuple(item.shape) for item in subject.data.train]
    if not outline.assumption:
        odd = next((index for index, shape in enumerate(shapes) if shape != outline.shape), None)
        if odd is not None:
            raise Broken(f"it says {outline.shape}, but train[{odd}] has shape {shapes[odd]}")
        return
    mean = sum(shape[0] for shape in shapes) / len(shapes)
    if not mean / 2 <= outline.shape[0] <= mean * 2 or outline.shape[1:] != shapes[0][1:]:
        raise Broken(
            f"it says {outline.shape}, but training items have shapes such as {shapes[0]}, and "
            f"{mean:.1f} in the first dimension on average"
        )


def pictures_need_no_data(subject: DatasetSubject) -> None:
    """Pictures and drawings that pictures makes of items, by settings alone, are those of the
    loaded data."""
    data, pictures = subject.data, subject.dataset().pictures()
    if pictures is None:
        raise SkipTest("it has no pictures without its data: its models cannot be exported")
    few = [data.train[index] for index in range(min(2, len(data.train)))]
    if not torch.equal(data.to_images(few), pictures.to_images(few)):
        raise Broken("to_images of the first items makes other pictures than that of pictures()")
    if (data.to_svg is None) != (pictures.to_svg is None):
        raise Broken("to_svg is in only one of the data and pictures()")
    if data.to_svg and pictures.to_svg and data.to_svg(few[0]) != pictures.to_svg(few[0]):
        raise Broken("to_svg of the first item makes another drawing than that of pictures()")


def data_survive_pickling(subject: DatasetSubject) -> None:
    """Data can be sent to worker processes: pickled, it takes about as much room as its items, and
    comes back with the same items and pictures."""
    data = subject.data
    items = [item for split in SPLITS for item in data.split(split)]
    content = sum(item.nbytes for item in items if isinstance(item, Tensor))
    file = _Limited(2 * content + SPARE_BYTES * len(items) + (1 << 20))
    try:
        pickle.dump(data, file)
    except _TooMuchError:
        raise Broken(
            f"its items are {content:,} bytes, but pickled they are more than {file.limit:,}: does "
            "each item carry the whole tensor that it is a view of? Clone the items, or keep the "
            "tensor (or its file) in a sequence that cuts items from it"
        ) from None
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Broken(f"it cannot be pickled: {error}") from None
    back: Data = pickle.loads(b"".join(file.parts))
    if difference := first_unlike(summary(data), summary(back)):
        raise Broken(f"pickled, {difference}")
    few = [data.train[index] for index in range(min(2, len(data.train)))]
    if not torch.equal(data.to_images(few), back.to_images(few)):
        raise Broken("to_images makes other pictures after it was pickled")


CHECKS = (
    *settings.CHECKS,
    availability_is_told,
    items_are_of_their_kind,
    splits_are_disjoint,
    loading_is_deterministic,
    another_process_loads_the_same,
    pictures_can_be_scored,
    drawings_are_svg,
    pictures_need_no_data,
    labels_fit_the_items,
    outline_fits_the_items,
    data_survive_pickling,
)


def _refuse(dataset: Dataset, workspace: Workspace) -> Data:
    raise Broken("availability has loaded the dataset")


class _TooMuchError(Exception):
    """More bytes than allowed."""


class _Limited:
    """A file in memory that takes at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[bytes] = []
        self._size = 0

    def write(self, part: Any) -> int:
        self._size += len(part)
        if self._size > self.limit:
            raise _TooMuchError
        self.parts.append(bytes(part))
        return len(part)
