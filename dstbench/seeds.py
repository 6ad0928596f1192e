"""Seeds derived from a cell's seed, one for each purpose, so that none depends on another."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for a purpose, such as ``derive(0, "step", 17)``: 63 bits of a SHA-256.

    Methods and sparsities with the same seed share initial weights, data order, training noise and
    sampling noise, because none of these depends on how much randomness something else consumed.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
