"""The labels of a dataset's images, as a denoiser is told them: one index for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dstbench.contracts import Data, Items, Split
from dstbench.errors import ConfigError
from dstbench_ldm.settings import LabelSettings

SPLITS: tuple[Split, ...] = ("train", "validation")


def classes_told(settings: LabelSettings, items: Items) -> int | None:
    """The number of classes that a denoiser of such items is told: 0 where it is unconditional;
    ``None``: it is not known before the items are loaded.

    Raises :class:`~dstbench.errors.ConfigError` where there is nothing to tell apart.
    """
    if not settings.class_conditional:
        return 0
    if items.classes is not None:
        _require(items.classes)
    return items.classes


def _require(classes: int) -> None:
    if classes < 2:
        found = "all training images have one label" if classes else "the dataset has no labels"
        raise ConfigError(f"class_conditional = true: {found}")


@dataclass(frozen=True)
class Classes:
    """The labels of training images, and how often each occurs."""

    names: tuple[str | int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, data: Data) -> Classes:
        """Those of loaded images.

        Raises :class:`~dstbench.errors.ConfigError` where there is nothing to tell apart, or where
        an image of either split has none of the labels.
        """
        _require(len(data.classes))
        for split in SPLITS:
            labels, images = data.labels.get(split, ()), len(data.split(split))
            if len(labels) != images:
                raise ConfigError(
                    f"class_conditional = true: {len(labels)} labels for {images} {split} images"
                )
            if unknown := sorted(set(map(str, labels)) - set(map(str, data.classes))):
                raise ConfigError(
                    f"class_conditional = true: no training image has the label '{unknown[0]}', "
                    f"which {split} images have"
                )
        found = Counter(data.labels["train"])
        return cls(data.classes, tuple(found[name] for name in data.classes))

    @property
    def hidden(self) -> int:
        """The index of a label that is not told: the one after all others."""
        return len(self.names)

    def indices(self, labels: Sequence[str | int]) -> Tensor:
        """The index (int64) of each label, which must be one of these."""
        places = {name: index for index, name in enumerate(self.names)}
        return torch.tensor([places[label] for label in labels], dtype=torch.int64)

    def drawn(self, count: int, rng: torch.Generator) -> Tensor:
        """Indices (count,) of labels, as often as each occurs; ``rng`` is left as it is.

        They follow from its state: the first are the same however many are asked for, and the
        noise that is drawn from it is that of a model without labels.
        """
        seed = int(torch.randint(2**62, (), generator=rng.clone_state()))
        own = torch.Generator().manual_seed(seed + 1)  # the seed itself is that of fresh noise
        shares = torch.tensor(self.counts, dtype=torch.float64).cumsum(0)
        at = torch.rand(count, generator=own, dtype=torch.float64) * shares[-1]
        return torch.searchsorted(shares, at, right=True).clamp(max=self.hidden - 1)

    def partly_hidden(self, indices: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """The same indices, each of them hidden with a probability of ``share``."""
        hidden = torch.rand(len(indices), generator=rng) < share
        return indices.masked_fill(hidden.to(indices.device), self.hidden)

    def to_text(self) -> str:
        """What :meth:`from_text` makes the same of."""
        return json.dumps(list(zip(self.names, self.counts, strict=True)))

    @classmethod
    def from_text(cls, text: Any) -> Classes:
        """The classes that :meth:`to_text` has told; ``ValueError`` for what are none."""
        told = json.loads(str(text))
        if not isinstance(told, list) or len(told) < 2:
            raise ValueError("classes are a list of two or more")
        for each in told:
            match each:
                case [str() | int(), int(count)] if 0 < count < 2**53:
                    continue
            raise ValueError(f"a class is its label and its count, not {str(each)[:80]}")
        names, counts = zip(*told, strict=True)
        return cls(names, counts)
