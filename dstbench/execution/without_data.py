"""What a model samples with when its dataset is not there: kept beside its denoiser's weights.

The file is safetensors of the tensors in the model's ``sampling_state()``; its metadata tell the
rest (:class:`Needed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dstbench.cell import Cell
from dstbench.contracts import Data, Dataset, Model, Pictures, Workspace
from dstbench.errors import StoreError
from dstbench.execution.outline import Undertaking
from dstbench.files import open_regular
from dstbench.plugins.registry import Plugins

DTYPES: Mapping[Literal["uint8", "float32"], torch.dtype] = {
    "uint8": torch.uint8,
    "float32": torch.float32,
}
"""Types of the numbers of an item."""

_TOLD = "dstbench"


class Needed(BaseModel):
    """What a model samples with beside tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_shape: tuple[int, ...] = Field(max_length=8)
    """The shape of the first training example."""
    item_dtype: Literal["uint8", "float32"]
    draws: bool
    """Whether it takes the dataset's plugin to make pictures of items, which are no images."""
    state: dict[str, float | int | str] = {}
    """The model's sampling state, as far as it is not of tensors."""


@dataclass(frozen=True)
class Kept:
    """All that a model samples with beside its denoiser."""

    needed: Needed
    tensors: Mapping[str, Tensor]


def kept_of(cell: Cell, model: Model, plugins: Plugins) -> Kept:
    """What a cell's model samples with.

    Raises :class:`~dstbench.errors.StoreError` where it cannot be sampled from without its data.
    """
    item = model.data.train[0]
    dtype = next((name for name in DTYPES if DTYPES[name] is getattr(item, "dtype", None)), None)
    if dtype is None:
        raise StoreError(f"items of dataset '{cell.dataset}' are no tensors to export")
    draws = _draws(plugins.find("dataset", cell.dataset))
    _pictures(cell, draws, plugins)
    state = model.sampling_state()
    needed = Needed(
        item_shape=tuple(item.shape),
        item_dtype=dtype,
        draws=draws,
        state={name: value for name, value in state.items() if not isinstance(value, Tensor)},
    )
    return Kept(needed, {n: value for n, value in state.items() if isinstance(value, Tensor)})


def write_kept(path: Path, kept: Kept) -> None:
    """Write what a model samples with."""
    tensors = {name: value.cpu().clone().contiguous() for name, value in kept.tensors.items()}
    save_file(tensors, path, {_TOLD: kept.needed.model_dump_json()})


def read_kept(path: Path) -> Kept:
    """What :func:`write_kept` has written; the file may come from anybody.

    Raises:
        OSError, SafetensorError, ValueError: for a file that it has not.
    """
    open_regular(path).close()
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get(_TOLD, "")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Kept(Needed.model_validate_json(told), tensors)


def restored(
    kept: Kept,
    cell: Cell,
    plugins: Plugins,
    workspace: Workspace,
    changed: Mapping[str, Any] | None = None,
) -> Model:
    """A cell's model that samples as the one whose needs were kept, with settings ``changed`` if
    need be; it cannot train.

    Raises:
        StoreError: where the dataset cannot make pictures without its data.
        PluginError: if a plugin is not installed.
        KeyError, TypeError, ValueError, RuntimeError: where what was kept is not the model's.
    """
    needed = kept.needed
    if any(side < 1 for side in needed.item_shape) or math.prod(needed.item_shape) >= 2**31:
        raise ValueError(f"items of shape {needed.item_shape}")
    cls: type[Model] = plugins.find("model", cell.model)
    settings = cls.Settings(**cell.model_settings | dict(changed or {}))
    pictures = _pictures(cell, needed.draws, plugins)
    data = Data.blank(needed.item_shape, DTYPES[needed.item_dtype], pictures)
    state = {**needed.state, **kept.tensors}
    model = cls.for_sampling(settings, data, state, workspace)
    own = Undertaking(cls, settings, model.items).of(cell).settings
    return model if own == settings else cls.for_sampling(own, data, state, workspace)


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
