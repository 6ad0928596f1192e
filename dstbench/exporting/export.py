"""A trained cell, written as a folder for others."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dstbench.errors import ConfigError, PluginError
from dstbench.execution.pipeline import Pipeline
from dstbench.execution.sampling import Trained
from dstbench.exporting.card import DIFFUSERS, LOADED, ONNX, Usage, write_card
from dstbench.exporting.folder import write_model
from dstbench.exporting.trained import TrainedModel
from dstbench.store.files import require_new, write_folder
from dstbench.store.folder import CellFolder

Format = Literal["packed", "dense", "diffusers", "onnx"]

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


def from_cell(folder: Path, pipeline: Pipeline) -> TrainedModel:
    """The model of a cell's folder."""
    trained = pipeline.trained(CellFolder(folder))
    return TrainedModel(trained.record.cell, trained.model, trained.denoiser, trained.masks)


def export(
    cell: Path, to: Path, format: Format, licence: str, pipeline: Pipeline, trusted: bool
) -> None:
    """Write a cell as a folder that appears whole or not at all; see
    :func:`dstbench.api.export_model`."""
    if not _LICENCE.fullmatch(licence):
        raise ConfigError(f"licence '{licence}': a name in lower case, such as apache-2.0")
    require_new(to)
    folder = CellFolder(cell)
    trained = pipeline.trained(folder, trusted=trusted)
    if format == "diffusers":  # whose autoencoders are whole ones
        whole = pipeline.with_data(trained.record.cell, folder, trusted=trusted)
        trained = replace(trained, model=whole)

    def write(unfinished: Path) -> None:
        usage = _write(trained, unfinished, format, pipeline)
        # A link in a stranger's folder could lead to any file of this user's.
        pictures = folder.sheet if folder.sheet.exists() and not folder.sheet.is_symlink() else None
        if pictures:
            shutil.copyfile(pictures, unfinished / "samples.png")
        write_card(unfinished, trained.record, licence, usage, pictures is not None)

    write_folder(to, write)


def _write(trained: Trained, folder: Path, format: Format, pipeline: Pipeline) -> Usage:
    """Write the model itself; how it is used, for its card."""
    name = trained.record.cell.model
    if format == "onnx":
        from dstbench.exporting.onnx import write_onnx

        write_onnx(trained, folder)
        return ONNX
    if format == "diffusers":
        found = trained.model.diffusers_pipeline(trained.denoiser)
        if found is None:
            raise PluginError(f"model '{name}' is no pipeline of diffusers'; export it as packed")
        found[0].save_pretrained(folder, safe_serialization=True)
        return DIFFUSERS.called_with(found[1])
    write_model(trained, folder, format, pipeline.plugins)
    return LOADED
