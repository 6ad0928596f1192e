"""A denoiser as a graph of ONNX's, written by torch's exporter."""

from __future__ import annotations

from pathlib import Path

import torch

from dstbench.errors import PluginError
from dstbench.execution.pipeline import Trained
from dstbench.plugins import require

NAME = "denoiser.onnx"


def write_onnx(trained: Trained, folder: Path) -> None:
    """Write the denoiser, dense, called on inputs such as the model's example, in batches of any
    size.

    Raises :class:`~dstbench.errors.PluginError` where torch's exporter cannot, or is incomplete.
    """
    name = trained.record.cell.model
    for package in ("onnx", "onnxscript"):
        require(package, needed_by="the format onnx", extra="dstbench[onnx]")
    denoiser = trained.model.build().eval()  # which no sparse kernel computes
    denoiser.load_state_dict(trained.denoiser.state_dict())
    try:
        torch.onnx.export(
            denoiser,
            trained.model.example(),
            folder / NAME,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # of many kinds: whatever it cannot do
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PluginError(
            f"torch's ONNX exporter cannot write the denoiser of '{name}': {reason}"
        ) from error
