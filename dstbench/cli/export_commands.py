"""The commands by which trained models leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dstbench.cli.options import Device, OneCell, Trust, download_only_if
from dstbench.cli.printing import note, tell


def export(
    cell: OneCell,
    folder: Annotated[Path, typer.Argument(help="Folder to write, which is not there yet.")],
    format: Annotated[
        Literal["packed", "dense", "diffusers", "onnx"],
        typer.Option(
            help="packed: active weights, and masks as bits; dense: weights with zeros; diffusers: "
            "a pipeline of theirs, of models that are one; onnx: the denoiser alone."
        ),
    ] = "packed",
    licence: Annotated[
        str, typer.Option(help="Licence of the weights, for the model card, e.g. apache-2.0.")
    ] = "unknown",
    yes: Trust = False,
    device: Device = "auto",
) -> None:
    """Write a trained cell as a folder that others can load, with a model card."""
    download_only_if(yes)
    from dstbench.api import export_model

    export_model(cell, folder, format, licence=licence, device=device, report=note, trusted=yes)
    tell(f"written: {folder}")


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that dstbench export has written.")],
    repository: Annotated[str, typer.Argument(help="Where to, e.g. my-name/my-model.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a repository that is made now.")
    ] = False,
) -> None:
    """Upload an exported model to the Hugging Face hub, as the user whose login is there.

    Nothing else in dstbench uploads anything.
    """
    from dstbench.exporting.hub import push as push_folder

    tell(f"uploaded: {push_folder(folder, repository, public=public)}")
