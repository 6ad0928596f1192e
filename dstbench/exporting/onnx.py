"""A denoiser as a graph of ONNX's, written by torch's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from dstbench.errors import PluginError
from dstbench.execution.sampling import Trained
from dstbench.plugins import require

NAME = "denoiser.onnx"


def write_onnx(trained: Trained, folder: Path) -> None:
    """Write the denoiser, dense, called on inputs such as the model's example, in batches of any
    size, and of other lengths where the network allows them.

    Raises :class:`~dstbench.errors.PluginError` where torch's exporter cannot, or is incomplete.
    """
    name = trained.record.cell.model
    if any(isinstance(module, nn.RNNBase) for module in trained.denoiser.modules()):
        raise PluginError(
            f"the denoiser of '{name}' is recurrent: torch's ONNX exporter would unroll it for one "
            "length alone"
        )
    for package in ("onnx", "onnxscript"):
        require(package, needed_by="the format onnx", extra="dstbench[onnx]")
    denoiser = trained.model.build().eval()  # which no sparse kernel computes
    denoiser.load_state_dict(trained.denoiser.state_dict())
    inputs = tuple(_twice(each) for each in trained.model.example())  # a batch of 1 is special
    try:
        torch.onnx.export(
            denoiser,
            inputs,
            folder / NAME,
            dynamic_shapes=tuple(_any_size(each) for each in inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # of many kinds: whatever it cannot do
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PluginError(
            f"torch's ONNX exporter cannot write the denoiser of '{name}': {reason}"
        ) from error


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim else value


def _any_size(value: Any) -> Any:
    """Sizes that are left open, as far as the network allows."""
    return dict.fromkeys(range(value.ndim), Dim.AUTO) if isinstance(value, Tensor) else None
