"""Seeds derived from a cell's seed, one for each purpose, so that none depends on another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for a purpose, such as ``derive(0, "step", 17)``: 63 bits of a SHA-256.

    Methods and sparsities with the same seed share initial weights, data order, training noise and
    sampling noise, because none of these depends on how much randomness something else consumed.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that torch draws from on a device where it is given none.

    On the CPU ``torch.manual_seed`` takes a millisecond longer: it notes for each other kind of
    device, should one be used later, where it was called.
    """
    import torch

    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
