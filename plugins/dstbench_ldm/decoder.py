"""What decodes samples, of a first stage: to be kept with a denoiser, and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor, nn

from dstbench.contracts import SamplingState
from dstbench_ldm.first_stage import FirstStage

ENCODING = ("encoder", "quant_conv")
"""Parts of an autoencoder that samples have no use for."""

CONFIG, SCALE, PREFIX = "config", "scaling_factor", "autoencoder."

MOST = 1 << 16
"""The largest number of an autoencoder's configuration that can be meant."""


def decoder_state(stage: FirstStage) -> SamplingState:
    """The decoding half of the autoencoder, its configuration (JSON), and the latents' scale."""
    tensors = {
        PREFIX + name: tensor
        for name, tensor in stage.autoencoder.state_dict().items()
        if name.partition(".")[0] not in ENCODING
    }
    config = _arguments(stage.autoencoder.config)
    return {CONFIG: json.dumps(config), SCALE: stage.scaling_factor, **tensors}


def restored(state: SamplingState, device: torch.device) -> FirstStage:
    """A first stage that decodes as the one whose state this is, and has no latents.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``RuntimeError`` for what is none.
    """
    config = json.loads(str(state[CONFIG]))
    _check(config)
    with torch.device("meta"):  # whatever is configured, no more than is given takes memory
        autoencoder = VQModel(**config)
    for part in ENCODING:
        setattr(autoencoder, part, nn.Identity())
    tensors = {
        name.removeprefix(PREFIX): value
        for name, value in state.items()
        if isinstance(value, Tensor) and name.startswith(PREFIX)
    }
    autoencoder.load_state_dict(tensors, assign=True)
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    return FirstStage(autoencoder, float(state[SCALE]), {}, None, {})


def with_scale(stage: FirstStage) -> Any:
    """A whole autoencoder, as diffusers' pipelines use it: its configuration says by what latents
    are divided before they are decoded."""
    config = _arguments(stage.autoencoder.config) | {SCALE: stage.scaling_factor}
    autoencoder = VQModel(**config)
    autoencoder.load_state_dict(stage.autoencoder.state_dict())
    return autoencoder.to(stage.autoencoder.device).eval()


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``VQModel``, without what diffusers notes beside them."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _check(config: Any) -> None:
    """Raise :class:`ValueError` for sizes that would take for ever to build."""
    if not isinstance(config, dict):
        raise ValueError("an autoencoder's configuration is a table")
    for name, value in config.items():
        values = value if isinstance(value, list) else [value]
        numbers = [each for each in values if isinstance(each, int | float)]
        if len(values) > 16 or any(abs(number) > MOST for number in numbers):
            raise ValueError(f"autoencoder's {name} is {str(value)[:80]}")
