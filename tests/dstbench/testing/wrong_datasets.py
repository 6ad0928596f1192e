"""Datasets that each break a promise: one that ``caught_by`` names."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from toys import SIZE, ToyImages, stack
from wrong_plugins import Wrong

from dstbench.contracts import (
    READY,
    Availability,
    Data,
    Dataset,
    Items,
    Pictures,
    PluginSettings,
    Workspace,
)
from dstbench.errors import DataError


class RightImages(ToyImages):
    """Right: the toy, with labels and an outline."""

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        labels = {name: list(range(len(data.split(name)))) for name in ("train", "validation")}
        return replace(data, labels=labels)

    def outline(self) -> Items | None:
        return Items((1, SIZE, SIZE))


class RightSketches(Dataset):
    """Right: zigzags of several lengths."""

    name = "zigzags"
    kind = "sketches"

    def load(self, workspace: Workspace) -> Data:
        train, validation = ([zigzag(n) for n in part] for part in (range(2, 12), range(12, 15)))
        return Data(train, validation, "zigzags", draw, to_svg)

    def outline(self) -> Items | None:
        return Items((6, 3), "sketches of 6 points")

    def pictures(self) -> Pictures | None:
        return Pictures(draw, to_svg)


def zigzag(points: int) -> Tensor:
    steps = torch.arange(points)
    return torch.stack([steps, steps % 2, steps == points - 1], dim=1).float()


def draw(sketches: Sequence[Any] | Tensor) -> Tensor:
    pictures = torch.zeros(len(sketches), 1, 8, 16, dtype=torch.uint8)
    for picture, sketch in zip(pictures, sketches, strict=True):
        places = sketch[:, :2].long().clamp(0, 7)
        picture[0, places[:, 1], places[:, 0]] = 255
    return pictures


def to_svg(sketch: Tensor) -> str:
    points = " ".join(f"{x:g},{y:g}" for x, y, _ in sketch.tolist())
    return f'<svg xmlns="http://www.w3.org/2000/svg"><polyline points="{points}"/></svg>'


class Undocumented(Wrong, RightImages):
    """Has a setting without a description."""

    caught_by = "settings-are-documented"
    happens = "size: no description"

    class Settings(RightImages.Settings):
        size: int = 3


class Lenient(Wrong, RightSketches):
    """Ignores unknown keys."""

    caught_by = "settings-are-validated"
    happens = "was not refused"

    class Settings(PluginSettings, extra="ignore"):
        pass


class Unrecordable(Wrong, RightImages):
    """Has a setting that no benchmark file can hold."""

    caught_by = "settings-survive-a-record"
    happens = "PydanticSerializationError"

    class Settings(RightImages.Settings):
        thing: Any = Field(object(), description="any object")


class Loading(Wrong, RightImages):
    """Loads everything to tell whether it can be loaded."""

    caught_by = "availability-is-told"
    happens = "availability has loaded the dataset"

    def availability(self, workspace: Workspace) -> Availability:
        self.load(workspace)
        return READY


class Unhelpful(Wrong, RightImages):
    """Does not say where to get its data."""

    caught_by = "availability-is-told"
    happens = "it is 'missing', but the detail"

    def availability(self, workspace: Workspace) -> Availability:
        return Availability("missing")


class Maybe(Wrong, RightImages):
    """Knows a state of its own."""

    caught_by = "availability-is-told"
    happens = "its state is 'perhaps'"

    def availability(self, workspace: Workspace) -> Availability:
        return Availability("perhaps")  # type: ignore[arg-type]


class Slow(Wrong, RightImages):
    """Takes its time to tell whether it is there."""

    caught_by = "availability-is-told"
    happens = "seconds to tell"
    patience = 0.1
    """Seconds that the test allows."""

    def availability(self, workspace: Workspace) -> Availability:
        time.sleep(0.2)
        return READY


class Caching(Wrong, RightImages):
    """Writes something down to tell whether it is there."""

    caught_by = "availability-is-told"
    happens = "availability has put probe-"

    def availability(self, workspace: Workspace) -> Availability:
        workspace.cache.folder("probe", {}, lambda folder: None)
        return READY


class Boolean(Wrong, RightImages):
    """Answers yes."""

    caught_by = "availability-is-told"
    happens = "availability returned True"

    def availability(self, workspace: Workspace) -> Any:
        return True


class Changed(RightImages):
    """Changes the items of the right dataset."""

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(
            data,
            train=[self.changed(item) for item in data.train],
            validation=[self.changed(item) for item in data.validation],
        )

    def changed(self, item: Any) -> Any:
        return item


class Empty(Wrong, RightImages):
    """Has nothing to train with."""

    caught_by = "items-are-of-their-kind"
    happens = "the training split is empty"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), train=[], labels={})


class Floats(Wrong, Changed):
    """Images of floats."""

    caught_by = "items-are-of-their-kind"
    happens = "train[0] is torch.float32 of shape (1, 4, 4)"

    def changed(self, item: Any) -> Any:
        return item / 255


class Arrays(Wrong, Changed):
    """Images of NumPy."""

    caught_by = "items-are-of-their-kind"
    happens = "train[0] is a ndarray"

    def changed(self, item: Any) -> Any:
        return item.numpy()


class ChannelsLast(Wrong, Changed):
    """Images (H, W, C)."""

    caught_by = "items-are-of-their-kind"
    happens = "of shape (4, 4, 1)"

    def changed(self, item: Any) -> Any:
        return item.permute(1, 2, 0)


class Unscaled(Wrong, Changed):
    """Images of zeros and ones."""

    caught_by = "items-are-of-their-kind"
    happens = "images are 0…255, not 0…1"

    def changed(self, item: Any) -> Any:
        return (item > 128).to(torch.uint8)


class Lacking(Wrong, RightImages):
    """Cannot be loaded, although it said so."""

    caught_by = "items-are-of-their-kind"
    happens = "the toyshop is closed"

    def load(self, workspace: Workspace) -> Data:
        raise DataError("the toyshop is closed")


class Uncut(Wrong, RightImages):
    """Takes no slices."""

    caught_by = "items-are-of-their-kind"
    happens = "train[:2] does not hold the first 2 items"

    class Backwards(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            part = super().__getitem__(index)
            return part[::-1] if isinstance(index, slice) else part

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, train=self.Backwards(data.train))


class ChangedSketches(RightSketches):
    """Changes the items of the right dataset."""

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, train=[self.changed(item) for item in data.train])

    def changed(self, item: Any) -> Any:
        return item


class Nowhere(Wrong, ChangedSketches):
    """A point that is nowhere."""

    caught_by = "items-are-of-their-kind"
    happens = "train[0] has coordinates that are not finite"

    def changed(self, item: Any) -> Any:
        return item / 0


class HalfUp(Wrong, ChangedSketches):
    """A pen that is half lifted."""

    caught_by = "items-are-of-their-kind"
    happens = "train[0] has a pen of 0.5"

    def changed(self, item: Any) -> Any:
        return item * torch.tensor([1, 1, 0.5])


class Flat(Wrong, ChangedSketches):
    """No pens."""

    caught_by = "items-are-of-their-kind"
    happens = "train[0] is torch.float32 of shape (2, 2)"

    def changed(self, item: Any) -> Any:
        return item[:, :2]


class OffByOne(Wrong, RightImages):
    """The last item to train with is the first of validation."""

    caught_by = "splits-are-disjoint"
    happens = "validation[0], which is train[26]"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, train=[*data.train, data.validation[0]], labels={})


class Overlapping(Wrong, RightImages):
    """Validates on what it has trained on."""

    caught_by = "splits-are-disjoint"
    happens = "26 of 26 items of validation are in train too"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, validation=data.train, labels={})


class Shuffled(Wrong, RightImages):
    """Shuffles by torch's global generator."""

    caught_by = "loading-is-deterministic"
    happens = "loaded anew, train[0] is another than it was"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, train=[data.train[i] for i in torch.randperm(len(data.train))])


