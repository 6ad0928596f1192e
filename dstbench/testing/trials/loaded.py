"""Summaries of loaded datasets, by which it is seen whether they are the same each time."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from torch import Tensor

from dstbench.contracts import Data, Split

SPLITS: tuple[Split, ...] = ("train", "validation")


def summary(data: Data) -> dict[str, Any]:
    """The hashes of the items, the labels and the fingerprint of loaded data, as JSON has them."""
    found: dict[str, Any] = {split: list(map(content_hash, data.split(split))) for split in SPLITS}
    for split, labels in data.labels.items():
        found[f"labels of {split}"] = list(labels)
    return found | {"fingerprint": data.fingerprint}


def first_unlike(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first difference between two summaries, in words; ``None`` where there is none."""
    for name in before | after:
        one, other = before.get(name, []), after.get(name, [])
        if one == other:
            continue
        if name == "fingerprint":
            return f"the fingerprint is {other}; it was {one}"
        if len(one) != len(other):
            return f"{name} has {len(other)} items; it had {len(one)}"
        odd = next(index for index in range(len(one)) if one[index] != other[index])
        return f"{name}[{odd}] is another than it was"
    return None


def content_hash(item: Any) -> str:
    """SHA-256 of an item's type, shape and content, in hexadecimal digits."""
    if isinstance(item, Tensor):
        kind = f"{item.dtype} {tuple(item.shape)}".encode()
        content = kind + item.detach().cpu().contiguous().numpy().tobytes()
    else:
        content = pickle.dumps(item)
    return hashlib.sha256(content).hexdigest()
