"""Models loaded, and written for others: what :mod:`dstbench.api` offers of this room.

Quick to import: what needs more than a moment is imported where it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.cache import Cache
from dstbench.contracts import Workspace
from dstbench.plugins.registry import load_plugins

if TYPE_CHECKING:
    from dstbench.execution.pipeline import Pipeline
    from dstbench.exporting.export import Format
    from dstbench.exporting.trained import TrainedModel

Report = Callable[[str], None]

logger = logging.getLogger("dstbench")


def load_model(
    folder: str | Path, *, device: str = "auto", plugins: Sequence[type[Any]] = ()
) -> TrainedModel:
    """A trained model with its sampler: ``load_model(folder).sample(16)`` are 16 images.

    Sparse layers are computed by sparse kernels where the cell was, which is where they paid.

    Args:
        folder: one that :func:`export_model` has written, which is all that is needed; or that of
            a cell, such as ``results/quickstart/cells/…``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        plugins: classes that take part beside those that are installed.

    Raises:
        StoreError: for a folder without a trained model, or with one that cannot be read.
        PluginError: if its model's plugin is not installed.
        DataError: if the dataset of a cell cannot be loaded, where it takes that.
    """
    from dstbench.exporting.export import from_cell
    from dstbench.exporting.folder import MODEL, read_model

    pipeline = _pipeline(device, plugins, logger.info)
    if (Path(folder) / MODEL).exists():
        return read_model(Path(folder), pipeline.plugins, pipeline.workspace)
    return from_cell(Path(folder), pipeline)


def export_model(
    cell: str | Path,
    folder: str | Path,
    format: Format = "packed",
    *,
    licence: str = "unknown",
    device: str = "auto",
    plugins: Sequence[type[Any]] = (),
    report: Report = logger.info,
    trusted: bool = True,
) -> None:
    """Write a trained cell as a folder that others can load, with a model card.

    Args:
        cell: the cell's folder, such as ``results/quickstart/cells/…``.
        folder: made anew.
        format: ``packed`` (active weights and masks as bits) or ``dense`` (weights as they are,
            with zeros), both for :func:`load_model`; ``diffusers``, for models that are a pipeline
            of theirs; ``onnx``, the denoiser alone.
        licence: of the weights, by its name on the Hugging Face hub, such as ``"apache-2.0"``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        plugins: classes that take part beside those that are installed.
        report: is told what should be known of the cell.
        trusted: whether files may be read that the cell's record names, and its dataset
            downloaded.

    Raises:
        StoreError: for a folder without a trained cell, one that is there or cannot be written, and
            where something would be read for a cell that is not trusted.
        PluginError: if the model has no such form, or a plugin or package is not installed.
        DataError: if the cell's dataset cannot be loaded.
    """
    from dstbench.exporting.export import export

    pipeline = _pipeline(device, plugins, report)
    export(Path(cell), Path(folder), format, licence, pipeline, trusted)


def _pipeline(device: str, plugins: Sequence[type[Any]], report: Report) -> Pipeline:
    from dstbench.execution.machine import choose_device
    from dstbench.execution.pipeline import Pipeline

    return Pipeline(load_plugins(plugins), Workspace(choose_device(device), Cache(), report))
