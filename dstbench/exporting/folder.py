"""The folder of an exported model: written from a trained cell, and read again.

``model.safetensors`` holds the denoiser (see :mod:`dstbench.store.weights`), and what is told of it
(:class:`Told`); ``sampling.safetensors``, where there is one, the tensors of the model's sampling
state, and the masks of a network that is not packed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dstbench.cell import Cell
from dstbench.contracts import Data, Dataset, Model, Pictures, Workspace
from dstbench.errors import DstbenchError, StoreError
from dstbench.execution.outline import Undertaking
from dstbench.execution.sampling import Trained
from dstbench.exporting.trained import TrainedModel
from dstbench.files import open_regular
from dstbench.kernels import Choice, use_kernels
from dstbench.plugins.registry import Plugins
from dstbench.store.packed import pack_mask, unpack_mask
from dstbench.store.weights import MASK, read_masks, read_more, read_state, write_network

MODEL, SAMPLING = "model.safetensors", "sampling.safetensors"

DTYPES = {str(each).removeprefix("torch."): each for each in (torch.uint8, torch.float32)}
"""Types of the numbers of an item."""

Weights = Literal["packed", "dense"]


class Told(BaseModel):
    """What an exported model's file tells beside its weights, in its metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    cell: Cell
    item_shape: tuple[int, ...] = Field(max_length=8)
    """The shape of the first training example."""
    item_dtype: str
    draws: bool
    """Whether it takes the dataset's plugin to make pictures of items, which are no images."""
    masked: dict[str, tuple[int, ...]] = {}
    """The shapes of weights whose masks are in the other file."""
    sampling: dict[str, float | int | str] = {}
    """The model's sampling state, as far as it is not of tensors."""
    kernels: dict[str, Any] | None = None
    provenance: dict[str, Any] = {}
    """The rest of the cell's record: scores, counts, times, versions and machine."""


def write_model(trained: Trained, folder: Path, weights: Weights, plugins: Plugins) -> None:
    """Write a trained cell's model into a folder that is there.

    Raises :class:`~dstbench.errors.StoreError` where it cannot be sampled from without its data.
    """
    record, model = trained.record, trained.model
    item = model.data.train[0]
    if not isinstance(item, Tensor) or str(item.dtype).removeprefix("torch.") not in DTYPES:
        raise StoreError(f"items of dataset '{record.cell.dataset}' are no tensors to export")
    draws = _draws(plugins.find("dataset", record.cell.dataset))
    _pictures(record.cell, draws, plugins)
    state = model.sampling_state()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    masks = trained.masks
    if weights == "dense":
        tensors |= {name + MASK: pack_mask(mask) for name, mask in masks.items()}
    told = Told(
        cell=record.cell,
        item_shape=tuple(item.shape),
        item_dtype=str(item.dtype).removeprefix("torch."),
        draws=draws,
        masked={} if weights == "packed" else {n: tuple(m.shape) for n, m in masks.items()},
        sampling={n: value for n, value in state.items() if not isinstance(value, Tensor)},
        kernels=record.kernels,
        provenance=record.model_dump(mode="json", exclude={"cell", "kernels"}),
    )
    more = {"model": told.model_dump(mode="json")}
    write_network(folder / MODEL, trained.denoiser, masks if weights == "packed" else {}, more)
    if tensors:
        apart = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(apart, folder / SAMPLING)


def read_model(folder: Path, plugins: Plugins, workspace: Workspace) -> TrainedModel:
    """The model that :func:`write_model` has written, on the workspace's device.

    The folder may come from anybody: nothing in it is executed, and no more memory taken than its
    files have use for.

    Raises:
        StoreError: for a folder that does not hold what it should.
        PluginError: if a plugin is not installed.
    """
    told = _told(folder / MODEL)
    cell = told.cell
    cls: type[Model] = plugins.find("model", cell.model)
    pictures = _pictures(cell, told.draws, plugins)
    if (version := cell.versions.get("model")) not in (
        None,
        installed := plugins.get("model", cell.model).origin,
    ):
        workspace.report(f"{folder}: made with model '{cell.model}' of {version}; {installed} is "
                         "installed")  # fmt: skip

    def read() -> TrainedModel:
        settings = cls.Settings(**cell.model_settings)
        weights = read_state(folder / MODEL)
        tensors, masks = _apart(folder, told)
        _check_shape(told.item_shape)
        data = Data.blank(told.item_shape, DTYPES[told.item_dtype], pictures)
        sampling = {**told.sampling, **tensors}
        model = cls.for_sampling(settings, data, sampling, workspace)
        own = Undertaking(cls, settings, model.items).of(cell).settings
        if own != settings:
            model = cls.for_sampling(own, data, sampling, workspace)
        _check_fit(model, weights)
        devices = [workspace.device] if workspace.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            denoiser = model.build()
        denoiser.load_state_dict(weights)
        if told.kernels is not None:
            use_kernels([denoiser], masks, Choice.from_json(told.kernels))
        return TrainedModel(cell, model, denoiser, masks)

    return _checked(read, folder, cell)


def _checked(read: Callable[[], TrainedModel], folder: Path, cell: Cell) -> TrainedModel:
    wrong = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError)
    try:
        return read()
    except (*wrong, DstbenchError) as error:
        raise StoreError(
            f"{folder}: this model is damaged, or of another version of dstbench or of "
            f"'{cell.model}' than is installed: {error}"
        ) from error


def _told(path: Path) -> Told:
    try:
        open_regular(path).close()
        return Told.model_validate(read_more(path).get("model"))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise StoreError(
            f"{path}: no model that this version of dstbench has exported ({where}: "
            f"{problem['msg']})"
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _apart(folder: Path, told: Told) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the sampling state, and the network's masks (bool)."""
    path, tensors = folder / SAMPLING, dict[str, Tensor]()
    if path.exists():
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    masks = {
        name: unpack_mask(tensors.pop(name + MASK), torch.Size(shape))
        for name, shape in told.masked.items()
    }
    return tensors, masks | read_masks(folder / MODEL)


def _check_shape(shape: tuple[int, ...]) -> None:
    """Raise :class:`ValueError` for a shape that items cannot have."""
    if any(side < 1 for side in shape) or math.prod(shape) >= 2**31:
        raise ValueError(f"items of shape {shape}")


def _check_fit(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Raise :class:`ValueError` where settings ask for another network than the weights are of,
    before there is memory taken for it."""
    with torch.device("meta"):
        outline = model.outline(model.settings, model.items)
    if outline is not None:
        made = _shapes(outline.denoiser)
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        for name in sorted(made.keys() | found.keys()):
            if made.get(name) != found.get(name):
                raise ValueError(
                    f"{name} has shape {found.get(name)}; by its settings it is {made.get(name)}"
                )


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _draws(cls: type[Dataset]) -> bool:
    return cls.kind != "images" or cls.pictures is not Dataset.pictures


def _pictures(cell: Cell, draws: bool, plugins: Plugins) -> Pictures:
    """How items become pictures: images are their own, for others the dataset's plugin says it."""
    if not draws:
        return Pictures()
    cls: type[Dataset] = plugins.find("dataset", cell.dataset)
    try:
        pictures = cls(cls.Settings(**cell.dataset_settings)).pictures()
    except ValidationError as error:
        raise StoreError(f"settings of dataset '{cell.dataset}': {error}") from error
    if pictures is None:
        raise StoreError(
            f"dataset '{cell.dataset}' does not say how pictures are made of its items without "
            "loading them (Dataset.pictures)"
        )
    return pictures