class Renamed(Wrong, RightImages):
    """Its fingerprint is another each time."""

    caught_by = "loading-is-deterministic"
    happens = "the fingerprint is"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), fingerprint=str(time.perf_counter_ns()))


class Unnamed(Wrong, RightImages):
    """Has no fingerprint."""

    caught_by = "loading-is-deterministic"
    happens = "the fingerprint is ''"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), fingerprint="")


class Relabelled(Wrong, RightImages):
    """Labels at random."""

    caught_by = "loading-is-deterministic"
    happens = "loaded anew, labels of train[0] is another than it was"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, labels={"train": torch.randperm(len(data.train)).tolist()})


class Remembering(Wrong, RightImages):
    """Comes from the cache in another form."""

    caught_by = "loading-is-deterministic"
    happens = "loaded from the cache, train[0] is another"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        known = workspace.cache.has("remembered", {})
        workspace.cache.folder("remembered", {}, lambda folder: None)
        return replace(data, train=[item + int(known) for item in data.train])


class Unordered(Wrong, RightImages):
    """Takes its items in the order of a set of names."""

    caught_by = "another-process-loads-the-same"
    happens = "loaded in a new process, train["

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        names = {f"image-{number}": item for number, item in enumerate(data.train)}
        return replace(data, train=[names[name] for name in set(names)])


