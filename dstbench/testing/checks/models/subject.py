"""A model, and what it is checked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from dstbench.contracts import Data, Model
from dstbench.testing.checking import Subject, empty_workspace
from dstbench.testing.trials.synthetic import CANDIDATES

BATCH = 8
"""Examples of a batch."""


@dataclass
class ModelSubject(Subject):
    """A model, prepared once for all checks."""

    cls: type[Model]

    @cached_property
    def model(self) -> Model:
        """The model on the first data that it can be trained on, of the shape of its samples if any
        is."""
        if self.given_data is not None:
            return self.prepared(self.given_data)
        if self.cls.accepts not in CANDIDATES:
            raise SkipTest(
                f"the suite has no data of kind '{self.cls.accepts}': give checks(…, data=…)"
            )
        usable: list[Model] = []
        failure: Exception | None = None
        for make in CANDIDATES[self.cls.accepts]:
            try:
                usable.append(self.prepared(make()))
                if self._samples_fit(usable[-1]):
                    return usable[-1]
            except Exception as error:  # of any kind: the model was made for other items
                failure = error
        if failure and not usable:
            raise failure
        return usable[0]

    def prepared(self, data: Data) -> Model:
        """The model on this data, after a loss was computed to see that it can be trained on it."""
        model = self.cls(self.settings, data, empty_workspace())
        torch.manual_seed(0)
        model.loss(model.build(), model.batch("train", torch.arange(2)), generator(0))
        return model

    def _samples_fit(self, model: Model) -> bool:
        """Whether samples have the shape of the data's items, where all items have the same."""
        if model.accepts != "images":
            return True
        with torch.no_grad():
            samples = model.sample(model.build().eval(), 1, 1, generator(0))
        return bool(samples[0].shape == model.data.train[0].shape)

    def build(self, seed: int = 0) -> nn.Module:
        model = self.model
        torch.manual_seed(seed)
        return model.build()

    def loss(self, denoiser: nn.Module, seed: int = 0, model: Model | None = None) -> Tensor:
        """The loss of the first examples, at most :data:`BATCH` of them."""
        model = model or self.model
        count = min(BATCH, len(model.data.train))
        batch = model.batch("train", torch.arange(count))
        return model.loss(denoiser, batch, generator(seed))

    @torch.no_grad()
    def samples(
        self,
        denoiser: nn.Module,
        count: int,
        batch_size: int,
        seed: int = 0,
        model: Model | None = None,
    ) -> Sequence[Any] | Tensor:
        """Samples as the harness draws them."""
        denoiser.eval()
        return (model or self.model).sample(denoiser, count, batch_size, generator(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copied_weights(denoiser: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in denoiser.state_dict().items()}


def trained_parameters(denoiser: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
