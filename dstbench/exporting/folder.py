"""The folder of an exported model: written from a trained cell, and read again.

``model.safetensors`` holds the denoiser (see :mod:`dstbench.store.weights`), and what is told of it
(:class:`Told`); ``sampling.safetensors`` what its model samples with (see
:mod:`dstbench.execution.without_data`); ``masks.safetensors`` the masks of a network that is not
packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dstbench.cell import Cell
from dstbench.contracts import Model, Workspace
from dstbench.errors import DstbenchError, PluginError, StoreError
from dstbench.execution.sampling import Trained
from dstbench.execution.without_data import kept_of, read_kept, restored, write_kept
from dstbench.exporting.trained import TrainedModel
from dstbench.files import open_regular
from dstbench.kernels import Choice, use_kernels
from dstbench.plugins.registry import Plugins
from dstbench.store.packed import pack_mask, unpack_mask
from dstbench.store.weights import read_masks, read_more, read_state, write_network

MODEL, SAMPLING, MASKS = "model.safetensors", "sampling.safetensors", "masks.safetensors"

Weights = Literal["packed", "dense"]


class Told(BaseModel):
    """What an exported model's file tells beside its weights, in its metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    cell: Cell
    masked: dict[str, tuple[int, ...]] = {}
    """The shapes of weights whose masks are in a file of their own."""
    kernels: dict[str, Any] | None = None
    provenance: dict[str, Any] = {}
    """The rest of the cell's record: scores, counts, times, versions and machine."""


def write_model(trained: Trained, folder: Path, weights: Weights, plugins: Plugins) -> None:
    """Write a trained cell's model into a folder that is there.

    Raises :class:`~dstbench.errors.StoreError` where it cannot be sampled from without its data.
    """
    record, masks = trained.record, trained.masks
    kept = kept_of(record.cell, trained.model, plugins)
    packed = weights == "packed"
    told = Told(
        cell=record.cell,
        masked={} if packed else {name: tuple(mask.shape) for name, mask in masks.items()},
        kernels=record.kernels,
        provenance=record.model_dump(mode="json", exclude={"cell", "kernels"}),
    )
    more = {"model": told.model_dump(mode="json")}
    write_network(folder / MODEL, trained.denoiser, masks if packed else {}, more)
    write_kept(folder / SAMPLING, kept)
    if told.masked:
        save_file({name: pack_mask(mask) for name, mask in masks.items()}, folder / MASKS)


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
    plugins.find("model", cell.model)
    if (version := cell.versions.get("model")) not in (
        None,
        installed := plugins.get("model", cell.model).origin,
    ):
        workspace.report(f"{folder}: made with model '{cell.model}' of {version}; {installed} is "
                         "installed")  # fmt: skip

    def read() -> TrainedModel:
        weights, masks = read_state(folder / MODEL), _masks(folder, told)
        model = restored(read_kept(folder / SAMPLING), cell, plugins, workspace)
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
    except PluginError:
        raise
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


def _masks(folder: Path, told: Told) -> dict[str, Tensor]:
    """The network's masks (bool) by parameter name."""
    if not told.masked:
        return read_masks(folder / MODEL)
    open_regular(folder / MASKS).close()
    with safe_open(folder / MASKS, "pt") as file:
        return {
            name: unpack_mask(file.get_tensor(name), torch.Size(shape))
            for name, shape in told.masked.items()
        }


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