class Homesick(Wrong, RightImages):
    """Needs what only this process has."""

    caught_by = "another-process-loads-the-same"
    happens = "it failed in a new process"

    def load(self, workspace: Workspace) -> Data:
        if "pytest" not in sys.modules:
            raise DataError("this is another process")
        return super().load(workspace)


def floating(items: Any) -> Tensor:
    return stack(items) / 255


def flattened(items: Any) -> Tensor:
    return stack(items)[:, 0]


def first_only(items: Any) -> Tensor:
    return stack(items)[:1]


def stretched(items: Any) -> Tensor:
    images = stack(items).float()
    return (images / images.max() * 255).to(torch.uint8)


def counted(items: Any) -> Tensor:
    return stack(items) + (3 if isinstance(items, Tensor) else 0)


def listed(items: Any) -> Any:
    return list(items)


class Drawn(RightImages):
    """Makes pictures in another way."""

    way: ClassVar[Any]

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), to_images=type(self).way)


class FloatPictures(Wrong, Drawn):
    """Pictures of floats."""

    caught_by = "pictures-can-be-scored"
    happens = "to_images of 5 training items is torch.float32"
    way = staticmethod(floating)


class FlatPictures(Wrong, Drawn):
    """Pictures without channels."""

    caught_by = "pictures-can-be-scored"
    happens = "of shape (5, 4, 4)"
    way = staticmethod(flattened)


class FewPictures(Wrong, Drawn):
    """One picture, of however many items."""

    caught_by = "pictures-can-be-scored"
    happens = "has 1 pictures"
    way = staticmethod(first_only)


class Stretched(Wrong, Drawn):
    """The brightest of all pictures together sets the scale."""

    caught_by = "pictures-can-be-scored"
    happens = "is another picture alone than with others"
    way = staticmethod(stretched)


class ListsOnly(Wrong, Drawn):
    """Treats a tensor as something else than a list."""

    caught_by = "pictures-can-be-scored"
    happens = "as one tensor (N, C, H, W) make other pictures"
    way = staticmethod(counted)


class ListOfPictures(Wrong, Drawn):
    """A list of pictures."""

    caught_by = "pictures-can-be-scored"
    happens = "is a list, no tensor"
    way = staticmethod(listed)


def unclosed(sketch: Tensor) -> str:
    return '<svg xmlns="http://www.w3.org/2000/svg"><polyline></svg>'


def unnamed_svg(sketch: Tensor) -> str:
    return "<svg/>"


class Unclosed(Wrong, RightSketches):
    """Drawings of broken XML."""

    caught_by = "drawings-are-svg"
    happens = "of train[0] it is no XML"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), to_svg=unclosed)


class Homeless(Wrong, RightSketches):
    """Drawings of XML that is no SVG."""

    caught_by = "drawings-are-svg"
    happens = "the root is svg, not svg of"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), to_svg=unnamed_svg)


class Labelled(RightImages):
    """Has other labels."""

    labels: ClassVar[Any]

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), labels=type(self).labels)


class FewLabels(Wrong, Labelled):
    """One label too few."""

    caught_by = "labels-fit-the-items"
    happens = "train has 25 labels for 26 items"
    labels: ClassVar[Any] = {"train": [0] * 25}


class FloatLabels(Wrong, Labelled):
    """Labels of floats."""

    caught_by = "labels-fit-the-items"
    happens = "the label of train[0] is 0.5, a float"
    labels: ClassVar[Any] = {"train": [0.5] * 26}


class TestLabels(Wrong, Labelled):
    """Labels of a split that there is not."""

    __test__ = False
    caught_by = "labels-fit-the-items"
    happens = "labels are given for 'test'"
    labels: ClassVar[Any] = {"test": [0]}


class OtherOutline(Wrong, RightImages):
    """Tells another shape."""

    caught_by = "outline-fits-the-items"
    happens = "it says (3, 4, 4), but train[0] has shape (1, 4, 4)"

    def outline(self) -> Items | None:
        return Items((3, SIZE, SIZE))


class OtherClasses(Wrong, RightImages):
    """Tells a number of classes that its images do not have."""

    caught_by = "outline-fits-the-items"
    happens = "it says 3 classes, but training items have 26 labels"

    def outline(self) -> Items | None:
        return Items((1, SIZE, SIZE), classes=3)


class FarOutline(Wrong, RightSketches):
    """Assumes much longer sketches."""

    caught_by = "outline-fits-the-items"
    happens = "6.5 in the first dimension on average"

    def outline(self) -> Items | None:
        return Items((60, 3), "sketches of 60 points")


class Lambda(Wrong, RightImages):
    """Makes pictures by a function that cannot be pickled."""

    caught_by = "data-survive-pickling"
    happens = "it cannot be pickled: "

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), to_images=lambda items: stack(items))


class Views(Wrong, RightImages):
    """Items that are views of one tensor."""

    caught_by = "data-survive-pickling"
    happens = "does each item carry the whole tensor"

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(256, (300, 1, 64, 64), generator=rng).to(torch.uint8)
        return replace(data, train=list(images[:200]), validation=list(images[200:]), labels={})


class Dwindling(Wrong, RightImages):
    """Loses an item on the way."""

    caught_by = "data-survive-pickling"
    happens = "pickled, train has 25 items; it had 26"

    class Items(list[Any]):
        def __reduce__(self) -> Any:
            return list, (list(self)[1:],)

    def load(self, workspace: Workspace) -> Data:
        data = super().load(workspace)
        return replace(data, train=self.Items(data.train))


class Inverted(Wrong, RightImages):
    """Shows negatives, and does not say so without its data."""

    caught_by = "pictures-need-no-data"
    happens = "other pictures"

    def load(self, workspace: Workspace) -> Data:
        return replace(super().load(workspace), to_images=negatives)


class Undrawn(Wrong, RightSketches):
    """Draws no SVG without its data."""

    caught_by = "pictures-need-no-data"
    happens = "to_svg is in only one"

    def pictures(self) -> Pictures | None:
        return Pictures(draw)


def negatives(items: Sequence[Any] | Tensor) -> Tensor:
    return 255 - stack(items)
